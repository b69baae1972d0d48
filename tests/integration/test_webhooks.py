"""Webhooks against real receivers: signed, in order, again after a failure, and none delays another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from control_plane.events.addresses import checked
from control_plane.events.ring import Kind, Ring
from control_plane.events.webhooks import Webhooks, signature
from tests.support.patience import until

SECRET = "s3cr3t"


class Receiver:
    """Answers with the given statuses in turn, then with 200; keeps what it took."""

    def __init__(self, *statuses: int, hangs: bool = False) -> None:
        self.statuses = list(statuses)
        self.hangs = hangs
        self.seen: list[tuple[Mapping[str, str], bytes]] = []
        self.address = ""

    async def take(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        self.seen.append((dict(request.headers), body))
        if self.hangs:
            await asyncio.sleep(3600)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200, headers={"Location": "/elsewhere"})

    @property
    def ids(self) -> list[str]:
        return [json.loads(body)["id"] for _, body in self.seen]


@asynccontextmanager
async def listening(*receivers: Receiver) -> AsyncIterator[None]:
    runners = []
    for receiver in receivers:
        runner = web.ServerRunner(web.Server(receiver.take), shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.address = "http://{}:{}/hook".format(*runner.addresses[0])
        runners.append(runner)
    try:
        yield
    finally:
        for runner in runners:
            await runner.cleanup()


@asynccontextmanager
async def webhooks(ring: Ring, *receivers: Receiver) -> AsyncIterator[Webhooks]:
    hooks = Webhooks(
        ring,
        [receiver.address for receiver in receivers],
        kinds=frozenset({Kind.SWITCH}),
        secret=SECRET,
        first_pause_s=0.01,
        wall=lambda: 1_800_000_000.5,
    )
    await hooks.start()
    try:
        yield hooks
    finally:
        ring.close()
        await hooks.stop()


async def test_each_event_is_posted_once_signed_and_in_order() -> None:
    ring, receiver = Ring(wall=lambda: 1.0, boot="b"), Receiver()
    async with listening(receiver), webhooks(ring, receiver) as hooks:
        ring.add(Kind.NODE, {"hostname": "not asked for"})
        ring.add(Kind.SWITCH, {"switch": 1, "state": "decided"})
        ring.add(Kind.SWITCH, {"switch": 1, "state": "confirmed"})
        await until(lambda: hooks.counts[receiver.address].delivered == 2)
    assert receiver.ids == ["b-2", "b-3"]
    headers, body = receiver.seen[0]
    assert json.loads(body) == {
        "id": "b-2", "type": "switch", "at": 1.0, "data": {"switch": 1, "state": "decided"},
    }  # fmt: skip
    assert headers["X-Pointsman-Event"] == "switch"
    assert headers["X-Pointsman-Delivery"] == "b-2"
    assert headers["X-Pointsman-Timestamp"] == "1800000000"
    assert headers["X-Pointsman-Signature"] == "sha256=" + signature(SECRET.encode(), "1800000000", body)


async def test_what_fails_for_now_is_tried_again_and_what_is_refused_is_not() -> None:
    ring = Ring(wall=lambda: 1.0, boot="b")
    shaky, refusing, moved = Receiver(503, 429), Receiver(400), Receiver(302)
    async with listening(shaky, refusing, moved), webhooks(ring, shaky, refusing, moved) as hooks:
        ring.add(Kind.SWITCH, {})
        ring.add(Kind.SWITCH, {})
        await until(lambda: all(each.delivered + each.dropped == 2 for each in hooks.counts.values()))
        assert (hooks.counts[shaky.address].delivered, hooks.counts[shaky.address].dropped) == (2, 0)
        assert (hooks.counts[refusing.address].delivered, hooks.counts[refusing.address].dropped) == (1, 1)
        assert (hooks.counts[moved.address].delivered, hooks.counts[moved.address].dropped) == (1, 1)
    assert shaky.ids == ["b-1", "b-1", "b-1", "b-2"]
    assert refusing.ids == ["b-1", "b-2"]


async def test_one_that_hangs_delays_no_other_and_the_end_comes_all_the_same() -> None:
    ring, hanging, good = Ring(wall=lambda: 1.0, boot="b"), Receiver(hangs=True), Receiver()
    async with listening(hanging, good), webhooks(ring, hanging, good) as hooks:
        for _ in range(3):
            ring.add(Kind.SWITCH, {})
        await until(lambda: hooks.counts[good.address].delivered == 3)
        await until(lambda: len(hanging.seen) == 1)
    assert hooks.counts[hanging.address].delivered == 0


async def test_what_the_ring_has_lost_counts_as_dropped() -> None:
    ring, receiver = Ring(wall=lambda: 1.0, boot="b", events_max=2), Receiver()
    async with listening(receiver), webhooks(ring, receiver) as hooks:
        for _ in range(5):
            ring.add(Kind.SWITCH, {})
        await until(lambda: hooks.counts[receiver.address].delivered == 2)
        assert hooks.counts[receiver.address].dropped == 3
    assert receiver.ids == ["b-4", "b-5"]


@pytest.mark.parametrize("address", ["ftp://x/", "hooks.example.com", "https://", "https://me:pw@hooks.example.com/"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        checked(address)
