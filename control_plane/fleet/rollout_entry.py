"""One rollout of this process, how rollouts are counted, and why one is not begun."""

from __future__ import annotations

import asyncio
import time

from control_plane.entities.types import EntityBody
from control_plane.fleet.others import Remote
from control_plane.fleet.rollout import Rollout, State
from control_plane.fleet.rollout_plan import Owner
from control_plane.fleet.rollout_view import Facts, to_json
from control_plane.fleet.timing import Times
from control_plane.snapshot.builder import Snapshot
from control_plane.store.contract import RolloutRecord, StoreError


class Figures:
    """What is counted since the start, for `/metrics`."""

    def __init__(self) -> None:
        self.ended: dict[str, int] = {state.value: 0 for state in State if state.final}
        self.took = Times()
        """From the turn of a rollout to its end."""
        self.late = Times()
        """Of each node that activated at the instant, how late its last worker was."""
        self.left_behind = 0
        """Nodes that the newest rollout ended without: they had not said in time that they run its version."""


class Unchanged(Exception):
    """The unit of work changes nothing, so there is nothing to roll out; `result` is what it returned."""

    def __init__(self, result: object, head: int) -> None:
        super().__init__("nothing changes")
        self.result = result
        self.head = head


class Elsewhere(StoreError):
    """Another control plane coordinates rollouts now; the text names it."""


class TooMany(StoreError):
    """Too many rollouts wait already."""


class TooLarge(Exception):
    """The change does not fit a rollout."""


class Entry:
    """One rollout of this process."""

    def __init__(self, facts: Facts, machine: Rollout, result: object, owner: Owner | None = None) -> None:
        self.facts = facts
        self.machine = machine
        self.result = result
        self.owner = owner
        self.ended = asyncio.Event()
        self.base: Snapshot | None = None
        self.proposed: Snapshot | None = None
        self.began = time.monotonic()
        self.activated_s = 0.0  # monotonic: the instant
        self.lead_s = 0.0  # that was left of the lead when nodes were told
        self.wake = asyncio.Event()
        self.remote = Remote(0, 0)  # who takes part at other control planes

    def view(self) -> EntityBody:
        """All of it, for the Admin API and the store."""
        return to_json(self.facts, self.machine)

    def record(self) -> RolloutRecord:
        return RolloutRecord(self.facts.number, self.machine.state.value, self.view())
