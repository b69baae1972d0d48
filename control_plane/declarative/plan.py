"""From a file and the store's present state to the changes that lead from one to the other.

    place   each entity of the file gets its id: its own, or that of the entity it names in the store, or a new one
    form    the schema makes the complete entity of it (`sync`: as a replacement, `apply`: as a merge)
    remove  `sync` only: what the store has within the tags and the file does not name
    check   references and unique keys over the state that would result

Nothing is written here, so `diff` is a plan that nobody carries out. All problems of a file are collected before one
is raised. The store checks keys and references again when it writes; the check here exists to name the place in the
file, and to find all of them at once. The work is linear in the size of the file plus, for `sync`, of the store.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from control_plane.declarative.changes import EntityChange, same_entity
from control_plane.declarative.document import Document, FileEntity, merged
from control_plane.declarative.ids import deterministic_id
from control_plane.declarative.own_settings import Planned, SettingsPlan, plan_settings
from control_plane.declarative.problems import Problem, Problems
from control_plane.declarative.state import AskedState, Current, Key, LoadedState, has_tags, key_of, name_of, shown_name
from control_plane.entities.errors import EntityError
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.schema import OnDelete, Schema, foreign_id
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Operation, Transaction
from pointsman.rules.addresses import BadAddress, parse_target

ASKED_ENTITIES_MAX = 500
"""An `apply` of up to this many entities looks them up one by one; beyond it, reading everything once is cheaper."""

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_SETS = ("ca_certificates", "tags")  # fields whose order means nothing: another order is no difference


class Mode(StrEnum):
    """What a file means to the store."""

    SYNC = "sync"  # the store becomes equal to the file
    APPLY = "apply"  # the properties given are put over what is there; nothing is deleted


@dataclass(slots=True)
class Plan:
    """The changes in an order in which they can be written one by one.

    `parked` are entities that hold, until their own turn comes, a unique key which an earlier change needs; they get
    a key nobody wants first. Two services that swap names can't be written otherwise.
    """

    changes: list[EntityChange] = field(default_factory=list)
    parked: list[tuple[str, EntityBody]] = field(default_factory=list)
    unchanged: int = 0
    places: dict[tuple[str, str], FileEntity] = field(default_factory=dict)  # (collection, id) -> where in the file


@dataclass(slots=True)
class _Wanted:
    """An entity of the file with its id, and what is in the store under that id."""

    entity: FileEntity
    id: str
    before: EntityBody | None
    references: dict[str, JsonValue]
    after: EntityBody | None = None


def make_plan(tx: Transaction, document: Document, *, mode: Mode, tags: Sequence[str], now: float) -> Plan:
    """What `document` would change, by `mode`, among the entities that carry all of `tags`.

    Raises `FileRefused` with all problems of the file.
    """
    return _Planner(tx, document, mode=mode, tags=tags, now=now).plan()


class _Planner:
    def __init__(self, tx: Transaction, document: Document, *, mode: Mode, tags: Sequence[str], now: float) -> None:
        self._tx = tx
        self._document = document
        self._mode = mode
        self._tags = tags
        self._now = now
        self._loaded: LoadedState | None = None
        if mode is Mode.SYNC or document.entity_count > ASKED_ENTITIES_MAX:
            self._loaded = LoadedState(tx)
        self._current: Current = self._loaded or AskedState(tx)
        self._problems = Problems(document.problems)
        self._wanted: dict[str, dict[str, _Wanted]] = {collection: {} for collection in SCHEMAS}
        self._removed: dict[str, dict[str, EntityBody]] = {collection: {} for collection in SCHEMAS}
        self._given_ids: frozenset[str] = frozenset()  # ids that the file itself gives, in the collection at hand
        self._ids: dict[FileEntity, str] = {}
        self._names: dict[tuple[str, str], str] = {}  # (collection, name in the file) -> id
        self._parked: dict[tuple[str, str], EntityBody] = {}
        self._wanted_targets: dict[tuple[str, str], str] = {}  # (upstream id, address) -> id; filled when asked

    def plan(self) -> Plan:
        for collection, schema in SCHEMAS.items():
            entities = self._document.entities[collection]
            self._given_ids = frozenset(given for entity in entities if (given := _given_id(entity.body)) is not None)
            for entity in entities:
                self._place(schema, entity)
            for wanted in self._wanted[collection].values():
                self._form(schema, wanted)
        if self._mode is Mode.SYNC:
            assert self._loaded is not None
            self._remove(self._loaded)
        for schema in SCHEMAS.values():
            self._check_references(schema)
            self._check_unique_keys(schema)
        settings = self._settings()
        self._problems.raise_if_any()
        return self._in_order(settings)

    # --- place ---

    def _place(self, schema: Schema, entity: FileEntity) -> None:
        collection = schema.collection
        references = self._references(schema, entity)
        before = self._match(schema, entity, references)
        given = _given_id(entity.body)
        entity_id = str(before["id"]) if before is not None else (given or self._new_id(schema, entity, references))
        self._ids[entity] = entity_id
        if entity.key:
            self._names.setdefault((collection, entity.key), entity_id)
        first = self._wanted[collection].get(entity_id)
        if first is not None:
            by = f"{schema.endpoint_key} set to '{entity.key}'" if entity.key else f"primary key set to '{entity_id}'"
            self._already_declared(schema, entity, by, first.entity)
            return
        self._wanted[collection][entity_id] = _Wanted(entity, entity_id, before, references)

    def _new_id(self, schema: Schema, entity: FileEntity, references: Mapping[str, JsonValue]) -> str:
        """The id that follows from the entity's key, unless an entity of another key has it: renaming keeps ids."""
        made = deterministic_id(schema, entity.body, references)
        if made is None or made in self._given_ids or self._current.get(schema.collection, made) is not None:
            return str(uuid.uuid4())
        return made

    def _match(self, schema: Schema, entity: FileEntity, references: Mapping[str, JsonValue]) -> EntityBody | None:
        """The entity of the store that the file means: by id, else by its key."""
        given = _given_id(entity.body)
        if given is not None:
            held = self._current.get(schema.collection, given)
            if held is not None and not has_tags(held, self._tags):
                message = f"id '{given}' belongs to a {schema.singular} without the tags {list(self._tags)}"
                self._problems.add(entity.problem(message, "tag that one too, or give another id", field="id"))
            return held
        for fields in schema.unique_keys:
            if schema.endpoint_key is None or schema.endpoint_key not in fields:
                continue
            key = key_of({**references, schema.endpoint_key: _comparable_key(schema, entity)}, fields)
            held = self._current.find(schema.collection, fields, key) if key is not None else None
            # One outside the tags is invisible here; `_check_unique_keys` then says who has the name. One that the
            # file names by its id elsewhere is that other entity, about to get another name.
            if held is not None and has_tags(held, self._tags) and str(held["id"]) not in self._given_ids:
                return held
        return self._recognised(schema, entity)

    def _recognised(self, schema: Schema, entity: FileEntity) -> EntityBody | None:
        """The nameless entity of the store that has the same content in the field by which its kind is told apart."""
        value = entity.body.get(schema.recognised_by) if schema.recognised_by else None
        if not isinstance(value, str):
            return None
        for held in self._current.each(schema.collection).values():
            known = held.get(schema.recognised_by)
            same = isinstance(known, str) and known.strip() == value.strip()
            if same and has_tags(held, self._tags) and str(held["id"]) not in self._given_ids:
                return held
        return None

    def _references(self, schema: Schema, entity: FileEntity) -> dict[str, JsonValue]:
        """The foreign fields that the file gives, by id; those that name nothing are reported and left out."""
        found: dict[str, JsonValue] = {}
        for name, foreign in schema.foreign_fields.items():
            if name == entity.parent_field and entity.parent is not None:
                found[name] = {"id": self._ids[entity.parent]}
                continue
            value = entity.body.get(name)
            if isinstance(value, str) and value:
                parent = SCHEMAS.get(foreign.collection)
                key = parent.endpoint_key if parent is not None and parent.endpoint_key is not None else "name"
                value = {"id": value.lower()} if _UUID.fullmatch(value) else {key: value}
            if isinstance(value, dict) and (resolved := self._resolved(entity, name, foreign.collection, value)):
                found[name] = resolved
        return found

    def _resolved(
        self, entity: FileEntity, field_name: str, collection: str, given: dict[str, JsonValue]
    ) -> dict[str, JsonValue] | None:
        """A reference by name as one by id; what is not of that form is left for the schema to judge."""
        parent = SCHEMAS.get(collection)
        by, name = next(iter(given.items()), ("", None))
        if parent is None or len(given) != 1 or (by,) not in parent.unique_keys or not isinstance(name, str):
            return given
        parent_id = self._resolve(collection, by, name)
        if parent_id is not None:
            return {"id": parent_id}
        message = f"invalid reference '{field_name}: {name}' (no such entry in '{collection}')"
        remedy = f"add the {parent.singular} '{name}' to the file, or correct the name"
        self._problems.add(entity.problem(message, remedy, field=field_name))
        return None

    def _already_declared(self, schema: Schema, entity: FileEntity, by: str, first: FileEntity) -> None:
        message = f"uniqueness violation: '{schema.collection}' entity with {by} already declared"
        self._problems.add(entity.problem(message, f"remove this one or the one at {first.path}"))

    # --- form ---

    def _form(self, schema: Schema, wanted: _Wanted) -> None:
        entity, before = wanted.entity, wanted.before
        merging = before is not None and self._mode is Mode.APPLY
        defaults = self._document.defaults.get(schema.collection)
        body = merged(entity.body, defaults) if defaults and not merging else dict(entity.body)
        if _unresolved(schema, wanted):
            return  # already reported; the schema could only say it again in other words
        body.update(wanted.references)
        self._select(body, merging=merging)
        hashed = () if self._document.transform else tuple(schema.secrets)
        try:
            if before is None:
                after = schema.on_insert(
                    body, now=self._now, resolve=self._resolve, entity_id=wanted.id, as_stored=hashed
                )
            elif merging:
                body.pop("id", None)
                after = schema.on_update(before, body, now=self._now, resolve=self._resolve)
            else:
                if body.get("created_at") is None:
                    body["created_at"] = before["created_at"]
                kept = [*_keep_secrets(schema, body, before), *hashed]
                after = schema.on_upsert(
                    body, now=self._now, resolve=self._resolve, entity_id=wanted.id, as_stored=kept
                )
        except EntityError as error:
            for problem in entity.problems_of(error):
                self._problems.add(problem)
            return
        if before is not None:
            for name in _SETS:
                if _same_members(before.get(name), after.get(name)):
                    after[name] = before[name]
        wanted.after = after

    def _select(self, body: EntityBody, *, merging: bool) -> None:
        """Adds the tags that this run selects by, so that the next run sees the entity again."""
        if not self._tags or (merging and "tags" not in body):
            return
        given = body.get("tags")
        if given is None or isinstance(given, list):
            held: list[JsonValue] = given or []
            body["tags"] = held + [tag for tag in self._tags if tag not in held]

    def _resolve(self, collection: str, unique_field: str, value: str) -> str | None:
        held = self._names.get((collection, value))
        if held is not None:
            return held
        body = self._current.find(collection, (unique_field,), (value,)) if collection in SCHEMAS else None
        return str(body["id"]) if body is not None else None

    # --- remove ---

    def _remove(self, loaded: LoadedState) -> None:
        for collection in SCHEMAS:
            wanted, removed = self._wanted[collection], self._removed[collection]
            for entity_id, body in loaded.each(collection).items():
                if entity_id not in wanted and has_tags(body, self._tags):
                    removed[entity_id] = body
        if not any(self._removed.values()):
            return
        for collection, schema in SCHEMAS.items():
            wanted, removed = self._wanted[collection], self._removed[collection]
            for entity_id, body in loaded.each(collection).items():
                if entity_id not in wanted and entity_id not in removed:
                    self._follow_removal(schema, entity_id, body)

    def _follow_removal(self, schema: Schema, entity_id: str, body: EntityBody) -> None:
        """An entity outside the tags whose parent goes: it goes too, or the removal of the parent is refused."""
        for name, foreign in schema.foreign_fields.items():
            parent_id = foreign_id(body.get(name))
            parent = self._removed[foreign.collection].get(parent_id or "") if foreign.collection in SCHEMAS else None
            if parent is None:
                continue
            match foreign.on_delete:
                case OnDelete.CASCADE:
                    self._removed[schema.collection][entity_id] = body
                    return
                case OnDelete.RESTRICT:
                    parent_schema = SCHEMAS[foreign.collection]
                    own_name = name_of(schema, body) or entity_id
                    parent_name = name_of(parent_schema, parent) or parent_id
                    self._problems.add(
                        Problem(
                            message=f"an existing '{schema.collection}' entity references this "
                            f"'{parent_schema.collection}' entity: {schema.singular} '{own_name}', which is outside "
                            "the tags",
                            remedy=f"keep {parent_schema.singular} '{parent_name}' in the file, or move or delete "
                            f"{schema.singular} '{own_name}' first",
                            entity_type=parent_schema.singular,
                            entity_name=str(parent_name),
                        )
                    )

    # --- check ---

    def _check_references(self, schema: Schema) -> None:
        for wanted in self._wanted[schema.collection].values():
            if wanted.after is None:
                continue
            for name, foreign in schema.foreign_fields.items():
                parent_id = foreign_id(wanted.after.get(name))
                if parent_id is None or parent_id in self._wanted.get(foreign.collection, {}):
                    continue
                given = wanted.entity.body.get(name)
                shown = given if isinstance(given, str) else parent_id
                if foreign.collection not in SCHEMAS:
                    message = f"'{foreign.collection}' are not supported yet"
                    remedy = f"remove '{name}'"
                elif (gone := self._removed[foreign.collection].get(parent_id)) is not None:
                    parent = SCHEMAS[foreign.collection]
                    parent_name = name_of(parent, gone) or parent_id
                    message = f"refers to {parent.singular} '{parent_name}', which is not in the file and so goes away"
                    remedy = f"add {parent.singular} '{parent_name}' to the file, or use `apply`, which deletes nothing"
                elif self._current.get(foreign.collection, parent_id) is None:
                    message = f"invalid reference '{name}: {shown}' (no such entry in '{foreign.collection}')"
                    remedy = "correct the id, or refer to it by name"
                else:
                    continue
                self._problems.add(wanted.entity.problem(message, remedy, field=name))

    def _check_unique_keys(self, schema: Schema) -> None:
        wanted_here = self._wanted[schema.collection]
        for fields in schema.unique_keys:
            owners: dict[Key, _Wanted] = {}
            for wanted in wanted_here.values():
                key = key_of(wanted.after, fields) if wanted.after is not None else None
                if key is None:
                    continue
                first = owners.setdefault(key, wanted)
                if first is not wanted:
                    by = f"{fields[-1]} set to '{key[-1]}'"
                    self._already_declared(schema, wanted.entity, by, first.entity)
                    continue
                holder = self._current.find(schema.collection, fields, key)
                if holder is None or holder["id"] == wanted.id:
                    continue
                holder_id = str(holder["id"])
                if holder_id in wanted_here or holder_id in self._removed[schema.collection]:
                    self._park(schema, holder, fields)
                else:
                    self._taken(schema, wanted, fields, key, holder_id)

    def _park(self, schema: Schema, holder: EntityBody, fields: Sequence[str]) -> None:
        place = (schema.collection, str(holder["id"]))
        body = self._parked.setdefault(place, dict(holder))
        own = next(name for name in reversed(fields) if name not in schema.foreign_fields)
        body[own] = f"parked-{uuid.uuid4().hex}"

    def _taken(self, schema: Schema, wanted: _Wanted, fields: Sequence[str], key: Key, holder_id: str) -> None:
        message = f"{fields[-1]} '{key[-1]}' is taken by the {schema.singular} with id {holder_id}"
        if self._tags and wanted.before is None and _given_id(wanted.entity.body) is None:
            message += f", which does not carry the tags {list(self._tags)}"
            remedy = "tag that one, so that this file owns it, or choose another name"
        elif _given_id(wanted.entity.body) is not None:
            remedy = "leave 'id' out of the file to mean that one, or choose another name"
        else:
            remedy = "choose another name"
        self._problems.add(wanted.entity.problem(message, remedy, field=fields[-1]))

    # --- our own settings ---

    def _settings(self) -> SettingsPlan:
        stays = self._wanted if self._mode is Mode.SYNC else {}
        planned = Planned(
            entity=self._planned_owner,
            target=self._planned_target,
            removable=lambda collection: [*stays.get(collection, ())],
        )
        plan = plan_settings(self._tx, self._document.own, planned, merging=self._mode is Mode.APPLY, now=self._now)
        for problem in plan.problems:
            self._problems.add(problem)
        return plan

    def _planned_owner(self, collection: str, key: str) -> EntityBody | None:
        entity_id = key.lower() if _UUID.fullmatch(key) else self._resolve(collection, "name", key)
        return self._planned(collection, entity_id)

    def _planned_target(self, upstream_id: str, key: str) -> str | None:
        if _UUID.fullmatch(key):
            target = self._planned("targets", key.lower())
            return key.lower() if target is not None and foreign_id(target["upstream"]) == upstream_id else None
        address = _comparable_target(key)
        if not self._wanted_targets:
            for wanted in self._wanted["targets"].values():
                if wanted.after is not None:
                    place = foreign_id(wanted.after["upstream"]) or "", str(wanted.after["target"])
                    self._wanted_targets[place] = wanted.id
        if (upstream_id, address) in self._wanted_targets:
            return self._wanted_targets[upstream_id, address]
        held = self._current.find("targets", ("upstream", "target"), (upstream_id, address))
        return str(held["id"]) if held is not None and self._planned("targets", str(held["id"])) is not None else None

    def _planned(self, collection: str, entity_id: str | None) -> EntityBody | None:
        """An entity as it will be; None for one that is not there or goes."""
        if entity_id is None or entity_id in self._removed[collection]:
            return None
        wanted = self._wanted[collection].get(entity_id)
        return wanted.after if wanted is not None else self._current.get(collection, entity_id)

    # --- order ---

    def _in_order(self, settings: SettingsPlan) -> Plan:
        plan = Plan(parked=[(collection, body) for (collection, _), body in self._parked.items()])
        for collection, schema in SCHEMAS.items():
            for entity_id, wanted in self._wanted[collection].items():
                assert wanted.after is not None, "a problem was not reported"
                plan.places[collection, entity_id] = wanted.entity
                if wanted.before is None:
                    plan.changes.append(self._change(schema, Operation.CREATE, None, wanted.after))
                elif same_entity(wanted.before, wanted.after):
                    plan.unchanged += 1
                else:
                    plan.changes.append(self._change(schema, Operation.UPDATE, wanted.before, wanted.after))
        plan.changes += settings.changes
        plan.unchanged += settings.unchanged
        for collection in reversed(list(SCHEMAS)):
            schema = SCHEMAS[collection]
            for body in self._removed[collection].values():
                plan.changes.append(self._change(schema, Operation.DELETE, body, None))
        return plan

    def _change(
        self, schema: Schema, operation: Operation, before: EntityBody | None, after: EntityBody | None
    ) -> EntityChange:
        body = after or before
        assert body is not None
        return EntityChange(
            operation=operation,
            entity_type=schema.singular,
            collection=schema.collection,
            id=str(body["id"]),
            name=shown_name(schema, body),
            parent=self._parent(schema, body),
            before=before,
            after=after,
        )

    def _parent(self, schema: Schema, body: EntityBody) -> tuple[str, str] | None:
        for name, foreign in schema.foreign_fields.items():
            parent_id = foreign_id(body.get(name))
            if parent_id is None or foreign.collection not in SCHEMAS:
                continue
            wanted = self._wanted[foreign.collection].get(parent_id)
            parent = wanted.after if wanted is not None else self._current.get(foreign.collection, parent_id)
            parent_schema = SCHEMAS[foreign.collection]
            shown = name_of(parent_schema, parent) if parent is not None else ""
            return parent_schema.singular, shown or parent_id
        return None


def _unresolved(schema: Schema, wanted: _Wanted) -> bool:
    """Whether a foreign field that the file gives named nothing, which `_references` has reported."""
    given = wanted.entity.body
    return any(
        name not in wanted.references and isinstance(given.get(name), str | dict) and bool(given.get(name))
        for name in schema.foreign_fields
    )


def _keep_secrets(schema: Schema, body: EntityBody, before: EntityBody) -> list[str]:
    """A secret that the file leaves out stays as it is while the file names what it belongs to; returns these fields.

    One that the file has as the store has it is kept too, be it a hash. An end that a file does not name stays as well:
    a file that gave one would move it each time.

    Dumps leave private keys out, and a certificate's file is more useful in a repository without its key.
    """
    kept: list[str] = []
    for name, owner in schema.secrets.items():
        if name not in body and body.get(owner) is not None:
            body[name] = before.get(name)
        if name in body and body[name] == before.get(name):
            kept.append(name)
    for name in schema.lifetimes:
        if name not in body:
            body[name] = before.get(name)
            kept.append(name)
    return kept


def _given_id(body: EntityBody) -> str | None:
    """The id that the file gives, if it is one; an id that is none is for the schema to refuse."""
    value = body.get("id")
    return value.lower() if isinstance(value, str) and _UUID.fullmatch(value) else None


def _comparable_key(schema: Schema, entity: FileEntity) -> str | None:
    """An entity's key as the store holds it: targets are stored normalised, so `a` and `a:8000` are one."""
    key = entity.key
    return _comparable_target(key) if schema.collection == "targets" and key else key or None


def _comparable_target(key: str) -> str:
    try:
        return str(parse_target(key))
    except BadAddress:
        return key  # for the schema to refuse


def _same_members(one: JsonValue, other: JsonValue) -> bool:
    if not isinstance(one, list) or not isinstance(other, list) or len(one) != len(other):
        return False
    return {str(item) for item in one} == {str(item) for item in other}
