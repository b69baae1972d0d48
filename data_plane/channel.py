"""The socket pair between the node process and one worker: whole messages in, whole messages out.

Each message is preceded by its length as four bytes, big-endian. Both ends use this class, and neither may import the
other's rooms, so it stands beside both and knows nothing of what the messages say. Sending never blocks; who sends much
awaits `drain`, and who receives more than it can handle stops reading, which ends at the sender's `drain`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from typing_extensions import override

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""A batch of entities is 256 KiB; one entity may be larger than a batch, never than this."""

_LENGTH_BYTES = 4
_COMPACT_BYTES = 1024 * 1024


class ChannelError(Exception):
    """The other end broke the framing, or a message is too large to send."""


class Channel(asyncio.Protocol):
    """One end. `on_message` gets each message in order; `on_lost` is called once, when the other end is gone."""

    def __init__(
        self,
        on_message: Callable[[bytes], None],
        on_lost: Callable[[Exception | None], None],
        *,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._message_bytes_max = message_bytes_max
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._position = 0
        self._reading = True
        self._delivering = False
        self._fault: ChannelError | None = None
        self._writable: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls,
        end: socket.socket,
        on_message: Callable[[bytes], None],
        on_lost: Callable[[Exception | None], None],
        *,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> Channel:
        """Take over one end of a socket pair."""
        end.setblocking(False)
        channel = cls(on_message, on_lost, message_bytes_max=message_bytes_max)
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=end)
        return channel

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def congested(self) -> bool:
        """Whether the other end is behind with what it was sent."""
        return self._writable is not None

    def send(self, *messages: bytes) -> None:
        """Queue messages, in one go; dropped when the other end is gone, which `on_lost` tells."""
        framed: list[bytes] = []
        for message in messages:
            if len(message) > self._message_bytes_max:
                raise ChannelError(f"a message of {len(message)} bytes is above the limit of {self._message_bytes_max}")
            framed += (len(message).to_bytes(_LENGTH_BYTES, "big"), message)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(framed)

    async def drain(self) -> None:
        """Wait until the other end has taken enough of what was sent; raises ConnectionError when it is gone."""
        if self.closed:
            raise ConnectionResetError("the other end of the channel is gone")
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def pause_reading(self) -> None:
        """Deliver nothing more until `resume_reading`, and let the sender feel it."""
        if self._reading:
            self._reading = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`; what has already arrived is delivered from the loop, not from within this call."""
        if not self._reading:
            self._reading = True
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
                asyncio.get_running_loop().call_soon(self._deliver)

    def close(self) -> None:
        """Close after what is queued has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from it

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        self._deliver()

    @override
    def eof_received(self) -> bool | None:
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._writable is not None and not self._writable.done():
            self._writable.set_exception(ConnectionResetError("the other end of the channel is gone"))
            self._writable.exception()  # nobody may be waiting
        self._on_lost(self._fault or exc)

    @override
    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    @override
    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def _deliver(self) -> None:
        if self._delivering:
            return
        self._delivering = True
        received = self._received
        try:
            while self._reading and self._transport is not None and len(received) - self._position >= _LENGTH_BYTES:
                body = self._position + _LENGTH_BYTES
                length = int.from_bytes(received[self._position : body], "big")
                if length > self._message_bytes_max:
                    self._fault = ChannelError(f"a message of {length} bytes was announced, above the limit")
                    self._transport.abort()
                    return
                if len(received) < body + length:
                    break
                message = bytes(memoryview(received)[body : body + length])
                self._position = body + length
                self._on_message(message)
        finally:
            self._delivering = False
            if self._position == len(received):
                received.clear()
                self._position = 0
            elif self._position > _COMPACT_BYTES:
                del received[: self._position]
                self._position = 0
