"""A transaction over dictionaries that keeps the store's promises: unique keys, foreign keys, restrict and cascade.

Being strict is its point: a plan that writes in the wrong order fails here as it would in a real store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from control_plane.declarative.state import key_of, name_of
from control_plane.entities.errors import ForeignKeyViolation, PrimaryKeyViolation, ReferencedByOthers, UniqueViolation
from control_plane.entities.registry import STORED
from control_plane.entities.schema import OnDelete, foreign_id
from control_plane.entities.types import EntityBody
from control_plane.store.contract import Identities, Lease, Records, RolloutRecord, TagFilter


class _NoRollouts:
    """Files know nothing of rollouts; whoever asks here has lost the way."""

    def next_rollout(self) -> int:
        raise NotImplementedError

    def save_rollout(self, record: RolloutRecord) -> None:
        raise NotImplementedError

    def rollout(self, number: int) -> RolloutRecord | None:
        raise NotImplementedError

    def rollouts(self, *, size: int, before: int | None = None) -> Sequence[RolloutRecord]:
        raise NotImplementedError

    def rollouts_in(self, states: Sequence[str]) -> Sequence[RolloutRecord]:
        raise NotImplementedError

    def hold(self, rollout: int, keys: Sequence[tuple[str, str]]) -> None:
        raise NotImplementedError

    def release(self, rollout: int) -> None:
        raise NotImplementedError

    def holders(self, keys: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        raise NotImplementedError

    def act_for(self, rollout: int) -> None:
        raise NotImplementedError

    def lease(self, name: str) -> Lease | None:
        raise NotImplementedError

    def take_lease(self, name: str, holder: str, *, for_s: float, alone: bool = False) -> Lease | None:
        raise NotImplementedError

    def drop_lease(self, name: str, holder: str) -> None:
        raise NotImplementedError


class MemoryTransaction(_NoRollouts):
    """Implements `control_plane.store.contract.Transaction`."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, EntityBody]] = {collection: {} for collection in STORED}
        self.writes: list[tuple[str, str, str]] = []  # (verb, collection, id)
        self.loads = 0

    def named(self, collection: str, name: str) -> EntityBody:
        """The entity of this name; it must be there."""
        schema = STORED[collection]
        (found,) = [body for body in self.rows[collection].values() if name_of(schema, body) == name]
        return found

    def names(self, collection: str) -> list[str]:
        """The names of a collection, in order."""
        return sorted(name_of(STORED[collection], body) for body in self.rows[collection].values())

    @property
    def records(self) -> Records:
        raise AssertionError("files do not look into the history")

    @property
    def identities(self) -> Identities:
        raise AssertionError("files name no identities")

    def head(self) -> int:
        return len(self.writes)

    def get(self, collection: str, entity_id: str) -> EntityBody | None:
        return self.rows[collection].get(entity_id)

    def find(self, collection: str, values: Mapping[str, str]) -> EntityBody | None:
        fields = tuple(values)
        assert any(set(fields) == set(key) for key in STORED[collection].unique_keys), f"{fields} is no unique key"
        wanted = tuple(values.values())
        return next((body for body in self.rows[collection].values() if key_of(body, fields) == wanted), None)

    def page(
        self,
        collection: str,
        *,
        size: int,
        after: str = "",
        tags: TagFilter | None = None,
        parent: tuple[str, str] | None = None,
    ) -> Sequence[EntityBody]:
        raise AssertionError("files are not paged")

    def page_texts(
        self,
        collection: str,
        *,
        size: int,
        after: str = "",
        tags: TagFilter | None = None,
        parent: tuple[str, str] | None = None,
    ) -> Sequence[tuple[str, str]]:
        raise AssertionError("files are not paged")

    def each(self, collection: str) -> Iterator[EntityBody]:
        self.loads += 1
        return iter([self.rows[collection][entity_id] for entity_id in sorted(self.rows[collection])])

    def tagged(
        self, *, tag: str | None, size: int, after: tuple[str, str, str] | None
    ) -> Sequence[tuple[str, str, str]]:
        raise AssertionError("files do not ask for tags")

    def insert_all(self, collection: str, bodies: Sequence[EntityBody]) -> None:
        for body in bodies:
            self.insert(collection, body)

    def insert(self, collection: str, body: EntityBody) -> None:
        entity_id = str(body["id"])
        if entity_id in self.rows[collection]:
            raise PrimaryKeyViolation(entity_id)
        self._check(collection, body)
        self.rows[collection][entity_id] = body
        self.writes.append(("insert", collection, entity_id))

    def replace(self, collection: str, body: EntityBody) -> None:
        entity_id = str(body["id"])
        assert entity_id in self.rows[collection], "replaces what is not there"
        self._check(collection, body)
        self.rows[collection][entity_id] = body
        self.writes.append(("replace", collection, entity_id))

    def delete(self, collection: str, entity_id: str) -> bool:
        if entity_id not in self.rows[collection]:
            return False
        for schema in STORED.values():
            for field, foreign in schema.foreign_fields.items():
                if foreign.collection != collection:
                    continue
                children = [
                    child_id
                    for child_id, child in self.rows[schema.collection].items()
                    if foreign_id(child[field]) == entity_id
                ]
                if children and foreign.on_delete is OnDelete.RESTRICT:
                    raise ReferencedByOthers(collection, schema.collection)
                for child_id in children:
                    self.delete(schema.collection, child_id)
        del self.rows[collection][entity_id]
        self.writes.append(("delete", collection, entity_id))
        return True

    def _check(self, collection: str, body: EntityBody) -> None:
        schema = STORED[collection]
        always = {name for name, field in schema.fields.items() if not field.only_when_set}
        assert always <= body.keys() <= schema.fields.keys(), "an incomplete entity"
        for fields in schema.unique_keys:
            key = key_of(body, fields)
            if key is None:
                continue
            for other_id, other in self.rows[collection].items():
                if other_id != body["id"] and key_of(other, fields) == key:
                    raise UniqueViolation({field: body[field] for field in fields})
        for field, foreign in schema.foreign_fields.items():
            parent_id = foreign_id(body[field])
            if parent_id is not None and parent_id not in self.rows.get(foreign.collection, {}):
                raise ForeignKeyViolation(field, foreign.collection, {"id": parent_id})
