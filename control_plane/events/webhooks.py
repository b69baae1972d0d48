"""Posts events to addresses of the operator's choice: each at least once, in order, and signed where a secret is set.

Each address has a task and a place in the ring of its own, so one that hangs delays no other. An event that is not
taken after `ATTEMPTS` is dropped and counted, as are those that the ring lost while an address could not be reached:
webhooks tell people and bots, they are no replica.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from control_plane.events.ring import Event, Follower, Kind, Ring

log = logging.getLogger(__name__)

ATTEMPTS = 6
FIRST_PAUSE_S = 0.5
PAUSE_S_MAX = 30.0
TIMEOUT_S = 5.0
FLUSH_S = 2.0
"""How long the end of the process waits for what is on its way."""
_TAKEN_LATER = frozenset({408, 425, 429})


@dataclass(slots=True)
class Deliveries:
    """What became of the events for one address since the start."""

    delivered: int = 0
    dropped: int = 0


class Webhooks:
    """Follows the ring from `start` to `stop`. `kinds` = what is posted."""

    def __init__(
        self,
        ring: Ring,
        addresses: Sequence[str],
        *,
        kinds: frozenset[Kind],
        secret: str = "",
        first_pause_s: float = FIRST_PAUSE_S,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.counts = {address: Deliveries() for address in addresses}
        self._ring = ring
        self._kinds = kinds
        self._secret = secret.encode()
        self._first_pause_s = first_pause_s
        self._wall = wall
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def totals(self) -> Mapping[str, int]:
        """Deliveries by outcome, over all addresses."""
        return {
            "delivered": sum(each.delivered for each in self.counts.values()),
            "dropped": sum(each.dropped for each in self.counts.values()),
        }

    async def start(self) -> None:
        """Begins with what happens from now on."""
        if not self.counts:
            return
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        for address in self.counts:
            follower = self._ring.follow(kinds=self._kinds | {Kind.GAP})
            self._tasks.append(asyncio.create_task(self._post_all(address, follower), name=f"webhook {address}"))

    async def stop(self) -> None:
        """Ends, once the ring has: what is on its way gets a moment."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=FLUSH_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks = []
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post_all(self, address: str, follower: Follower) -> None:
        counts = self.counts[address]
        try:
            while (events := await follower.next(wait_s=None)) is not None:
                for event in events:
                    if event.kind is Kind.GAP:
                        missed = event.data.get("missed")
                        counts.dropped += missed if isinstance(missed, int) else 1
                    elif await self._post(address, event):
                        counts.delivered += 1
                    else:
                        counts.dropped += 1
        finally:
            follower.close()

    async def _post(self, address: str, event: Event) -> bool:
        """Whether it was taken, in the end."""
        pause_s, why = self._first_pause_s, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(pause_s * (0.5 + self._rng.random() / 2))
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
            try:
                status = await self._send(address, event)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = str(error) or type(error).__name__
                continue
            if status < 300:
                return True
            why = f"HTTP status {status}"
            if status < 500 and status not in _TAKEN_LATER:
                break
        log.warning("an event was not taken by a webhook", extra={"address": address, "event": event.id, "why": why})
        return False

    async def _send(self, address: str, event: Event) -> int:
        assert self._session is not None
        body = json.dumps(event.to_json()).encode()
        sent_at = str(int(self._wall()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "pointsman",
            "X-Pointsman-Event": event.kind.value,
            "X-Pointsman-Delivery": event.id,
            "X-Pointsman-Timestamp": sent_at,
        }
        if self._secret:
            headers["X-Pointsman-Signature"] = "sha256=" + signature(self._secret, sent_at, body)
        async with self._session.post(address, data=body, headers=headers, allow_redirects=False) as response:
            return response.status


def signature(secret: bytes, sent_at: str, body: bytes) -> str:
    """What proves that a delivery is ours: HMAC-SHA256 over `TIMESTAMP.BODY`, in hex."""
    return hmac.new(secret, sent_at.encode() + b"." + body, hashlib.sha256).hexdigest()
