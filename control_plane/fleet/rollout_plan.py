"""What a rollout is going to do: a unit of work tried and taken back, and later done again exactly as it was tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from control_plane.entities.schema import foreign_id
from control_plane.entities.types import EntityBody
from control_plane.snapshot.consistency import before_commit
from control_plane.store import editor
from control_plane.store.contract import Change, Origin, Store, Transaction

T = TypeVar("T")

WARMED_MAX = 16
"""Upstreams whose targets are checked and connected to beforehand."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """`gain` and `lose` are ids of the upstreams that get traffic and that lose it."""

    result: T
    head: int
    changes: tuple[Change, ...]
    gain: tuple[str, ...]
    lose: tuple[str, ...]


class _Planned(Exception):
    """Carries a plan out of the transaction that is rolled back by it."""

    def __init__(self, plan: Plan[object]) -> None:
        super().__init__("planned")
        self.plan = plan


class Overtaken(Exception):
    """An entity is no longer as it was when the rollout was planned; the text names it."""


@dataclass(frozen=True, slots=True)
class Owner:
    """What a rollout is one step of: it holds the entities from one step to the next, and keeps a state of its own.

    `check` runs when the step is planned, when it is registered and once more in the transaction of its decision; it
    raises Overtaken when the step is not wanted any more. `decided` runs in that transaction with the rollout's number
    and the version, so that what the owner remembers and what the nodes are told are one commit.
    """

    number: int
    check: Callable[[Transaction], None]
    decided: Callable[[Transaction, int, int], None]

    def admit(self, tx: Transaction) -> None:
        """Lets the unit of work do the step, if it is still wanted."""
        tx.act_for(self.number)
        self.check(tx)


async def plan(store: Store, work: Callable[[Transaction], T]) -> Plan[T]:
    """Tries `work` with all checks of a commit, and takes it back. Raises what `work` and the checks raise."""
    results: list[T] = []

    def dry(tx: Transaction) -> None:
        results.clear()
        results.append(work(tx))
        changes = tuple(tx.records.changes())
        if changes:
            before_commit(tx, changes)
        gain, lose = _upstreams(tx, changes)
        raise _Planned(Plan(None, tx.head(), changes, gain, lose))

    try:
        await store.write(dry, Origin())
    except _Planned as planned:
        found = planned.plan
        return Plan(results[0], found.head, found.changes, found.gain, found.lose)
    raise AssertionError("a dry run never commits")


def replay(tx: Transaction, changes: Sequence[Change]) -> None:
    """Does what was planned. Raises Overtaken when an entity is not as it was."""
    for change in changes:
        if tx.get(change.collection, change.id) != change.before:
            body = change.before or change.after or {}
            raise Overtaken(f"{change.collection} '{body.get('name') or change.id}' was changed meanwhile")
    for change in changes:
        editor.carry_out(tx, change)


def _upstreams(tx: Transaction, changes: Sequence[Change]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """By the state after the changes: an upstream that is removed loses its traffic under the id it had."""
    gain: dict[str, None] = {}
    lose: dict[str, None] = {}
    removed = {
        str(change.before.get("name")): change.id
        for change in changes
        if change.collection == "upstreams" and change.before is not None
    }
    for change in changes:
        if change.collection == "services":
            before, after = _host(change.before), _host(change.after)
            if before != after:
                if after and (found := tx.find("upstreams", {"name": after})) is not None:
                    gain[str(found["id"])] = None
                if before:
                    found = tx.find("upstreams", {"name": before})
                    known = str(found["id"]) if found is not None else removed.get(before)
                    if known is not None:
                        lose[known] = None
        elif change.collection == "service_settings":
            new, old = _split_to(change.after), _split_to(change.before)
            if new is not None and (change.before or {}).get("split") != (change.after or {}).get("split"):
                gain[new] = None
            if old is not None and old != new:
                lose[old] = None
        elif change.collection == "targets" and change.after is not None:
            upstream = foreign_id(change.after.get("upstream"))
            if upstream is not None:
                gain[upstream] = None
    for upstream in gain:
        lose.pop(upstream, None)
    return tuple(gain)[:WARMED_MAX], tuple(lose)[:WARMED_MAX]


def _split_to(settings: EntityBody | None) -> str | None:
    """The id of the upstream that gets a share of the service's requests beside its host."""
    split = settings.get("split") if settings is not None else None
    return str(split["to"]) if isinstance(split, dict) and split.get("share") else None


def _host(service: EntityBody | None) -> str:
    if service is None or service.get("enabled") is False:
        return ""
    return str(service.get("host") or "")
