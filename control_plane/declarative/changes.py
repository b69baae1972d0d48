"""What a file did, or would do, to the store: counts, and each change with the fields it touches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from control_plane.entities.registry import STORED
from control_plane.entities.schema import REDACTED
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Change, Operation

_KEPT_BY_THE_STORE = frozenset({"created_at", "id", "updated_at"})


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of an entity, before and after. Records are listed by their leaves: `healthchecks.active.timeout`."""

    field: str
    before: JsonValue
    after: JsonValue


@dataclass(frozen=True, slots=True)
class EntityChange:
    """One entity's change. `parent` is what it belongs to, as (entity type, name), for entities that name one."""

    operation: Operation
    entity_type: str  # singular: route, target ...
    collection: str
    id: str
    name: str  # a target's address; empty = it has none
    parent: tuple[str, str] | None
    before: EntityBody | None
    after: EntityBody | None

    def fields(self) -> list[FieldChange]:
        """What an update changes, by field; empty for creates and deletes."""
        if self.before is None or self.after is None:
            return []
        schema = STORED.get(self.collection)
        secrets = schema.secrets if schema is not None else {}
        return [
            FieldChange(change.field, REDACTED, REDACTED) if change.field in secrets else change
            for change in _differences("", self.before, self.after)
        ]

    def to_json(self) -> EntityBody:
        """The change as the Admin API reports it. A created entity's id is left out of a diff: it is not given yet."""
        return {
            "operation": self.operation.value,
            "entity_type": self.entity_type,
            "id": self.id,
            "name": self.name,
            "parent": {self.parent[0]: self.parent[1]} if self.parent else None,
            "fields": [
                {"field": change.field, "before": change.before, "after": change.after} for change in self.fields()
            ],
        }


@dataclass(slots=True)
class Summary:
    """The outcome of a file: its changes in the order they were written, and how many entities were right already."""

    changes: list[EntityChange] = field(default_factory=list)
    unchanged: int = 0

    def count(self, operation: Operation) -> int:
        """How many entities were created, updated or deleted."""
        return sum(1 for change in self.changes if change.operation is operation)

    def to_json(self, *, changes_max: int = 1_000) -> EntityBody:
        """The summary as the Admin API reports it; `omitted` counts the changes beyond `changes_max`."""
        return {
            "created": self.count(Operation.CREATE),
            "updated": self.count(Operation.UPDATE),
            "deleted": self.count(Operation.DELETE),
            "unchanged": self.unchanged,
            "changes": [change.to_json() for change in self.changes[:changes_max]],
            "omitted": max(0, len(self.changes) - changes_max),
        }


def entity_change(change: Change) -> EntityChange:
    """A change of the store's history in the words of this module. The parent is not looked up."""
    schema = STORED.get(change.collection)
    body = change.after or change.before or {}
    key_name = schema.endpoint_key if schema is not None and schema.endpoint_key not in schema.secrets else None
    key = body.get(key_name) if key_name is not None else None
    return EntityChange(
        operation=change.operation,
        entity_type=schema.singular if schema is not None else change.collection,
        collection=change.collection,
        id=change.id,
        name=key if isinstance(key, str) else "",
        parent=None,
        before=change.before,
        after=change.after,
    )


def same_entity(before: EntityBody, after: EntityBody) -> bool:
    """Whether a write would change nothing but the time of the last change."""
    if before.keys() != after.keys():
        return False
    return all(value == after[name] for name, value in before.items() if name != "updated_at")


def _differences(path: str, before: EntityBody, after: EntityBody) -> Iterator[FieldChange]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new or (not path and name in _KEPT_BY_THE_STORE):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(f"{path}{name}.", old, new)
        else:
            yield FieldChange(f"{path}{name}", old, new)
