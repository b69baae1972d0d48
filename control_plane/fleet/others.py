"""The nodes of other control planes in a rollout that this one coordinates.

The other control planes are asked which nodes they have when a rollout's turn comes; those nodes are members like our
own, and whether a word to one goes over a stream of ours or through its control plane is known here and nowhere else.
Who does not answer in time is not waited for: its nodes take the version as any change, and the rollout names them.

Frames travel through the store, because they may hold private keys and the store seals those; all else is notified.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from control_plane.entities.types import EntityBody
from control_plane.fleet import relay_words as said
from control_plane.fleet.nodes import Nodes
from control_plane.fleet.relay import FRAMES
from control_plane.store.contract import Origin, Store, Transaction
from pointsman.rules.plane_clock import PlaneClock
from pointsman.wire.v1 import fleet_pb2

TAKE_S = 1.0
"""How long other control planes have to say which nodes they have; it is a few milliseconds when they are there."""
EXCHANGES = 4
EXCHANGE_EVERY_S = 0.003
ERROR_NS_GOOD = 500_000
"""A doubt about another control plane's clock with which no more exchanges are made."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Remote:
    """What one rollout has at other control planes. `nodes` are control planes by node, all by id."""

    number: int
    fence: int
    planes: set[str] = field(default_factory=set)
    """All that were asked for their nodes, and must hear of the end."""
    nodes: dict[str, str] = field(default_factory=dict)
    hostnames: dict[str, str] = field(default_factory=dict)
    version: int = 0
    """The newest version that any of these nodes is to run: the rollout can't begin before it."""
    waiting: set[str] = field(default_factory=set)
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False
    """Who answers from now on takes no part."""


class Others:
    """Talks with the other control planes; one per process.

    `on_message` hears what a node elsewhere said, its times in our own time, and `on_gone` whose stream there ended.
    """

    def __init__(
        self,
        store: Store,
        nodes: Nodes,
        *,
        tell: Callable[[str, said.Word], None],
        own: Callable[[Coroutine[None, None, None], str], None],
        on_message: Callable[[Remote, str, fleet_pb2.NodeMessage], None],
        on_gone: Callable[[Remote, str, str], None],
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._tell = tell
        self._own = own
        self._on_message = on_message
        self._on_gone = on_gone
        self._clocks: dict[str, PlaneClock] = {}
        self._silent: set[str] = set()
        """Who did not answer last time: still asked, not waited for until it is heard of again."""
        self._open: dict[int, Remote] = {}
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}  # by upstream and node: when counted, and what

    async def take(self, number: int, fence: int) -> Remote:
        """Which nodes of others take part; from now on they stay at what they run."""
        planes = set(self._nodes.other_planes)  # also those that we know no nodes of: one may have connected just now
        remote = Remote(number, fence, planes=planes, waiting=planes - self._silent)
        if not planes:
            return remote
        self._open[number] = remote
        for plane in planes:
            self._tell(plane, said.Take(number, fence, time.monotonic_ns()))
        if remote.waiting:
            try:
                async with asyncio.timeout(TAKE_S):
                    await remote.taken.wait()
            except TimeoutError:
                log.warning("%d control planes did not say which nodes they have", len(remote.waiting))
                self._silent |= remote.waiting
        remote.closed = True
        for plane in set(remote.nodes.values()):
            self._own(self._compare_clocks(plane), "comparing control planes' clocks")
        return remote

    async def prepare(self, remote: Remote, round_number: int, frame: bytes, tolerate: Sequence[str]) -> None:
        """Has the frame passed on to the nodes elsewhere. Raises StoreError."""
        if not remote.nodes:
            return
        text = base64.b64encode(frame).decode("ascii")

        def keep(tx: Transaction) -> None:
            body: EntityBody = {"round": round_number, "frame": text}
            tx.identities.put(FRAMES, str(remote.number), body, secrets=("frame",))

        await self._store.write(keep, Origin())
        for plane in set(remote.nodes.values()):
            self._tell(plane, said.Prepare(remote.number, remote.fence, round_number, tolerate))

    def activate(self, remote: Remote, at_ns: int) -> None:
        """Tells the instant, to each control plane in its own time."""
        now_ns = time.monotonic_ns()
        for plane in set(remote.nodes.values()):
            there_ns = self._clocks[plane].to_plane(at_ns, now_ns)
            if there_ns is not None:
                self._tell(plane, said.Activate(remote.number, remote.fence, there_ns))

    def end(self, remote: Remote, aborted: str) -> None:
        """The rollout is over; `aborted` is why, or empty when it was decided."""
        self._open.pop(remote.number, None)
        for plane in remote.planes:
            self._tell(plane, said.End(remote.number, remote.fence, aborted[:255]))

    def ask_counts(self, upstreams: Sequence[str]) -> None:
        """Asks the others how many requests their nodes have open towards these upstreams."""
        for plane in {node.elsewhere.id for node in self._nodes.elsewhere() if node.elsewhere is not None}:
            self._tell(plane, said.Count(upstreams))

    def open_requests(self, node: str, upstream: str) -> tuple[float, int] | None:
        """When a node elsewhere counted its open requests, and how many were towards an upstream, as far as we know."""
        return self._counts.get((upstream, node))

    def forget_counts(self, upstreams: Sequence[str]) -> None:
        """Nobody asks for these upstreams any more."""
        for key in [key for key in self._counts if key[0] in upstreams]:
            del self._counts[key]

    def heard(self, sender: str, word: said.Word) -> None:
        """A word of another control plane's to a coordinator."""
        now_ns = time.monotonic_ns()
        self._silent.discard(sender)
        match word:
            case said.Timed():
                self._sample(sender, word, now_ns)
            case said.Taken():
                self._sample(sender, word, now_ns)
                self._took(sender, word)
            case said.Said():
                remote = self._open.get(word.rollout)
                if remote is not None and remote.fence == word.fence:
                    self._said(sender, remote, word)
            case said.Counted():
                now = now_ns / 1e9
                for node, (age_s, count) in word.nodes.items():
                    self._counts[word.upstream, node] = (now - age_s, count)
            case _:
                pass

    def _took(self, sender: str, word: said.Taken) -> None:
        remote = self._open.get(word.rollout)
        if remote is None or remote.closed or remote.fence != word.fence or sender not in remote.planes:
            return
        for node, hostname in word.nodes.items():
            known = self._nodes.get(node)
            if known is None or not known.connected:  # it may have come over to us meanwhile
                remote.nodes[node], remote.hostnames[node] = sender, hostname
        if word.nodes:
            remote.version = max(remote.version, word.version)
        if word.last:
            remote.waiting.discard(sender)
            if not remote.waiting:
                remote.taken.set()

    def _said(self, sender: str, remote: Remote, word: said.Said) -> None:
        clock, now_ns = self._clocks[sender], time.monotonic_ns()
        doubt_us = (clock.error_ns(now_ns) or 0) // 1000
        for node, packed in word.messages:
            message = said.unpacked(packed)
            if message.HasField("vote"):
                message.vote.clock_error_us += doubt_us
            elif message.HasField("rollout_activated"):
                told = message.rollout_activated
                told.clock_error_us += doubt_us
                told.at_plane_ns = (clock.to_monotonic(told.at_plane_ns, now_ns) or 0) if told.at_plane_ns else 0
            self._on_message(remote, node, message)
        for node, why in word.gone:
            self._on_gone(remote, node, why)

    def _sample(self, sender: str, word: said.Timed | said.Taken, now_ns: int) -> None:
        self._clocks.setdefault(sender, PlaneClock()).sample(
            sent_ns=word.sent_ns,
            plane_received_ns=word.received_ns,
            plane_sent_ns=word.answered_ns,
            received_ns=now_ns,
        )

    async def _compare_clocks(self, plane: str) -> None:
        for _ in range(EXCHANGES):
            error_ns = self._clocks[plane].error_ns(time.monotonic_ns())
            if error_ns is not None and error_ns <= ERROR_NS_GOOD:
                return
            self._tell(plane, said.Time(time.monotonic_ns()))
            await asyncio.sleep(EXCHANGE_EVERY_S)


def forget_frame(tx: Transaction, number: int) -> None:
    """Removes what a rollout left in the store for the nodes of others."""
    tx.identities.delete(FRAMES, str(number))
