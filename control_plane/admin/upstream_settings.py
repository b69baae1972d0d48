"""`/fleet/upstreams/{u}/settings`, and the two verbs that move a target's weight there and back.

Our own settings of an upstream are beside Kong's entity, never inside it. GET answers with defaults where nothing was
set; PATCH merges, PUT replaces, DELETE goes back to the defaults. Targets may be given as `host:port`, and are kept and
shown by id.

`drain` sets a target's weight to 0 and remembers what it was, `ready` brings that back and lifts what an operator said
of the target's health. Each is one transaction, so a weight can't be lost between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.admin.bodies import entity_body
from control_plane.admin.collections import found
from control_plane.admin.messages import Addressed, Answer, Call, Current, not_found
from control_plane.admin.operations import FORM, JSON, Operation, reference
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Writes
from control_plane.entities.errors import SchemaViolation
from control_plane.entities.target import TARGET
from control_plane.entities.types import EntityBody
from control_plane.entities.upstream_settings import (
    COLLECTION,
    NAMING_TARGETS,
    UPSTREAM_SETTINGS,
    former_weight,
    with_former_weight,
    with_target_ids,
    without_words,
)
from control_plane.store import editor
from control_plane.store.contract import Transaction


def mount(table: PathTable, writes: Writes) -> None:
    """Adds the paths."""
    settings = UpstreamSettings(writes)
    above = "/fleet/upstreams/{upstreams}"
    shown: dict[int, EntityBody | None] = {200: UPSTREAM_SETTINGS.answer_schema()}
    body: dict[str, EntityBody] = {JSON: _body_schema(), FORM: _body_schema()}
    table.add(
        f"{above}/settings",
        {"GET": settings.get, "PUT": settings.put, "PATCH": settings.patch, "DELETE": settings.delete},
        about={
            "GET": Operation(summary="Show our own settings of the upstream", answers=shown),
            "PUT": Operation(
                summary="Replace the upstream's own settings", body=body, answers=shown, writes=True, guarded=True
            ),
            "PATCH": Operation(
                summary="Change some of the upstream's own settings",
                body=body,
                answers=shown,
                writes=True,
                guarded=True,
            ),
            "DELETE": Operation(summary="Go back to the defaults", answers={204: None}, writes=True, guarded=True),
        },
    )
    for verb, handler, summary in (
        ("drain", settings.drain, "Take a target's weight away and remember it"),
        ("ready", settings.ready, "Give a drained target its weight back"),
    ):
        about = Operation(summary=summary, answers={200: reference("Target")}, writes=True, guarded=True)
        table.add(
            f"{above}/targets/{{targets}}/{verb}",
            {"PUT": handler, "POST": handler},
            about={"PUT": about, "POST": about},
        )


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """The handlers; the first variable segment is the upstream's id or name."""

    writes: Writes

    async def get(self, _call: Call, path: tuple[str, ...]) -> Answer:
        """The settings in force."""
        return found(await self.writes.store.read(current_settings(path)))

    async def patch(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Changes what is given."""
        body = await entity_body(call, UPSTREAM_SETTINGS.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            upstream_id = str(find_upstream(tx, path[0])["id"])
            return change(tx, upstream_id, _by_id(tx, upstream_id, body), now=now)

        return await self.writes.entity(call, work, current=current_settings(path))

    async def put(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Replaces all of them; what is not given goes back to its default."""
        body = await entity_body(call, UPSTREAM_SETTINGS.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            upstream_id = str(find_upstream(tx, path[0])["id"])
            given: EntityBody = {**_by_id(tx, upstream_id, body), "upstream": {"id": upstream_id}}
            return editor.upsert(tx, COLLECTION, upstream_id, given, now=now)

        return await self.writes.entity(call, work, current=current_settings(path))

    async def delete(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Goes back to the defaults."""

        def work(tx: Transaction) -> None:
            tx.delete(COLLECTION, str(find_upstream(tx, path[0])["id"]))

        return await self.writes.entity(call, work, status=204, current=current_settings(path))

    async def drain(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Weight 0: no new requests; what is open goes on. A target that is drained already stays as it is."""
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            target, upstream_id = find_target(tx, path[0], path[1])
            weight = target["weight"]
            if weight == 0:
                return target
            kept = weight if isinstance(weight, int) else 100  # null is legal, and is the default to nodes
            settings = tx.get(COLLECTION, upstream_id)
            weights = with_former_weight(settings, str(target["id"]), kept)
            change(tx, upstream_id, {"former_weights": weights}, now=now)
            return _set_weight(tx, target, 0, now=now)

        return await self.writes.entity(call, work, current=_current_target(path))

    async def ready(self, call: Call, path: tuple[str, ...]) -> Answer:
        """The weight of before the drain, 100 where none is known; nothing an operator said of its health stays."""
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            target, upstream_id = find_target(tx, path[0], path[1])
            target_id = str(target["id"])
            settings = tx.get(COLLECTION, upstream_id)
            weight = former_weight(settings, target_id)
            if settings is not None:
                patch: EntityBody = {
                    "manual_health": without_words(settings, target_id, "", now=now),
                    "former_weights": with_former_weight(settings, target_id, None),
                }
                if any(settings[name] != value for name, value in patch.items()):
                    change(tx, upstream_id, patch, now=now)
            if target["weight"] != 0:
                return target  # somebody gave it a weight meanwhile: that is the later word
            return _set_weight(tx, target, weight or 100, now=now)

        return await self.writes.entity(call, work, current=_current_target(path))


def _body_schema() -> EntityBody:
    """What PUT and PATCH take: in a body targets may be named by address too."""
    schema = UPSTREAM_SETTINGS.patch_schema()
    properties = schema["properties"]
    assert isinstance(properties, dict)
    for field in NAMING_TARGETS:
        rows = UPSTREAM_SETTINGS.fields[field].json_schema()
        items = rows["items"]
        assert isinstance(items, dict)
        inner = items["properties"]
        assert isinstance(inner, dict)
        inner["target"] = {"type": "string", "minLength": 1, "description": "The target's id or its address."}
        properties[field] = rows
    return schema


def change(tx: Transaction, upstream_id: str, patch: EntityBody, *, now: float) -> EntityBody:
    """Merges into an upstream's settings, which begin as the defaults."""
    bound: EntityBody = {**patch, "upstream": {"id": upstream_id}}
    if tx.get(COLLECTION, upstream_id) is None:
        return editor.upsert(tx, COLLECTION, upstream_id, bound, now=now)
    return editor.update(tx, COLLECTION, upstream_id, bound, now=now)


def find_upstream(tx: Transaction, key: str) -> EntityBody:
    """The upstream by id or name. Raises Refused (404)."""
    upstream = editor.lookup(tx, "upstreams", key)
    if upstream is None:
        raise not_found()
    return upstream


def find_target(tx: Transaction, upstream_key: str, key: str) -> tuple[EntityBody, str]:
    """The target by id or exact address, and its upstream's id. Raises Refused (404)."""
    upstream_id = str(find_upstream(tx, upstream_key)["id"])
    target = editor.lookup(tx, "targets", key, parent=editor.Parent("upstream", "upstreams", upstream_id))
    if target is None:
        raise not_found()
    return target, upstream_id


def current_settings(path: tuple[str, ...]) -> Current:
    """The settings of the upstream that the first variable segment names, as GET shows them."""

    def current(tx: Transaction) -> Addressed | None:
        upstream_id = str(find_upstream(tx, path[0])["id"])
        return Addressed(COLLECTION, tx.get(COLLECTION, upstream_id) or _defaults(upstream_id))

    return current


def _current_target(path: tuple[str, ...]) -> Current:
    return lambda tx: Addressed("targets", find_target(tx, path[0], path[1])[0])


def _set_weight(tx: Transaction, target: EntityBody, weight: int, *, now: float) -> EntityBody:
    made = TARGET.on_update(target, {"weight": weight}, now=now, resolve=editor.resolver(tx))
    tx.replace("targets", made)
    return made


def _defaults(upstream_id: str) -> EntityBody:
    body: EntityBody = {"upstream": {"id": upstream_id}}
    made = UPSTREAM_SETTINGS.on_insert(body, now=1, resolve=lambda *_: None, entity_id=upstream_id)
    return {**made, "created_at": None, "updated_at": None}


def _by_id(tx: Transaction, upstream_id: str, body: EntityBody) -> EntityBody:
    """The body with targets by id. Raises SchemaViolation for one that is no target of this upstream."""
    parent = editor.Parent("upstream", "upstreams", upstream_id)

    def find(field: str, key: str) -> str:
        target = editor.lookup(tx, "targets", key, parent=parent)
        if target is None:
            raise SchemaViolation({field: f"'{key}' is no target of this upstream"})
        return str(target["id"])

    return with_target_ids(body, find)
