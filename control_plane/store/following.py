"""Hears of versions that other control planes commit.

One connection listens, and looks at the head once a second besides, because a connection that only listens can die in
silence. It also holds, shared with all running control planes, the lock that an upgrade or a restore takes for itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable

import asyncpg

from control_plane.store.postgres_link import IN_USE, Link

log = logging.getLogger(__name__)

VERSIONS = "pointsman_versions"
"""The channel on which each commit with a version is announced."""
PLANES = "pointsman_planes"
"""The channel on which control planes tell each other what need not be kept."""
WORDS_MAX = 1024
"""Words waiting to be told; of more the oldest are lost."""
_ANSWER_TIMEOUT_S = 5.0
_TROUBLE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
"""What an ended connection may show itself as. The driver calls it an error of its own when the server's last word came
while nothing was asked."""


class Follower:
    """Calls `moved(version)` on the loop whenever the head may have moved, for as long as `run` runs."""

    def __init__(
        self,
        link: Link,
        *,
        epoch: bytes,
        moved: Callable[[int], None],
        put_back: Callable[[], None],
        told: Callable[[str], None],
        poll_s: float,
        retry_s_max: float,
    ) -> None:
        self._link = link
        self._epoch = epoch
        self._moved = moved
        self._put_back = put_back
        self._told = told
        self._to_tell: deque[str] = deque(maxlen=WORDS_MAX)
        self._poll_s = poll_s
        self._retry_s_max = retry_s_max
        self._wake = asyncio.Event()
        self.foreign = False
        """The database was put back to another history: what this process knows is of no use any longer."""

    async def run(self) -> None:
        """Follows for ever, over as many connections as it takes."""
        retry_s = 0.05
        lost = False
        while True:
            try:
                connection = await self._link.connect()
                try:
                    await self._begin(connection)
                    if lost:
                        log.info("the database %s is back", self._link.name)
                    lost, retry_s = False, 0.05
                    while True:
                        await self._look(connection)
                        await self._tell(connection)
                        await self._pause()
                finally:
                    connection.terminate()
            except _TROUBLE as error:
                if not lost:
                    log.warning("versions of other control planes are not heard of now: %s", error or type(error))
                lost = True
            except Exception:
                # Without the follower this control plane would never again see what others commit, and not say so.
                log.exception("following other control planes failed by a mistake of ours; it goes on")
                lost = True
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
            retry_s = min(2 * retry_s, self._retry_s_max)

    async def _begin(self, connection: asyncpg.Connection) -> None:
        await connection.execute(f"SELECT pg_advisory_lock_shared({IN_USE})", timeout=_ANSWER_TIMEOUT_S)
        await connection.add_listener(VERSIONS, self._heard)
        await connection.add_listener(PLANES, self._heard_words)

    def tell(self, text: str) -> None:
        """Tells all control planes over the database, this one too, some words; lost while the database is away."""
        self._to_tell.append(text)
        self._wake.set()

    async def _tell(self, connection: asyncpg.Connection) -> None:
        while self._to_tell:
            await connection.execute(
                "SELECT pg_notify($1, $2)", PLANES, self._to_tell.popleft(), timeout=_ANSWER_TIMEOUT_S
            )

    def _heard(self, *_: object) -> None:
        self._wake.set()

    def _heard_words(self, _connection: object, _pid: int, _channel: str, text: object) -> None:
        self._told(str(text))

    async def _look(self, connection: asyncpg.Connection) -> None:
        self._wake.clear()
        row = await connection.fetchrow("SELECT epoch, version FROM head WHERE one = 1", timeout=_ANSWER_TIMEOUT_S)
        if row is None or bytes(row["epoch"]) != self._epoch:
            if not self.foreign:
                self.foreign = True
                self._put_back()
            return
        self._moved(row["version"])

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._poll_s):
                await self._wake.wait()
        except TimeoutError:
            return
