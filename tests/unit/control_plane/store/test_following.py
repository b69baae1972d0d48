"""Goal: whatever becomes of the connection on which versions of other control planes are heard of, they are heard of
again. Method: a follower over pretended connections, each of which ends in its own way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import asyncpg
import pytest

from control_plane.store.following import Follower
from control_plane.store.postgres_link import Link
from tests.support.patience import PATIENCE_S

EPOCH = b"e" * 16


class Connection:
    """Says once which version is the head, then ends with `error`."""

    def __init__(self, version: int, error: Exception) -> None:
        self._version = version
        self._error: Exception | None = None
        self._then = error
        self.terminated = False

    async def execute(self, *_: object, timeout: float) -> None:
        return

    async def add_listener(self, _channel: str, _heard: Callable[..., None]) -> None:
        return

    async def fetchrow(self, *_: object, timeout: float) -> Mapping[str, object]:
        if self._error is not None:
            raise self._error
        self._error = self._then
        return {"epoch": EPOCH, "version": self._version}

    def terminate(self) -> None:
        self.terminated = True


class PretendedLink:
    name = "'x' at nowhere"

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.left = list(connections)

    async def connect(self) -> Connection:
        if not self.left:
            await asyncio.Event().wait()
        return self.left.pop(0)


async def test_no_end_of_a_connection_is_the_end_of_following(caplog: pytest.LogCaptureFixture) -> None:
    ends = (
        ConnectionResetError(),
        asyncpg.PostgresConnectionError("gone"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        TimeoutError(),
        ZeroDivisionError("a mistake of ours"),
        OSError(),
    )
    connections = [Connection(version, error) for version, error in enumerate(ends, 1)]
    link = PretendedLink(connections)
    heard: list[int] = []
    follower = Follower(
        cast("Link", link),
        epoch=EPOCH,
        moved=heard.append,
        put_back=lambda: None,
        told=lambda _text: None,
        poll_s=0.0,
        retry_s_max=0.001,
    )
    running = asyncio.create_task(follower.run())
    async with asyncio.timeout(PATIENCE_S):
        while not connections[-1].terminated and not running.done():
            await asyncio.sleep(0)
    assert heard == list(range(1, len(ends) + 1))
    assert [record.levelname for record in caplog.records].count("ERROR") == 1, "the mistake of ours is told as one"
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
