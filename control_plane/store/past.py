"""What the configuration was at a version: the difference between any two versions, and the way back to one.

Nothing is stored for this but the changes of each version. The difference between two versions is the first `before`
and the last `after` of each entity in the versions between them, so its cost is that of what changed there. Going back
to a version writes the inverse of all that happened since, as a new version; entities become what they were to the
last field, secrets included, so a rollback of a rollback is exact too.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from control_plane.entities.fields import String
from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody
from control_plane.store.contract import Change, Operation, Transaction


class UnknownVersion(Exception):
    """There is no such version, or its state is no longer known. `dropped` tells the two apart."""

    def __init__(self, message: str, *, dropped: bool) -> None:
        super().__init__(message)
        self.dropped = dropped


def check_known(tx: Transaction, version: int) -> None:
    """Raises UnknownVersion unless the state at `version` can be told."""
    head = tx.head()
    if version > head:
        raise UnknownVersion(f"there is no version {version} yet; the newest is {head}", dropped=False)
    oldest = tx.records.oldest()
    if version < oldest - 1:
        raise UnknownVersion(
            f"version {version} is no longer kept; the oldest that is, is {oldest} "
            "(settings versions_kept and versions_kept_days)",
            dropped=True,
        )


def difference(tx: Transaction, start: int, end: int) -> list[Change]:
    """What leads from the state at version `start` to that at `end`, whichever is the later. Raises UnknownVersion."""
    for version in (start, end):
        check_known(tx, version)
    low, high = min(start, end), max(start, end)
    changes = _net(tx.records.up_to(high, above=low))
    return changes if start <= end else [_inverse(change) for change in changes]


def restore(tx: Transaction, version: int) -> list[Change]:
    """Makes the configuration what it was at `version`; returns what that changed. Raises UnknownVersion.

    The state at a version was consistent, so every reference and unique key will hold at the end. On the way there
    an entity may need a name that another one still has: that one gets a name nobody wants until its own turn comes.
    """
    tx.records.hold_versions()
    check_known(tx, version)
    changes = [_inverse(change) for change in _net(tx.records.since(version))]
    order = {collection: position for position, collection in enumerate(STORED)}
    written = [change for change in changes if change.after is not None and change.collection in order]
    for change in written:
        _check_secrets(change, version)
    written.sort(key=lambda change: order[change.collection])
    for change in changes:
        if change.before is not None and change.collection in order:
            _park(tx, change)
    for change in written:
        assert change.after is not None, "deletions were left out"
        if change.before is None:
            tx.insert(change.collection, change.after)
        else:
            tx.replace(change.collection, change.after)
    gone = [change for change in changes if change.after is None and change.collection in order]
    for change in sorted(gone, key=lambda change: order[change.collection], reverse=True):
        tx.delete(change.collection, change.id)
    return list(tx.records.changes())


def _check_secrets(change: Change, version: int) -> None:
    """Raises UnknownVersion for an entity whose secret was forgotten (`forgetting.py`)."""
    schema = STORED[change.collection]
    for name in schema.secrets:
        definition = schema.fields[name]
        always_there = definition.required or (isinstance(definition, String) and definition.random)
        if always_there and (change.after or {}).get(name) is None:
            raise UnknownVersion(
                f"version {version} has a {schema.singular} (id {change.id}) whose {name} was sealed with a key that "
                "is lost; go back to a later version, or write what you need of it anew",
                dropped=True,
            )


def _park(tx: Transaction, change: Change) -> None:
    """Frees the unique keys that the entity is about to lose."""
    before = change.before
    assert before is not None, "only what is there holds a key"
    parked = dict(before)
    schema = STORED[change.collection]
    for parts in schema.unique_keys:
        own = next((part for part in parts if part not in schema.foreign_fields), None)
        if own is None or before.get(own) is None:
            continue
        if change.after is None or any(change.after.get(part) != before.get(part) for part in parts):
            parked[own] = f"parked-{uuid.uuid4().hex}"
    if parked != before:
        tx.replace(change.collection, parked)


def _net(changes: Iterable[Change]) -> list[Change]:
    """Several changes of one entity as one, in the order of their firsts; what came to nothing is left out."""
    ends: dict[tuple[str, str], tuple[EntityBody | None, EntityBody | None]] = {}
    for change in changes:
        place = change.collection, change.id
        before = ends[place][0] if place in ends else change.before
        ends[place] = before, change.after
    return [_change(place, before, after) for place, (before, after) in ends.items() if before != after]


def _inverse(change: Change) -> Change:
    return _change((change.collection, change.id), change.after, change.before)


def _change(place: tuple[str, str], before: EntityBody | None, after: EntityBody | None) -> Change:
    operation = Operation.CREATE if before is None else Operation.DELETE if after is None else Operation.UPDATE
    return Change(operation, *place, before, after)
