"""The part of a file that is ours: `_pointsman`, with the settings of upstreams beyond Kong's entity.

    _pointsman:
      upstream_settings:
        - upstream: blue
          slow_start: 10
          manual_health:
            - {target: "10.0.0.1:80", healthy: false}

It stands apart from Kong's entities so that those stay what decK knows. A file without it touches no settings; in a
`sync`, a file with it says all of them: upstreams that it does not name go back to the defaults, within the tags.
Upstreams and targets are named as in the rest of the file; inside, and in the store, they are ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.declarative.changes import EntityChange, same_entity
from control_plane.declarative.problems import Problem, flatten
from control_plane.entities.errors import EntityError
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.entities.upstream_settings import COLLECTION, UPSTREAM_SETTINGS
from control_plane.store.contract import Operation, Transaction

SECTION = "_pointsman"
_NAMING_TARGETS = ("manual_health", "former_weights")
_REMEDY = f"see {SECTION}.{COLLECTION} in docs/cli.md"


@dataclass(slots=True)
class FileSettings:
    """One upstream's settings as the file has them; `upstream` is its name or id."""

    upstream: str
    body: EntityBody
    path: str
    line: int | None

    def problem(self, message: str, remedy: str = _REMEDY, *, field_name: str = "") -> Problem:
        """A problem of these settings."""
        return Problem(
            message=message,
            remedy=remedy,
            path=self.path,
            field=field_name,
            entity_type=COLLECTION,
            entity_name=self.upstream,
            line=self.line,
        )


def read_section(section: JsonValue, line: int | None) -> tuple[list[FileSettings] | None, list[Problem]]:
    """Return the settings that a file's `_pointsman` gives, None where it does not say, and what is wrong with it."""
    problems: list[Problem] = []

    def problem(message: str, remedy: str, path: str) -> None:
        problems.append(Problem(message=message, remedy=remedy, path=path, line=line))

    if section is None:
        return None, problems
    if not isinstance(section, dict):
        problem("expected a mapping", f"write {COLLECTION}: [...]", SECTION)
        return None, problems
    for key in section:
        if key != COLLECTION:
            problem("unknown field", f"remove it; known are: {COLLECTION}", f"{SECTION}.{key}")
    rows = section.get(COLLECTION)
    if rows is None:
        return None, problems
    path = f"{SECTION}.{COLLECTION}"
    if not isinstance(rows, list):
        problem("expected a list", "write each as an item: '- upstream: ...'", path)
        return None, problems
    found: list[FileSettings] = []
    for position, row in enumerate(rows):
        place = f"{path}[{position}]"
        upstream = row.get("upstream") if isinstance(row, dict) else None
        if isinstance(upstream, dict):
            upstream = upstream.get("name") or upstream.get("id")
        if not isinstance(row, dict) or not isinstance(upstream, str):
            problem("names no upstream", "write upstream: NAME", place)
            continue
        body = {name: value for name, value in row.items() if name != "upstream"}
        found.append(FileSettings(upstream, body, place, getattr(row, "line", line)))
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

    upstream: Callable[[str], EntityBody | None]
    """By name or id, as it will be; None = there is no such one."""
    target: Callable[[str, str], str | None]
    """(upstream id, address or id) -> the target's id, as it will be."""
    removable: Iterable[str]
    """Ids of the upstreams, within the tags, that stay."""


def plan_settings(
    tx: Transaction, wanted: Sequence[FileSettings], planned: Planned, *, merging: bool, now: float
) -> SettingsPlan:
    """Compare the file's settings with the store's. `merging` = `apply`: what is not named stays."""
    plan = SettingsPlan()
    named: set[str] = set()
    for settings in wanted:
        upstream = planned.upstream(settings.upstream)
        if upstream is None:
            plan.problems.append(settings.problem(f"no upstream '{settings.upstream}'", "correct the name"))
            continue
        upstream_id = str(upstream["id"])
        if upstream_id in named:
            plan.problems.append(settings.problem(f"upstream '{settings.upstream}' has settings already"))
            continue
        named.add(upstream_id)
        _plan_one(plan, tx.get(COLLECTION, upstream_id), settings, upstream, planned, merging=merging, now=now)
    if not merging:
        for upstream_id in planned.removable:
            before = tx.get(COLLECTION, upstream_id) if upstream_id not in named else None
            upstream = planned.upstream(upstream_id)
            if before is not None and upstream is not None:
                plan.changes.append(_change(Operation.DELETE, upstream, before, None))
    return plan


def _plan_one(
    plan: SettingsPlan,
    before: EntityBody | None,
    settings: FileSettings,
    upstream: EntityBody,
    planned: Planned,
    *,
    merging: bool,
    now: float,
) -> None:
    upstream_id = str(upstream["id"])
    body: EntityBody = {**_by_id(plan, settings, upstream_id, planned), "upstream": {"id": upstream_id}}
    body.pop("id", None)
    try:
        if before is not None and merging:
            after = UPSTREAM_SETTINGS.on_update(before, body, now=now, resolve=_no_names)
        else:
            if before is not None:
                body.setdefault("created_at", before["created_at"])
            after = UPSTREAM_SETTINGS.on_insert(body, now=now, resolve=_no_names, entity_id=upstream_id)
    except EntityError as error:
        leaves = list(flatten(error.fields or {})) or [("", error.message or error.name)]
        plan.problems += [settings.problem(str(message), field_name=name) for name, message in leaves]
        return
    if before is not None and same_entity(before, after):
        plan.unchanged += 1
    else:
        operation = Operation.CREATE if before is None else Operation.UPDATE
        plan.changes.append(_change(operation, upstream, before, after))


def _by_id(plan: SettingsPlan, settings: FileSettings, upstream_id: str, planned: Planned) -> EntityBody:
    """The body with targets by id; one that is none of this upstream's is a problem."""
    body = dict(settings.body)
    for name in _NAMING_TARGETS:
        rows = body.get(name)
        if not isinstance(rows, list):
            continue
        found: list[JsonValue] = []
        for row in rows:
            key = row.get("target") if isinstance(row, dict) else None
            if not isinstance(row, dict) or not isinstance(key, str):
                found.append(row)  # for the schema to refuse
                continue
            target_id = planned.target(upstream_id, key)
            if target_id is None:
                message = f"'{key}' is no target of upstream '{settings.upstream}'"
                plan.problems.append(settings.problem(message, "correct the target", field_name=name))
            else:
                found.append({**row, "target": target_id})
        body[name] = found
    return body


def _change(
    operation: Operation, upstream: EntityBody, before: EntityBody | None, after: EntityBody | None
) -> EntityChange:
    name = str(upstream["name"])
    return EntityChange(
        operation=operation,
        entity_type=COLLECTION,
        collection=COLLECTION,
        id=str(upstream["id"]),
        name=name,
        parent=("upstream", name),
        before=before,
        after=after,
    )


def _no_names(_collection: str, _field: str, _value: str) -> None:
    return None


def dump_section(
    tx: Transaction, upstreams: Mapping[str, EntityBody], targets: Mapping[str, EntityBody]
) -> EntityBody | None:
    """Return `_pointsman` for these upstreams (by id), None when none of them has settings.

    Rows of targets that are gone are left out: nothing follows from them, and no file could name them.
    """
    rows: list[JsonValue] = []
    for settings in sorted(tx.each(COLLECTION), key=lambda body: _name(upstreams, body)):
        if str(settings["id"]) not in upstreams:
            continue
        row: EntityBody = {"upstream": _name(upstreams, settings)}
        for name, definition in UPSTREAM_SETTINGS.fields.items():
            value = settings[name]
            if name in ("id", "upstream", "created_at", "updated_at") or value == definition.missing():
                continue
            if name in _NAMING_TARGETS and isinstance(value, list):
                value = _by_address(value, targets)
                if not value:
                    continue
            row[name] = value
        rows.append(dict(sorted(row.items())))
    return {COLLECTION: rows} if rows else None


def _name(upstreams: Mapping[str, EntityBody], settings: EntityBody) -> str:
    upstream = upstreams.get(str(settings["id"]))
    return str(upstream["name"]) if upstream is not None else ""


def _by_address(rows: list[JsonValue], targets: Mapping[str, EntityBody]) -> list[JsonValue]:
    found: list[JsonValue] = []
    for row in rows:
        target = targets.get(str(row.get("target"))) if isinstance(row, dict) else None
        if isinstance(row, dict) and target is not None:
            shown = {name: value for name, value in row.items() if value is not None}
            found.append(dict(sorted({**shown, "target": target["target"]}.items())))
    return found
