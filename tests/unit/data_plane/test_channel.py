"""Framing, over a transport that is a list."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast

import pytest

from data_plane.channel import Channel, ChannelError


class Transport:
    def __init__(self) -> None:
        self.written = bytearray()
        self.reading = True
        self.closing = False

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.written += b"".join(parts)

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.closing = True

    close = abort


class End:
    """A channel with what it delivered."""

    def __init__(self, *, message_bytes_max: int = 1000) -> None:
        self.messages: list[bytes] = []
        self.lost: list[Exception | None] = []
        self.transport = Transport()
        self.channel = Channel(self.messages.append, self.lost.append, message_bytes_max=message_bytes_max)
        self.channel.connection_made(cast("asyncio.Transport", self.transport))


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize("step", [1, 2, 3, 5, 8, 1000])
async def test_messages_come_out_whole_however_they_were_cut(step: int) -> None:
    end = End()
    sent = [b"", b"a", b"bc" * 100, b"", b"\x00" * 7]
    stream = b"".join(map(frame, sent))
    for at in range(0, len(stream), step):
        end.channel.data_received(stream[at : at + step])
    assert end.messages == sent


async def test_sending_frames_the_message_and_refuses_a_giant() -> None:
    end = End()
    end.channel.send(b"hello")
    assert bytes(end.transport.written) == frame(b"hello")
    with pytest.raises(ChannelError, match="1001 bytes"):
        end.channel.send(b"x" * 1001)


async def test_an_announced_giant_ends_the_channel_before_it_is_buffered() -> None:
    end = End()
    end.channel.data_received((1001).to_bytes(4, "big"))
    assert end.transport.closing
    end.channel.connection_lost(None)
    assert len(end.lost) == 1
    assert isinstance(end.lost[0], ChannelError)


async def test_a_paused_channel_delivers_nothing_and_goes_on_where_it_stopped() -> None:
    end = End()
    end.channel.pause_reading()
    end.channel.data_received(frame(b"one") + frame(b"two"))
    assert end.messages == []
    assert not end.transport.reading
    end.channel.resume_reading()
    await asyncio.sleep(0)
    assert end.messages == [b"one", b"two"]


async def test_pausing_from_within_a_message_holds_back_the_next() -> None:
    messages: list[bytes] = []
    end = End()

    def stop_after_first(message: bytes) -> None:
        messages.append(message)
        channel.pause_reading()

    channel = Channel(stop_after_first, end.lost.append)
    channel.connection_made(cast("asyncio.Transport", end.transport))
    channel.data_received(frame(b"one") + frame(b"two"))
    assert messages == [b"one"]


async def test_draining_waits_for_the_reader_and_ends_when_it_is_gone() -> None:
    end = End()
    await end.channel.drain()
    end.channel.pause_writing()
    waiting = asyncio.create_task(end.channel.drain())
    await asyncio.sleep(0)
    assert not waiting.done()
    end.channel.resume_writing()
    await waiting
    end.channel.pause_writing()
    waiting = asyncio.create_task(end.channel.drain())
    await asyncio.sleep(0)
    end.channel.connection_lost(None)
    with pytest.raises(ConnectionError):
        await waiting
    with pytest.raises(ConnectionError):
        await end.channel.drain()
    end.channel.send(b"into the void")
    assert end.lost == [None]
