"""This control plane's nodes in a rollout that another control plane coordinates.

    Take -> pinned --Prepare--> asked --Activate--> armed --the instant--> let go
                 `------------- End, or the record says that it is over -------^

Here nothing is decided and nothing is judged: nodes are kept at what they run, the frames of the coordinator are passed
on to them, and what they say is passed back. Words may be lost, and a coordinator may die; so the record in the store
is looked at once a second as well, and what it says was aborted or decided is followed without further words.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from control_plane.fleet import relay_words as said
from control_plane.fleet import rollout_messages as words
from control_plane.fleet.health import HealthBook
from control_plane.fleet.messages import RolloutWord, ref
from control_plane.fleet.nodes import Node, Nodes
from control_plane.fleet.publisher import Publisher
from control_plane.fleet.rollout import State, is_tolerated
from control_plane.fleet.server import LinkServer
from control_plane.store.contract import RolloutRecord, Store, StoreError
from pointsman.snapshots import NOTHING, SnapshotRef
from pointsman.wire.v1 import fleet_pb2

FRAMES = "rollout_frame"
"""Where in the store the coordinator leaves its frames: sealed, since they may hold private keys."""
WATCH_EVERY_S = 1.0
GATHER_S = 0.002
"""What nodes say within this time goes back as one word."""
ENDED_MAX = 64
"""Rollouts that are remembered to have ended, so that a late word does not begin them again."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Taken:
    """One rollout with nodes of ours. `members` are their host names by id."""

    number: int
    fence: int
    coordinator: str
    members: dict[str, str]
    round: int = 0
    frame: bytes = b""
    base: SnapshotRef = NOTHING
    proposed: SnapshotRef = NOTHING
    tolerate: frozenset[str] = frozenset()
    asked: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)
    armed: set[str] | None = None
    """Who was told the instant; None = nobody yet."""
    instant_s: float = 0.0
    passed: bool = False
    decided_unheard: bool = False
    """The record said that it is decided before we were told of an instant."""
    messages: list[tuple[str, str]] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)


class Relay:
    """All rollouts of others that nodes of ours take part in. `gate` is what plain writes here wait at."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        server: LinkServer,
        nodes: Nodes,
        health: HealthBook,
        *,
        tell: Callable[[str, said.Word], None],
        own: Callable[[Coroutine[None, None, None], str], None],
        gate: asyncio.Event,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._server = server
        self._nodes = nodes
        self._health = health
        self._tell = tell
        self._own = own
        self._gate = gate
        self._taken: dict[int, _Taken] = {}
        self._ended: deque[int] = deque(maxlen=ENDED_MAX)
        self._fence = 0

    async def watch(self) -> None:
        """Looks at what became of the rollouts taken part in, for ever."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            for taken in list(self._taken.values()):
                try:
                    record = await self._store.read(lambda tx, number=taken.number: tx.rollout(number))  # type: ignore[misc]  # lambda defaults
                except StoreError as error:
                    log.warning("rollout %d can't be looked at now: %s", taken.number, error)
                    continue
                self._compare(taken, record)

    def stop(self) -> None:
        """This control plane stops: the coordinator must not wait for its nodes."""
        for taken in self._taken.values():
            taken.gone = [(node, "its control plane stops") for node in taken.members]
            self._flush(taken)

    def heard(self, sender: str, word: said.Word) -> bool:
        """A word of another control plane; whether it was one of a coordinator's."""
        received_ns = time.monotonic_ns()
        match word:
            case said.Time(sent_ns=sent_ns):
                self._tell(sender, said.Timed(sent_ns, received_ns, time.monotonic_ns()))
            case said.Count():
                self._count(sender, word)
            case said.Take():
                if word.fence >= self._fence and word.rollout not in self._ended:
                    self._fence = word.fence
                    self._own(self._take(sender, word, received_ns), f"nodes for rollout {word.rollout}")
            case said.Prepare() | said.Activate() | said.End():
                taken = self._taken.get(word.rollout)
                if isinstance(word, said.End):
                    self._ended.append(word.rollout)
                if taken is None or taken.fence != word.fence:
                    return True
                if isinstance(word, said.Prepare):
                    self._own(self._prepare(taken, word), f"frame of rollout {word.rollout}")
                elif isinstance(word, said.Activate):
                    self._activate(taken, word)
                else:
                    self._end(taken, word.aborted)
            case _:
                return False
        return True

    # --- what the coordinator says ----------------------------------------------------------------------------------

    async def _take(self, sender: str, word: said.Take, received_ns: int) -> None:
        try:
            record = await self._store.read(lambda tx: tx.rollout(word.rollout))
        except StoreError as error:
            log.warning("rollout %d of another control plane goes on without our nodes: %s", word.rollout, error)
            return
        if record is None or State(record.state).final or record.body.get("fence") != word.fence:
            return  # the word is an old one: we were stopped or cut off meanwhile
        while self._server.offers.trying:  # noqa: ASYNC110 - a plain change is on its first node, for a moment
            await asyncio.sleep(0.002)
        if word.rollout in self._ended or word.rollout in self._taken:
            return
        for other in list(self._taken.values()):
            if other.armed is not None:
                self._instant_passed(other)  # there would be no next rollout before it
        members = {node.id: node.hostname for node in self._nodes.live()}
        taken = _Taken(word.rollout, word.fence, sender, members)
        released = self._server.offers.released
        if members:
            self._taken[word.rollout] = taken
            self._server.offers.withhold()
            self._server.offers.pin(members, released, owner=word.rollout)
        portions = list(said.parts(members.items()))
        for index, portion in enumerate(portions):
            self._tell(
                sender,
                said.Taken(
                    word.rollout,
                    word.fence,
                    dict(portion),
                    released.ref.version if released is not None else 0,
                    last=index == len(portions) - 1,
                    sent_ns=word.sent_ns,
                    received_ns=received_ns,
                    answered_ns=time.monotonic_ns(),
                ),
            )

    async def _prepare(self, taken: _Taken, word: said.Prepare) -> None:
        if word.round > 1:
            self._gate.clear()  # the head moved under the coordinator; it must not do so for ever
        try:
            kept = await self._store.read(lambda tx: tx.identities.get(FRAMES, str(word.rollout)))
            if kept is None or kept["round"] != word.round:
                return
            frame = base64.b64decode(str(kept["frame"]))
            prepare = fleet_pb2.PlaneMessage.FromString(frame).rollout_prepare
            base = ref(prepare.delta.base)
            await self._publisher.reach(base.version)
        except StoreError as error:
            log.warning("rollout %d goes on without our nodes: %s", word.rollout, error)
            return
        if word.rollout in self._ended:
            return
        taken.round, taken.frame, taken.tolerate = word.round, frame, frozenset(word.tolerate)
        taken.base, taken.proposed = base, ref(prepare.delta.snapshot)
        taken.asked.clear()
        taken.ready.clear()
        published = self._server.offers.find(base)
        if published is None and base != NOTHING:
            self._refuse(taken, f"its control plane has no version {base.version} to begin at")
            return
        self._server.offers.pin(taken.members, published, owner=taken.number)
        for node in self._nodes.live():
            self._ask(taken, node)

    def _activate(self, taken: _Taken, word: said.Activate) -> None:
        taken.armed = set(taken.ready)
        taken.instant_s = word.at_ns / 1e9
        self._server.send(taken.armed, words.activate(taken.number, taken.proposed, word.at_ns))
        left_out = taken.members.keys() - taken.armed
        self._server.send(left_out, words.abort(taken.number, "not ready in time"))
        self._gate.set()
        self._publisher.hurry(taken.proposed.version)
        remaining_s = max(0.0, taken.instant_s - time.monotonic())
        asyncio.get_running_loop().call_later(remaining_s + 0.002, self._instant_passed, taken)

    def _instant_passed(self, taken: _Taken) -> None:
        """Who was not ready, or not there, takes the version now."""
        if taken.passed:
            return
        taken.passed = True
        assert taken.armed is not None
        self._server.offers.let_go(taken.proposed.version)
        self._server.offers.unpin(taken.members.keys() - taken.armed, owner=taken.number)

    def _end(self, taken: _Taken, aborted: str) -> None:
        self._taken.pop(taken.number, None)
        self._ended.append(taken.number)
        if aborted:
            self._server.send(taken.members, words.abort(taken.number, aborted))
        else:
            self._server.min_ready_version = max(self._server.min_ready_version, taken.proposed.version)
        if taken.armed is not None:
            self._instant_passed(taken)
        elif not self._taken:
            self._server.offers.let_go(None)
        self._gate.set()
        self._server.offers.unpin(taken.members, owner=taken.number)

    def _compare(self, taken: _Taken, record: RolloutRecord | None) -> None:
        """What the store says of a rollout whose coordinator may have died, or whose words may be lost."""
        if record is None or record.state == State.ABORTED.value:
            reason = record.body.get("reason") if record is not None else ""
            self._end(taken, str(reason or "it is over"))
        elif State(record.state).final:
            self._end(taken, "")
        elif record.state == State.DECIDED.value and taken.armed is None:
            if taken.decided_unheard:
                log.warning("rollout %d is decided, and when was not told; our nodes follow", taken.number)
                self._end(taken, "")
            taken.decided_unheard = True

    def _count(self, sender: str, word: said.Count) -> None:
        now = time.monotonic()
        for upstream in word.upstreams:
            counts: dict[str, tuple[float, int]] = {}
            for node in self._nodes.live():
                counted = self._health.open_requests(node.id, upstream)
                if counted is not None:
                    counts[node.id] = (now - counted[0], counted[1])
                if len(counts) == said.COUNTS_MAX:
                    self._tell(sender, said.Counted(upstream, counts))
                    counts = {}
            if counts:
                self._tell(sender, said.Counted(upstream, counts))

    # --- what nodes say ---------------------------------------------------------------------------------------------

    def node_said(self, node: str, word: RolloutWord) -> bool:
        """A node's word about a rollout; whether it is one that another control plane coordinates."""
        taken = self._taken.get(word.rollout)
        if taken is None:
            return False
        if isinstance(word, fleet_pb2.RolloutVote):
            if word.round == taken.round and _is_ready(word, taken.tolerate):
                taken.ready.add(node)
            self._pass_on(taken, node, fleet_pb2.NodeMessage(vote=word))
        else:
            if not word.HasField("fault"):
                self._server.offers.unpin((node,), owner=taken.number)
            elif taken.armed is not None:
                taken.armed.discard(node)
                if taken.passed:
                    self._server.offers.unpin((node,), owner=taken.number)
            self._pass_on(taken, node, fleet_pb2.NodeMessage(rollout_activated=word))
        return True

    def node_changed(self, node: Node) -> None:
        for taken in list(self._taken.values()):
            if node.id not in taken.members:
                continue
            if node.connected and not node.leaving:
                self._ask(taken, node)
            elif taken.armed is None:
                del taken.members[node.id]
                taken.ready.discard(node.id)
                self._server.offers.unpin((node.id,), owner=taken.number)
                taken.gone.append((node.id, node.reason))
                self._flush_soon(taken)

    def _ask(self, taken: _Taken, node: Node) -> None:
        if taken.armed is None and taken.frame and node.id not in taken.asked and node.id in taken.members:
            if node.running == taken.base:
                taken.asked.add(node.id)
                self._server.send((node.id,), taken.frame)
            elif node.running.reached(taken.base.version + 1, epoch=taken.base.epoch or node.running.epoch):
                taken.asked.add(node.id)
                self._refuse_for(taken, node.id, f"it runs version {node.running.version} already")

    def _refuse(self, taken: _Taken, why: str) -> None:
        for node in taken.members:
            self._refuse_for(taken, node, why)

    def _refuse_for(self, taken: _Taken, node: str, why: str) -> None:
        vote = fleet_pb2.RolloutVote(rollout=taken.number, round=taken.round, kind=fleet_pb2.VOTE_KIND_REFUSE)
        vote.faults.add(code="OTHER_BASE", message=why)
        self._pass_on(taken, node, fleet_pb2.NodeMessage(vote=vote))

    def _pass_on(self, taken: _Taken, node: str, message: fleet_pb2.NodeMessage) -> None:
        taken.messages.append((node, said.packed(message)))
        self._flush_soon(taken)

    def _flush_soon(self, taken: _Taken) -> None:
        if len(taken.messages) + len(taken.gone) == 1:
            asyncio.get_running_loop().call_later(GATHER_S, self._flush, taken)

    def _flush(self, taken: _Taken) -> None:
        (messages, taken.messages), (gone, taken.gone) = (taken.messages, []), (taken.gone, [])
        for portion in said.parts(messages) if messages else ():
            self._tell(taken.coordinator, said.Said(taken.number, taken.fence, portion, ()))
        for portion in said.parts(gone) if gone else ():
            self._tell(taken.coordinator, said.Said(taken.number, taken.fence, (), portion))


def _is_ready(vote: fleet_pb2.RolloutVote, tolerate: frozenset[str]) -> bool:
    """As the coordinator will see it (`Rollout.voted`)."""
    if vote.kind in (fleet_pb2.VOTE_KIND_READY, fleet_pb2.VOTE_KIND_READY_WARN):
        return True
    return is_tolerated({fault.code for fault in vote.faults}, staged=vote.workers > 0, tolerate=tolerate)
