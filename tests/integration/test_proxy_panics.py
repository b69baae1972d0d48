"""A mistake of ours inside one request: it is answered 500, logged with route and version, and costs nobody else.

The mistakes are put in from outside, by replacing a method of the hot path with one that raises for one path.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from data_plane.proxy import client as client_module
from data_plane.proxy.exchange import Exchange
from tests.support.echo_upstream import echo_running
from tests.support.proxying import Client, proxy_to, route_to_first

GET = b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n"
# More than is gathered before an attempt, so that it streams.
POST = b"POST /%b HTTP/1.1\r\nHost: h\r\nContent-Length: 1100000\r\n\r\n" + b"x" * 1_100_000


def break_method(patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Let a function fail for every request whose path says so."""
    real = getattr(owner, name)

    def broken(*arguments: Any, **options: Any) -> Any:
        first = arguments[0]
        head = first._client.head if isinstance(first, Exchange) else arguments[1]
        if b"/broken" in head.path:
            raise ZeroDivisionError("of ours")
        return real(*arguments, **options)

    patch.setattr(owner, name, broken)


PLACES: list[tuple[Any, str, bytes]] = [
    (client_module, "make_plan", GET),
    (Exchange, "start", GET),
    (Exchange, "start", POST),
    (Exchange, "send_body", POST),
    (Exchange, "begin_answer", GET),
]


@pytest.mark.parametrize(("owner", "name", "request_of"), PLACES)
async def test_a_mistake_in_one_request_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, owner: Any, name: str, request_of: bytes
) -> None:
    caplog.set_level(logging.ERROR)
    break_method(monkeypatch, owner, name)
    async with echo_running() as port, proxy_to(port, routes=[route_to_first(name="cart")]) as rig:
        others = [await Client.open(rig.port) for _ in range(5)]
        for other in others:
            other.send(GET % b"sleep/0.1")
        used = await Client.open(rig.port)
        used.send(GET % b"fine")
        assert (await used.answer()).status == 200
        used.send(request_of % b"broken")
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
    route = "-" if name == "make_plan" else "cart"
    assert f"route {route}," in record.getMessage()


async def test_a_mistake_inside_an_answer_ends_it_visibly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0
    real = Exchange.write

    def broken(self: Exchange, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ZeroDivisionError("of ours")
        real(self, data)

    monkeypatch.setattr(Exchange, "write", broken)
    async with echo_running() as port, proxy_to(port) as rig:
        client = await Client.open(rig.port)
        client.send(GET % b"big/3000000")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.answer()
        await client.close()
        monkeypatch.undo()
        assert (await rig.ask(GET % b"fine")).startswith(b"HTTP/1.1 200 ")
        await rig.settled()
        assert rig.counters.errors_internal == 1
    assert "version 7" in caplog.text
