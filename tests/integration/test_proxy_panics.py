"""A mistake of ours inside one request: it is answered 500, logged with route and version, and costs nobody else.

The mistakes are put in from outside, where the hot path calls what can be replaced on both of its builds: methods of
compiled classes can't.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
from dataclasses import dataclass
from typing import Any

import pytest

from data_plane.proxy.chunks import ChunkDecoder
from tests.support.echo_upstream import echo_running
from tests.support.proxying import Client, HandBalancer, proxy_to, route_to_first

GET = b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n"
# More than is gathered before an attempt, so that it streams.
POST = b"POST /%b HTTP/1.1\r\nHost: h\r\nContent-Length: 1100000\r\n\r\n" + b"x" * 1_100_000


def break_once(patch: pytest.MonkeyPatch, owner: Any, name: str, call: int = 0) -> None:
    """Let a function fail at one call, counted from 0."""
    if isinstance(owner, str):
        owner = importlib.import_module(owner)
    real = getattr(owner, name)
    calls = itertools.count()

    def broken(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise ZeroDivisionError("of ours")
        return real(*arguments, **options)

    patch.setattr(owner, name, broken)


@dataclass(frozen=True)
class Place:
    """What fails when it is called next, and the request that calls it."""

    owner: Any
    name: str
    request: bytes


PLACES = [
    Place("data_plane.proxy.client", "make_plan", GET % b"broken"),
    Place(HandBalancer, "pick", GET % b"broken"),
    Place(HandBalancer, "pick", POST % b"broken"),
    Place("data_plane.proxy.exchange", "last_chunk", POST % b"broken"),
    Place("data_plane.proxy.upstream", "ChunkDecoder", GET % b"chunked"),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
async def test_a_mistake_in_one_request_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: Place
) -> None:
    caplog.set_level(logging.ERROR)
    async with echo_running() as port, proxy_to(port, routes=[route_to_first(name="cart")]) as rig:
        others = [await Client.open(rig.port) for _ in range(5)]
        for other in others:
            other.send(GET % b"sleep/0.1")
        used = await Client.open(rig.port)
        used.send(GET % b"fine")
        assert (await used.answer()).status == 200
        break_once(monkeypatch, place.owner, place.name)
        used.send(place.request)
        answer = await used.answer()
        assert answer.status == 500
        assert b"An unexpected error occurred" in answer.body
        assert answer.field("X-Kong-Request-Id")
        assert [(await other.answer()).status for other in others] == [200] * 5
        for other in others:
            other.send(GET % b"again")
        assert [(await other.answer()).status for other in others] == [200] * 5
        await rig.settled()
        assert rig.counters.errors_internal == 1
        assert rig.counters.requests_malformed == 0
        for client in (used, *others):
            await client.close()
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "version 7" in record.getMessage()
    route = "-" if place.name == "make_plan" else "cart"
    assert f"route {route}," in record.getMessage()


async def test_a_mistake_inside_an_answer_ends_it_visibly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_once(monkeypatch, ChunkDecoder, "feed", call=2)
    async with echo_running() as port, proxy_to(port) as rig:
        client = await Client.open(rig.port)
        client.send(GET % b"bigchunked/3000000")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.answer()
        await client.close()
        monkeypatch.undo()
        assert (await rig.ask(GET % b"fine")).startswith(b"HTTP/1.1 200 ")
        await rig.settled()
        assert rig.counters.errors_internal == 1
    assert "version 7" in caplog.text
