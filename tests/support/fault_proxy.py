"""A TCP proxy for bad days: it can cut connections, stall them, slow them down, or refuse new ones.

Stalling keeps the connections open and moves nothing, as a half-open link does. Slowing limits the bytes a second
towards the dialling side. All of it can be changed while traffic flows.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 16 * 1024


class FaultProxy:
    """Listens on a port that the kernel chooses and forwards to `target_port` on loopback, or to a Unix socket."""

    def __init__(self, target_port: int = 0, *, target_path: str = "") -> None:
        self.target_port = target_port
        self.target_path = target_path
        self.bytes_to_client = 0
        self.cut_after_bytes: int | None = None
        """Cuts all connections once this many more bytes went to the dialling side; then forgets about it."""
        self.bytes_per_s: float | None = None
        self.refuse = False
        self.refuse_after_cut = False
        """Whether the cut of `cut_after_bytes` begins a time of refusing, so that nobody slips in between."""
        self.accepted = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._flowing_to_client = asyncio.Event()
        self._flowing_to_client.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._accepting: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.resume()
        self.cut()
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._pumps, *self._accepting, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Resets every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Moves nothing until `resume`."""
        self._flowing.clear()
        self._flowing_to_client.clear()

    def stall_one_way(self, *, to_client: bool) -> None:
        """Moves nothing in one direction until `resume`."""
        (self._flowing_to_client if to_client else self._flowing).clear()

    def resume(self) -> None:
        """Ends a stall."""
        self._flowing.set()
        self._flowing_to_client.set()

    async def _accept(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)
        self.accepted += 1
        if self.refuse:
            client_writer.transport.abort()
            return
        try:
            if self.target_path:
                reader, writer = await asyncio.open_unix_connection(self.target_path)
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            client_writer.transport.abort()
            return
        self._writers |= {client_writer, writer}
        pumps = [
            asyncio.create_task(self._pump(client_reader, writer)),
            asyncio.create_task(self._pump(reader, client_writer, to_client=True)),
        ]
        self._pumps.update(pumps)
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._pumps.difference_update(pumps)
            self._writers -= {client_writer, writer}
            client_writer.transport.abort()
            writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_client: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await (self._flowing_to_client if to_client else self._flowing).wait()
                if to_client:
                    if self.bytes_per_s is not None:
                        await asyncio.sleep(len(data) / self.bytes_per_s)
                    self.bytes_to_client += len(data)
                    if self.cut_after_bytes is not None:
                        self.cut_after_bytes -= len(data)
                        if self.cut_after_bytes < 0:
                            self.cut_after_bytes = None
                            self.refuse = self.refuse or self.refuse_after_cut
                            self.cut()
                            return
                writer.write(data)
                await writer.drain()
