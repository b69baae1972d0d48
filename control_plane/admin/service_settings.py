"""`/fleet/services/{s}/settings`: our own settings of a service, beside Kong's entity and never inside it.

GET answers with defaults where nothing was set; PATCH merges, PUT replaces, DELETE goes back to the defaults.

`/fleet/services/{s}/preview` and `/mirror` write one of them each: they move traffic as a switch does, so who may
switch may do that, and may not change the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.admin.bodies import entity_body
from control_plane.admin.collections import found
from control_plane.admin.messages import Addressed, Answer, Call, Current, Handler, not_found
from control_plane.admin.operations import FORM, JSON, Operation
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Writes
from control_plane.entities.fields import Record
from control_plane.entities.service_settings import COLLECTION, SERVICE_SETTINGS, complete, with_upstream_ids
from control_plane.entities.types import EntityBody
from control_plane.store import editor
from control_plane.store.contract import Transaction

VERBS = {
    "preview": "requests that carry the operator's mark",
    "mirror": "copies of a share of the primary side's requests",
}


def mount(table: PathTable, writes: Writes) -> None:
    """Adds the path."""
    settings = ServiceSettings(writes)
    shown: dict[int, EntityBody | None] = {200: SERVICE_SETTINGS.answer_schema()}
    body: dict[str, EntityBody] = {JSON: {"type": "object"}, FORM: {"type": "object"}}
    table.add(
        "/fleet/services/{services}/settings",
        {"GET": settings.get, "PUT": settings.put, "PATCH": settings.patch, "DELETE": settings.delete},
        about={
            "GET": Operation(summary="Show our own settings of the service", answers=shown),
            "PUT": Operation(
                summary="Replace the service's own settings", body=body, answers=shown, writes=True, guarded=True
            ),
            "PATCH": Operation(
                summary="Change some of the service's own settings", body=body, answers=shown, writes=True, guarded=True
            ),
            "DELETE": Operation(summary="Go back to the defaults", answers={204: None}, writes=True, guarded=True),
        },
    )
    for field, what in VERBS.items():
        table.add(
            f"/fleet/services/{{services}}/{field}",
            {"PUT": settings.send(field), "DELETE": settings.send_no_more(field)},
            about={
                "PUT": Operation(
                    summary=f"Send {what} to an upstream", body=body, answers=shown, writes=True, guarded=True
                ),
                "DELETE": Operation(summary=f"Send no {what}", answers=shown, writes=True, guarded=True),
            },
        )


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The handlers; the variable segment is the service's id or name."""

    writes: Writes

    async def get(self, _call: Call, path: tuple[str, ...]) -> Answer:
        """The settings in force."""
        return found(await self.writes.store.read(_current(path)))

    async def patch(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Changes what is given."""
        return await self._write(call, path, merging=True)

    async def put(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Replaces all of them; what is not given goes back to its default."""
        return await self._write(call, path, merging=False)

    async def _write(self, call: Call, path: tuple[str, ...], *, merging: bool) -> Answer:
        return await self._put(call, path, await entity_body(call, SERVICE_SETTINGS.coerce), merging=merging)

    def send(self, field: str) -> Handler:
        """Make the handler that replaces one of the fields that send requests elsewhere."""
        record = SERVICE_SETTINGS.fields[field]
        assert isinstance(record, Record), "what sends requests elsewhere is a record"

        async def put(call: Call, path: tuple[str, ...]) -> Answer:
            given = await entity_body(call, lambda form: {**form, **_typed(record, form)})
            # Records are merged: what is not given must not be kept from before.
            return await self._put(call, path, {field: {**dict.fromkeys(record.fields), **given}}, merging=True)

        return put

    def send_no_more(self, field: str) -> Handler:
        """Make the handler that takes it back."""

        async def delete(call: Call, path: tuple[str, ...]) -> Answer:
            return await self._put(call, path, {field: None}, merging=True)

        return delete

    async def _put(self, call: Call, path: tuple[str, ...], body: EntityBody, *, merging: bool) -> Answer:
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            service_id = _find(tx, path[0])
            by_id = with_upstream_ids(body, lambda name: editor.resolver(tx)("upstreams", "name", name))
            given: EntityBody = {**by_id, "service": {"id": service_id}}
            if merging and tx.get(COLLECTION, service_id) is not None:
                return editor.update(tx, COLLECTION, service_id, given, now=now)
            return editor.upsert(tx, COLLECTION, service_id, given, now=now)

        return await self.writes.entity(call, work, current=_current(path))

    async def delete(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Goes back to the defaults."""

        def work(tx: Transaction) -> None:
            tx.delete(COLLECTION, _find(tx, path[0]))

        return await self.writes.entity(call, work, status=204, current=_current(path))


def _typed(record: Record, form: EntityBody) -> EntityBody:
    typed = record.coerced(form)
    return typed if isinstance(typed, dict) else {}


def _find(tx: Transaction, key: str) -> str:
    """The id of the service by id or name. Raises Refused (404)."""
    service = editor.lookup(tx, "services", key)
    if service is None:
        raise not_found()
    return str(service["id"])


def _current(path: tuple[str, ...]) -> Current:
    def current(tx: Transaction) -> Addressed | None:
        service_id = _find(tx, path[0])
        settings = tx.get(COLLECTION, service_id)
        return Addressed(COLLECTION, _defaults(service_id) if settings is None else complete(settings))

    return current


def _defaults(service_id: str) -> EntityBody:
    body: EntityBody = {"service": {"id": service_id}}
    made = SERVICE_SETTINGS.on_insert(body, now=1, resolve=lambda *_: None, entity_id=service_id)
    return {**made, "created_at": None, "updated_at": None}
