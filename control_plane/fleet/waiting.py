"""Waiting until the fleet runs a version: what `Prefer: wait=` and the switch stand on.

The nodes waited for are those that are live when the wait begins: hello accepted, last beat younger than three beats;
and those that are connected to other control planes over the same database (`standings.py` brings their word).
A node is done when it runs the version or a later one of the same history. A refusal of the version, or of a later
one, ends the whole wait at once, because the answer can't become yes. A node whose stream breaks is waited for until
the deadline: it comes back within moments as a rule, and answering earlier would report a failure that heals by
itself. A node that says that it leaves is not waited for any longer, yet it counts: it did not confirm, and whoever
asked must hear that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from control_plane.fleet.nodes import Node, Nodes
from pointsman.snapshots import Fault, Stage


class Outcome(StrEnum):
    """How far one node came while it was waited for."""

    APPLIED = "applied"
    REJECTED = "rejected"
    LAGGING = "lagging"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """One node at the end of a wait; `version` is what it runs, `reason` is empty when it applied."""

    id: str
    hostname: str
    outcome: Outcome
    version: int
    took_s: float | None = None
    reason: str = ""
    stage: Stage | None = None
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitReport:
    """The nodes that were live when the wait for `version` began, and what became of each; by hostname and id."""

    version: int
    waited_s: float
    nodes: tuple[NodeProgress, ...]

    @property
    def complete(self) -> bool:
        """Whether every one of them, and at least one, runs the version or a later one."""
        return bool(self.nodes) and self.count(Outcome.APPLIED) == len(self.nodes)

    @property
    def total(self) -> int:
        return len(self.nodes)

    def count(self, outcome: Outcome) -> int:
        """How many nodes ended so."""
        return sum(node.outcome is outcome for node in self.nodes)


class Wait:
    """One wait, without a clock: knows which nodes are still open and whether it is over."""

    def __init__(self, version: int, *, epoch: bytes, nodes: Iterable[Node]) -> None:
        self.version = version
        self._epoch = epoch
        self._nodes = {node.id: node for node in nodes}
        self._open = set(self._nodes)
        self._stopped = False
        for node in self._nodes.values():
            self.changed(node)

    @property
    def over(self) -> bool:
        return self._stopped or not self._open

    def changed(self, node: Node) -> None:
        """Something about a node changed."""
        if node.id not in self._open:
            return
        if node.running.reached(self.version, epoch=self._epoch) or node.leaving:
            self._open.discard(node.id)
        elif self._refused(node):
            self._stopped = True

    def progress(self, nodes: Nodes) -> tuple[NodeProgress, ...]:
        """What became of each node, as of now."""
        found = [self._progress(node, nodes) for node in self._nodes.values()]
        return tuple(sorted(found, key=lambda item: (item.hostname, item.id)))

    def _refused(self, node: Node) -> bool:
        return node.rejection is not None and node.rejection.ref.reached(self.version, epoch=self._epoch)

    def _progress(self, node: Node, nodes: Nodes) -> NodeProgress:
        silent_s = nodes.silent_s(node)
        version = node.running.version
        if node.running.reached(self.version, epoch=self._epoch):
            return NodeProgress(node.id, node.hostname, Outcome.APPLIED, version, took_s=node.applied_took_s)
        rejection = node.rejection
        if rejection is not None and self._refused(node):
            return NodeProgress(
                node.id,
                node.hostname,
                Outcome.REJECTED,
                version,
                reason=_refusal(rejection.faults, rejection.stage),
                stage=rejection.stage,
                faults=rejection.faults,
            )
        if node.elsewhere is not None:
            plane = node.elsewhere.hostname
            reason = f"connected to another control plane, on {plane}, which has not told that it runs the version"
            return NodeProgress(node.id, node.hostname, Outcome.LAGGING, version, reason=reason)
        if not node.connected or node.leaving:
            return NodeProgress(node.id, node.hostname, Outcome.DISCONNECTED, version, reason=node.reason)
        if node.offered is not None and node.offered.reached(self.version, epoch=self._epoch):
            reason = f"offered and not answered, last heard {silent_s:.1f} s ago"
        elif nodes.held is not None and nodes.held.ref.reached(self.version, epoch=self._epoch):
            reason = "held back: the first node that it was sent to refused it"
        else:
            reason = f"not offered yet, last heard {silent_s:.1f} s ago"
        return NodeProgress(node.id, node.hostname, Outcome.LAGGING, version, reason=reason)


async def wait_for(nodes: Nodes, version: int, *, epoch: bytes, timeout_s: float) -> WaitReport:
    """Returns when all nodes live now run `version` or later, one refused it, or `timeout_s` passed."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    wait = Wait(version, epoch=epoch, nodes=[*nodes.live(), *nodes.elsewhere()])
    if not wait.over:
        over = asyncio.Event()

        def changed(node: Node) -> None:
            wait.changed(node)
            if wait.over:
                over.set()

        stop_listening = nodes.listen(changed)
        try:
            async with asyncio.timeout(timeout_s):
                await over.wait()
        except TimeoutError:
            pass
        finally:
            stop_listening()
    return WaitReport(version, loop.time() - began, wait.progress(nodes))


def _refusal(faults: tuple[Fault, ...], stage: Stage) -> str:
    if not faults:
        return f"refused at {stage.value}"
    first = faults[0]
    where = " ".join(part for part in (first.collection, first.entity_name or first.entity_id, first.field) if part)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {first.message}{more}" if where else f"{first.message or first.code}{more}"
