"""A request's body by itself: the same at every cut, gathered as far as there is room, drained to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from data_plane.observe.counters import Counters
from data_plane.proxy.chunks import BadChunk
from data_plane.proxy.head import RequestHead
from data_plane.proxy.request_body import RequestBody
from data_plane.proxy.settings import STREAM_BYTES, ProxySettings
from data_plane.proxy.shared import Shared
from data_plane.proxy.tables import Active

CHUNKED = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
WITH_TRAILERS = b"5\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n"


@pytest.fixture
def shared() -> Iterator[Shared]:
    loop = asyncio.new_event_loop()
    yield Shared(
        Active(),
        ProxySettings(replay_bytes_max=100_000, replay_total_bytes_max=150_000, body_bytes_max=1_000_000),
        loop,
        Counters(),
        scheme="http",
    )
    loop.close()


def begun(shared: Shared, *, length: int = -1, buffered: bool = True) -> RequestBody:
    head = RequestHead()
    head.length, head.chunked = length, length < 0
    body = RequestBody(shared)
    body.begin(head, buffered=buffered)
    return body


@pytest.mark.parametrize(
    ("length", "sent", "line", "goes_on"),
    [
        (5, b"abcde", b"Content-Length: 5", b"abcde"),
        (-1, CHUNKED, b"Content-Length: 5", b"abcde"),
        (-1, WITH_TRAILERS, b"Transfer-Encoding: chunked", WITH_TRAILERS),
    ],
)
def test_every_cut_gives_the_same_body_and_leaves_the_next_request(
    shared: Shared, length: int, sent: bytes, line: bytes, goes_on: bytes
) -> None:
    for at in range(len(sent)):
        body = begun(shared, length=length)
        pieces, complete = body.feed(sent[:at])
        assert not complete
        body.gather(pieces)
        pieces, complete = body.feed(sent[at:] + b"GET /next")
        assert complete
        body.gather(pieces)
        assert body.rest == b"GET /next"
        assert body.take() == (line, goes_on)


def test_a_small_body_is_waited_for_and_a_large_one_while_there_is_room(shared: Shared) -> None:
    assert begun(shared, length=STREAM_BYTES).waits()
    assert not begun(shared, length=STREAM_BYTES, buffered=False).waits()
    assert not begun(shared, length=100_001).waits()
    first, second = begun(shared, length=100_000), begun(shared, length=100_000)
    assert first.waits()
    assert shared.gathered_bytes == first.reserved == 100_000
    assert not second.waits()
    first.free()
    assert shared.gathered_bytes == 0
    assert second.waits()


def test_what_has_begun_goes_on_in_its_own_framing(shared: Shared) -> None:
    known, chunked = begun(shared, length=9, buffered=False), begun(shared, buffered=False)
    known.gather(known.feed(b"abc")[0])
    chunked.gather(chunked.feed(b"3\r\nabc\r\n2")[0])
    assert known.take_begun() == (b"Content-Length: 9", b"abc")
    assert chunked.take_begun() == (b"Transfer-Encoding: chunked", b"abc")


def test_more_than_may_be_sent_is_413_as_soon_as_it_is_announced(shared: Shared) -> None:
    with pytest.raises(BadChunk) as caught:
        begun(shared).feed(b"fffff\r\nab")
    assert caught.value.status == 413


@pytest.mark.parametrize(("length", "sent"), [(5, b"abcde"), (-1, CHUNKED)])
def test_what_nobody_wants_is_read_to_its_end(shared: Shared, length: int, sent: bytes) -> None:
    for at in range(len(sent)):
        body = begun(shared, length=length)
        assert body.drained(sent[:at]) == -1
        assert body.drained(sent[at:] + b"GET") == len(sent) - at
    with pytest.raises(BadChunk):
        begun(shared).drained(b"x")
    assert begun(shared, length=65536).may_be_drained()
    assert not begun(shared, length=65537).may_be_drained()
