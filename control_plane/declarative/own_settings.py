"""The part of a file that is ours: `_pointsman`, with the settings of upstreams and services beyond Kong's entities.

    _pointsman:
      upstream_settings:
        - upstream: blue
          slow_start: 10
          manual_health:
            - {target: "10.0.0.1:80", healthy: false}
      service_settings:
        - service: example-service
          partition: fence
          split: {to: green, share: 500}

It stands apart from Kong's entities so that those stay what decK knows. A file without it touches no settings; in a
`sync`, a file that has one of the lists says all of it: entities that it does not name go back to the defaults, within
the tags. Upstreams, services and targets are named as in the rest of the file; inside, and in the store, they are ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from control_plane.declarative.changes import EntityChange, same_entity
from control_plane.declarative.problems import Problem, flatten
from control_plane.entities.errors import EntityError
from control_plane.entities.registry import OWN_SETTINGS
from control_plane.entities.schema import Schema
from control_plane.entities.service_settings import SIDES, with_upstream_ids
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.entities.upstream_settings import NAMING_TARGETS, with_target_ids
from control_plane.store.contract import Operation, Transaction

SECTION = "_pointsman"


def owner_of(schema: Schema) -> tuple[str, str]:
    """Return the field that says whose settings these are, and the collection that it refers to."""
    ((name, foreign),) = schema.foreign_fields.items()
    return name, foreign.collection


@dataclass(slots=True)
class FileSettings:
    """One entity's settings as the file has them; `owner` is that entity's name or id."""

    collection: str
    owner: str
    body: EntityBody
    path: str
    line: int | None

    @property
    def kind(self) -> str:
        """Of the entity, in the singular."""
        return owner_of(OWN_SETTINGS[self.collection])[0]

    def problem(self, message: str, remedy: str = "", *, field_name: str = "") -> Problem:
        """A problem of these settings."""
        return Problem(
            message=message,
            remedy=remedy or f"see {SECTION}.{self.collection} in docs/cli.md",
            path=self.path,
            field=field_name,
            entity_type=self.collection,
            entity_name=self.owner,
            line=self.line,
        )


@dataclass(slots=True)
class FileSection:
    """What a file's `_pointsman` says: all settings, and the collections it speaks of, be it by an empty list."""

    settings: list[FileSettings] = field(default_factory=list)
    collections: set[str] = field(default_factory=set)


def read_section(section: JsonValue, line: int | None) -> tuple[FileSection, list[Problem]]:
    """Return the settings that a file's `_pointsman` gives, and what is wrong with it."""
    problems: list[Problem] = []
    found = FileSection()

    def problem(message: str, remedy: str, path: str) -> None:
        problems.append(Problem(message=message, remedy=remedy, path=path, line=line))

    if section is None:
        return found, problems
    known = ", ".join(OWN_SETTINGS)
    if not isinstance(section, dict):
        problem("expected a mapping", f"write one of {known}, each with its list", SECTION)
        return found, problems
    for key in section:
        if key not in OWN_SETTINGS:
            problem("unknown field", f"remove it; known are: {known}", f"{SECTION}.{key}")
    for collection, schema in OWN_SETTINGS.items():
        rows = section.get(collection)
        if rows is None:
            continue
        kind, _ = owner_of(schema)
        path = f"{SECTION}.{collection}"
        if not isinstance(rows, list):
            problem("expected a list", f"write each as an item: '- {kind}: ...'", path)
            continue
        found.collections.add(collection)
        for position, row in enumerate(rows):
            place = f"{path}[{position}]"
            owner = row.get(kind) if isinstance(row, dict) else None
            if isinstance(owner, dict):
                owner = owner.get("name") or owner.get("id")
            if not isinstance(row, dict) or not isinstance(owner, str):
                problem(f"names no {kind}", f"write {kind}: NAME", place)
                continue
            body = {name: value for name, value in row.items() if name != kind}
            found.settings.append(FileSettings(collection, owner, body, place, getattr(row, "line", line)))
    return found, problems


@dataclass(slots=True)
class SettingsPlan:
    """What a file does to settings."""

    changes: list[EntityChange] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unchanged: int = 0


@dataclass(frozen=True, slots=True)
class Planned:
    """What the plan of the rest of the file knows."""

    entity: Callable[[str, str], EntityBody | None]
    """(collection, name or id) -> the entity as it will be; None = there is no such one."""
    target: Callable[[str, str], str | None]
    """(upstream id, address or id) -> the target's id, as it will be."""
    removable: Callable[[str], Iterable[str]]
    """Collection -> ids of its entities, within the tags, that stay."""


def plan_settings(tx: Transaction, wanted: FileSection, planned: Planned, *, merging: bool, now: float) -> SettingsPlan:
    """Compare the file's settings with the store's. `merging` = `apply`: what is not named stays."""
    plan = SettingsPlan()
    named: set[tuple[str, str]] = set()
    for settings in wanted.settings:
        kind, owners = owner_of(OWN_SETTINGS[settings.collection])
        owner = planned.entity(owners, settings.owner)
        if owner is None:
            plan.problems.append(settings.problem(f"no {kind} '{settings.owner}'", "correct the name"))
            continue
        key = settings.collection, str(owner["id"])
        if key in named:
            plan.problems.append(settings.problem(f"{kind} '{settings.owner}' has settings already"))
            continue
        named.add(key)
        _plan_one(plan, tx.get(*key), settings, owner, planned, merging=merging, now=now)
    if not merging:
        for collection in OWN_SETTINGS:
            if collection not in wanted.collections:
                continue
            _, owners = owner_of(OWN_SETTINGS[collection])
            for owner_id in planned.removable(owners):
                before = tx.get(collection, owner_id) if (collection, owner_id) not in named else None
                owner = planned.entity(owners, owner_id)
                if before is not None and owner is not None:
                    plan.changes.append(_change(Operation.DELETE, collection, owner, before, None))
    return plan


def _plan_one(
    plan: SettingsPlan,
    before: EntityBody | None,
    settings: FileSettings,
    owner: EntityBody,
    planned: Planned,
    *,
    merging: bool,
    now: float,
) -> None:
    schema, owner_id = OWN_SETTINGS[settings.collection], str(owner["id"])
    try:
        body: EntityBody = {**_by_id(plan, settings, owner_id, planned), settings.kind: {"id": owner_id}}
        body.pop("id", None)
        if before is not None and merging:
            after = schema.on_update(before, body, now=now, resolve=_no_names)
        else:
            if before is not None:
                body.setdefault("created_at", before["created_at"])
            after = schema.on_insert(body, now=now, resolve=_no_names, entity_id=owner_id)
    except EntityError as error:
        leaves = list(flatten(error.fields or {})) or [("", error.message or error.name)]
        plan.problems += [settings.problem(str(message), field_name=name) for name, message in leaves]
        return
    if before is not None and same_entity(before, after):
        plan.unchanged += 1
    else:
        operation = Operation.CREATE if before is None else Operation.UPDATE
        plan.changes.append(_change(operation, settings.collection, owner, before, after))


def _by_id(plan: SettingsPlan, settings: FileSettings, upstream_id: str, planned: Planned) -> EntityBody:
    """The body with targets and upstreams by id; a target that is none of this upstream's is a problem.

    Raises SchemaViolation for an upstream that there will not be.
    """

    def upstream(name: str) -> str | None:
        found = planned.entity("upstreams", name)
        return None if found is None else str(found["id"])

    def target(field: str, key: str) -> str | None:
        found = planned.target(upstream_id, key)
        if found is None:
            message = f"'{key}' is no target of upstream '{settings.owner}'"
            plan.problems.append(settings.problem(message, "correct the target", field_name=field))
        return found

    body = with_upstream_ids(settings.body, upstream) if settings.kind == "service" else settings.body
    return with_target_ids(body, target)


def _change(
    operation: Operation, collection: str, owner: EntityBody, before: EntityBody | None, after: EntityBody | None
) -> EntityChange:
    name = _name(owner)
    return EntityChange(
        operation=operation,
        entity_type=collection,
        collection=collection,
        id=str(owner["id"]),
        name=name,
        parent=(owner_of(OWN_SETTINGS[collection])[0], name),
        before=before,
        after=after,
    )


def _no_names(_collection: str, _field: str, _value: str) -> None:
    return None


def dump_section(
    tx: Transaction,
    dumped: Mapping[str, Mapping[str, EntityBody]],
    *,
    targets: Mapping[str, EntityBody],
    upstreams: Mapping[str, EntityBody],
) -> EntityBody | None:
    """Return `_pointsman` for the entities of the dump, by collection and id; None when none of them has settings.

    `targets` and `upstreams` are all that there are, since settings may name one that is no part of the dump.
    Rows of targets that are gone are left out: nothing follows from them, and no file could name them.
    """
    section: EntityBody = {}
    for collection, schema in OWN_SETTINGS.items():
        kind, owners = owner_of(schema)
        here = dumped[owners]
        held = [settings for settings in tx.each(collection) if str(settings["id"]) in here]
        rows: list[JsonValue] = []
        for settings in sorted(held, key=lambda settings: _name(here[str(settings["id"])])):
            row: EntityBody = {kind: _name(here[str(settings["id"])])}
            for name, definition in schema.fields.items():
                value = settings.get(name, definition.missing())
                if name in ("id", kind, "created_at", "updated_at") or value == definition.missing():
                    continue
                if name in NAMING_TARGETS and isinstance(value, list):
                    value = _by_address(value, targets)
                    if not value:
                        continue
                row[name] = _by_name(value, upstreams) if name in SIDES else value
            rows.append(dict(sorted(row.items())))
        if rows:
            section[collection] = rows
    return section or None


def _name(owner: EntityBody) -> str:
    """What a file calls the entity: its name, the id of a service that has none."""
    return str(owner.get("name") or owner["id"])


def _by_name(side: JsonValue, upstreams: Mapping[str, EntityBody]) -> JsonValue:
    """What sends requests elsewhere, with its upstream by name and without what is not set."""
    if not isinstance(side, dict):
        return side
    named: EntityBody = {name: value for name, value in side.items() if value is not None}
    sticky = named.get("sticky")
    if isinstance(sticky, dict):
        named["sticky"] = {name: value for name, value in sorted(sticky.items()) if value is not None}
    upstream = upstreams.get(str(named.get("to")))
    if upstream is not None:
        named["to"] = _name(upstream)
    return dict(sorted(named.items()))


def _by_address(rows: list[JsonValue], targets: Mapping[str, EntityBody]) -> list[JsonValue]:
    found: list[JsonValue] = []
    for row in rows:
        target = targets.get(str(row.get("target"))) if isinstance(row, dict) else None
        if isinstance(row, dict) and target is not None:
            shown = {name: value for name, value in row.items() if value is not None}
            found.append(dict(sorted({**shown, "target": target["target"]}.items())))
    return found
