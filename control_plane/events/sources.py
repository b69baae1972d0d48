"""Makes events of what the store, the nodes and the rollouts of this control plane tell their listeners.

Every control plane over one database tells of every version; of nodes and rollouts it tells of its own, so that with
several of them each event comes from exactly one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.events.ring import Kind, Ring
from control_plane.fleet.nodes import Node, Nodes
from control_plane.fleet.rollout import Standing
from control_plane.fleet.rollouts import Entry, Rollouts
from control_plane.store.contract import Store, StoreError, Version
from control_plane.switching import canary_record
from control_plane.switching.acts import act_of, view_of
from control_plane.switching.canaries import Canaries
from control_plane.switching.canary import Canary
from control_plane.switching.canary_record import Asked
from control_plane.switching.schedule import Schedule

T = TypeVar("T")

log = logging.getLogger(__name__)

VERSIONS_MAX = 100
"""Versions told one by one of a burst that must be read from the database; of more than that, the newest."""
RETRY_S = 1.0
FAULTS_MAX = 5
ROLLOUTS_MAX = 256
"""Rollouts of which it is remembered what was told."""

_OF_A_SWITCH = (
    *("switch", "verb", "services", "to", "undoes", "state", "ended_because"),
    *("version", "author", "reason", "took_s"),
)
"""What every event of a switch has from its view."""


class Sources:
    """Listens from `start` to `stop`."""

    def __init__(
        self,
        ring: Ring,
        store: Store,
        nodes: Nodes,
        rollouts: Rollouts,
        *,
        canaries: Canaries,
        schedule: Schedule,
    ) -> None:
        self._ring = ring
        self._store = store
        self._nodes = nodes
        self._rollouts = rollouts
        self._canaries = canaries
        self._schedule = schedule
        self._told_of_nodes: dict[str, tuple[object, ...]] = {}
        self._told_of_rollouts: dict[int, tuple[str, bool]] = {}
        self._told_of_canaries: dict[int, tuple[object, ...]] = {}
        self._moved = asyncio.Event()
        self._stops: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins with what happens from now on. Raises StoreError."""
        head = await self._store.head()
        self._stops = [
            self._store.subscribe(lambda _version: self._moved.set()),
            self._nodes.listen(self._node),
            self._rollouts.listen(self._rollout),
            self._canaries.listen(self._canary),
            self._schedule.listen(self._scheduled),
        ]
        self._task = asyncio.create_task(self._follow_versions(head), name="events of versions")

    async def stop(self) -> None:
        """Ends, and ends the ring with it."""
        for stop in self._stops:
            stop()
        self._stops = []
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._ring.close()

    async def _follow_versions(self, told: int) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                newest = await self._newest(told)
            except StoreError as error:
                log.warning("events of new versions are late, the store can't be read: %s", error)
                await asyncio.sleep(RETRY_S)
                self._moved.set()
                continue
            if newest and newest[0].number > told + 1 and len(newest) == VERSIONS_MAX:
                self._ring.add(Kind.GAP, {"missed": newest[0].number - told - 1})
            for version in newest:
                if version.number > told:
                    self._ring.add(Kind.VERSION, _version(version))
                    told = version.number

    async def _newest(self, told: int) -> Sequence[Version]:
        """The versions above `told`, ascending; of many that have to be read, the newest."""
        at_hand = self._store.at_hand(told)
        if at_hand is not None:
            return at_hand
        missing = await self._store.head() - told
        return (await self._store.versions(size=max(1, min(missing, VERSIONS_MAX))))[::-1]

    def _node(self, node: Node) -> None:
        rejection = node.rejection
        facts = (node.connected, node.leaving, node.reason, None if rejection is None else rejection.ref.version)
        if self._told_of_nodes.get(node.id) == facts:
            return
        first = node.id not in self._told_of_nodes
        self._told_of_nodes[node.id] = facts
        if len(self._told_of_nodes) > len(self._nodes):
            self._told_of_nodes = {
                each: told for each, told in self._told_of_nodes.items() if self._nodes.get(each) is not None
            }
        if first and not node.connected:
            return  # told by an earlier process
        self._ring.add(Kind.NODE, _node(node))

    def _rollout(self, entry: Entry) -> None:
        facts, state = entry.facts, entry.machine.state
        if entry.machine.rehearsal:
            return  # nothing happens in one
        if state.final and facts.ended_at is None:
            return  # it is about to end, and will be told with all that is known then
        told = (state.value, _at_rest(entry))
        if self._told_of_rollouts.get(facts.number) == told:
            return
        _remember(self._told_of_rollouts, facts.number, told)
        act = act_of({"act": facts.act})
        if act is None:
            self._ring.add(Kind.ROLLOUT, {"rollout": facts.number, **_steps(entry)})
            return
        services: list[JsonValue] = [move.to_json() for move in act.moves]
        switch: EntityBody = {"switch": facts.number, "verb": act.verb.value, "services": services, "to": act.to}
        self._ring.add(Kind.SWITCH, {**switch, "undoes": act.undoes, **_steps(entry)})

    def _canary(self, asked: Asked, canary: Canary) -> None:
        told = (canary.phase, canary.at, canary.held, canary.breach is not None)
        if self._told_of_canaries.get(asked.number) == told:
            return
        _remember(self._told_of_canaries, asked.number, told)
        view = canary_record.view_of(asked, canary, undone_by=None)
        course = view["canary"]
        assert isinstance(course, dict)
        breach = course["breach"]
        self._ring.add(
            Kind.SWITCH,
            {
                **{name: view[name] for name in _OF_A_SWITCH},
                "step": course["step"],
                "share_percent": course["share_percent"],
                "held_by": course["held_by"],
                "broken_gate": breach["what"] if isinstance(breach, dict) else None,
            },
        )

    def _scheduled(self, record: EntityBody) -> None:
        act = act_of(record)
        assert act is not None
        view = view_of(record, act, undone_by=None)
        self._ring.add(Kind.SWITCH, {**{name: view[name] for name in _OF_A_SWITCH}, "begins_at": record["at"]})


def _remember(told: dict[int, T], number: int, what: T) -> None:
    told[number] = what
    if len(told) > ROLLOUTS_MAX:
        del told[next(iter(told))]


def _version(version: Version) -> EntityBody:
    return {
        "version": version.number,
        "committed_at": version.committed_at,
        "author": version.origin.author,
        "source": version.origin.source,
        "reason": version.origin.reason,
        "change_count": version.change_count,
    }


def _node(node: Node) -> EntityBody:
    rejection = node.rejection
    if rejection is not None and node.connected:
        state = "rejected"
    elif node.leaving:
        state = "left"
    else:
        state = "connected" if node.connected else "disconnected"
    faults: list[JsonValue] = [] if rejection is None else [fault.message for fault in rejection.faults[:FAULTS_MAX]]
    return {
        "node_id": node.id,
        "hostname": node.hostname,
        "state": state,
        "version": node.running.version,
        "rejected_version": None if rejection is None else rejection.ref.version,
        "faults": faults,
        "reason": node.reason,
    }


def _at_rest(entry: Entry) -> bool:
    drained = entry.facts.drained
    return bool(drained) and all(side.safe for side in drained)


def _steps(entry: Entry) -> EntityBody:
    facts, machine = entry.facts, entry.machine
    standings = [member.standing for member in machine.members.values()]
    counts: EntityBody = {standing.value: standings.count(standing) for standing in Standing if standing in standings}
    return {
        "state": machine.state.value,
        "ended_because": machine.reason,
        "version": machine.version,
        "author": facts.origin.author,
        "reason": facts.origin.reason,
        "took_s": facts.took_s,
        "nodes": counts,
        "safe_to_tear_down": _at_rest(entry),
    }
