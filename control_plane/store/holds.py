"""What an open rollout or canary is about to change is nobody else's to change: checked last before a commit."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.entities.errors import HeldByRollout
from control_plane.store.contract import Change, Transaction


def check_not_held(tx: Transaction, changes: Sequence[Change]) -> None:
    """Refuses changes of entities that an open rollout holds. Raises HeldByRollout, which names both."""
    held = tx.holders([(change.collection, change.id) for change in changes])
    for change in changes:
        number = held.get((change.collection, change.id))
        if number is not None:
            body = change.after or change.before or {}
            name = body.get("name") or body.get("target") or change.id
            record = tx.rollout(number)
            canary = record is not None and record.is_canary
            raise HeldByRollout(number, change.collection, str(name), canary=canary)
