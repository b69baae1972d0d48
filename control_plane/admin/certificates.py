"""Certificates, which show the names of their SNIs as a list and may be addressed by any of these names.

The list is virtual: SNIs are entities of their own, and this module keeps them as the list says, in the same unit of
work as the certificate. A list given replaces what there was; no list leaves it alone in a PATCH and empties it in a
PUT, as in Kong (spec/admin-api.md section 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import override

from control_plane.admin.bodies import entity_body
from control_plane.admin.collections import NestedEntity, ParentOf, entity_methods, found, keyset_page
from control_plane.admin.messages import Addressed, Answer, Call, Current, Refused, not_found
from control_plane.admin.operations import about_collection, about_entity, about_parent
from control_plane.admin.paging import decode_id, page_size, tag_filter
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Writes
from control_plane.entities.errors import NotFound, SchemaViolation
from control_plane.entities.fields import is_uuid
from control_plane.entities.schema import Schema, foreign_id
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store import editor
from control_plane.store.contract import Transaction

CERTIFICATES = "certificates"
SNIS = "snis"
SNI_FIELD = "certificate"
PORTION = 1_000


def mount(table: PathTable, schemas: Mapping[str, Schema], writes: Writes) -> None:
    """Adds the paths of certificates, of what refers to them, and from there to them."""
    flat = Certificates(schemas[CERTIFICATES], writes)
    place = "/certificates/{certificates}"
    own = schemas[CERTIFICATES]
    table.add("/certificates", {"GET": flat.list_page, "POST": flat.create}, about=about_collection(own))
    table.add(
        place,
        {"GET": flat.get, "PUT": flat.put, "PATCH": flat.patch, "DELETE": flat.delete},
        about=about_entity(own),
    )
    for collection, schema in schemas.items():
        for name, foreign in schema.foreign_fields.items():
            if foreign.collection != CERTIFICATES:
                continue
            nested = NestedEntity(schema, name, foreign, writes, find_parent=_certificate)
            below = f"{place}/{collection}"
            about = about_collection(schema, below=own)
            table.add(below, {"GET": nested.list_page, "POST": nested.create}, about=about)
            table.add(f"{below}/{{{collection}}}", entity_methods(nested), about=about_entity(schema, below=own))
            if collection != SNIS:  # Kong shows no certificate by way of its SNI
                owner = CertificateOf(schema, name, schemas[CERTIFICATES], writes)
                table.add(
                    f"/{collection}/{{{collection}}}/{name}", entity_methods(owner), about=about_parent(own, name)
                )


@dataclass(frozen=True, slots=True)
class Certificates:
    """`/certificates` and `/certificates/{id or SNI}`."""

    schema: Schema
    writes: Writes

    async def list_page(self, call: Call, _: tuple[str, ...]) -> Answer:
        """A page by ascending id."""
        size, after, tags = page_size(call), decode_id(call), tag_filter(call)

        def work(tx: Transaction) -> list[EntityBody]:
            rows = tx.page(CERTIFICATES, size=size + 1, after=after, tags=tags)
            return [_shown(tx, row) for row in rows]

        return keyset_page(call, await self.writes.store.read(work), size, keep=("tags", "size"))

    async def create(self, call: Call, _: tuple[str, ...]) -> Answer:
        """A new certificate with its SNIs."""
        body = await entity_body(call, self.schema.coerce)
        now = self.writes.now()
        return await self.writes.entity(call, lambda tx: create(tx, body, now=now), status=201)

    async def get(self, call: Call, path: tuple[str, ...]) -> Answer:
        """The certificate."""
        return found(
            await self.writes.store.read(lambda tx: Addressed(CERTIFICATES, _shown(tx, _existing(tx, path[0]))))
        )

    async def put(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Creates or replaces it, and its SNIs."""
        (key,) = path
        body = await entity_body(call, self.schema.coerce)
        now = self.writes.now()
        return await self.writes.entity(call, lambda tx: upsert(tx, key, body, now=now), current=_current(key))

    async def patch(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Merges into it; a list of SNIs replaces the former one."""
        (key,) = path
        body = await entity_body(call, self.schema.coerce)
        now = self.writes.now()
        return await self.writes.entity(
            call, lambda tx: update(tx, str(_existing(tx, key)["id"]), body, now=now), current=_current(key)
        )

    async def delete(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Removes it with its SNIs; an id that is not there is as good as removed."""
        (key,) = path

        def work(tx: Transaction) -> None:
            if is_uuid(key):
                editor.delete(tx, CERTIFICATES, key)
            else:
                editor.delete(tx, CERTIFICATES, str(_existing(tx, key)["id"]))

        return await self.writes.entity(call, work, status=204, current=_current(key))


@dataclass(frozen=True, slots=True)
class CertificateOf(ParentOf):
    """`/services/{s}/client_certificate` and its like: the same certificate, with its SNIs as everywhere."""

    @override
    async def get(self, call: Call, path: tuple[str, ...]) -> Answer:
        return found(
            await self.writes.store.read(
                lambda tx: Addressed(CERTIFICATES, _shown(tx, _existing(tx, self._linked(tx, path[0]))))
            )
        )

    @override
    async def put(self, call: Call, path: tuple[str, ...]) -> Answer:
        (key,) = path
        body = await entity_body(call, self.parent.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            child = self._child(tx, key)
            certificate_id = self._link(child)
            if certificate_id is not None:
                return upsert(tx, certificate_id, body, now=now)
            made = create(tx, body, now=now)
            link: EntityBody = {self.field: {"id": made["id"]}}
            editor.update(tx, self.schema.collection, str(child["id"]), link, now=now)
            return made

        return await self.writes.entity(call, work, current=self._current(path))

    @override
    async def patch(self, call: Call, path: tuple[str, ...]) -> Answer:
        (key,) = path
        body = await entity_body(call, self.parent.coerce)
        now = self.writes.now()
        return await self.writes.entity(
            call, lambda tx: update(tx, self._linked(tx, key), body, now=now), current=self._current(path)
        )

    @override
    def _current(self, path: tuple[str, ...]) -> Current:
        def current(tx: Transaction) -> Addressed | None:
            certificate_id = self._link(self._child(tx, path[0]))
            return None if certificate_id is None else _current(certificate_id)(tx)

        return current

    def _linked(self, tx: Transaction, key: str) -> str:
        certificate_id = self._link(self._child(tx, key))
        if certificate_id is None:
            raise not_found()
        return certificate_id


def create(tx: Transaction, body: EntityBody, *, now: float) -> EntityBody:
    """Insert a certificate and the SNIs it lists; returns it as it is shown."""
    names = _listed(tx, body, owner=None)
    made = editor.create(tx, CERTIFICATES, body, now=now)
    _become(tx, str(made["id"]), names or [], now=now)
    return _shown(tx, made)


def upsert(tx: Transaction, key: str, body: EntityBody, *, now: float) -> EntityBody:
    """Put a certificate in the place of the one with that id or SNI, or create it.

    The SNIs listed are all it has afterwards. An SNI in the URL joins the list if there is one; else it is not made.
    """
    certificate_id = key
    if not is_uuid(key):
        sni = _sni(tx, key)
        if isinstance(body.get("snis"), list):
            listed = [*body["snis"]] if isinstance(body["snis"], list) else []
            if key not in listed:
                listed.append(key)
            body = {**body, "snis": listed}
        if sni is None:
            return create(tx, body, now=now)
        certificate_id = str(foreign_id(sni[SNI_FIELD]))
    names = _listed(tx, body, owner=certificate_id.lower())
    made = editor.upsert(tx, CERTIFICATES, certificate_id, body, now=now)
    _become(tx, str(made["id"]), names or [], now=now)
    return _shown(tx, made)


def update(tx: Transaction, certificate_id: str, patch: EntityBody, *, now: float) -> EntityBody:
    """Merge into a certificate; a list of SNIs replaces the former one, null empties it. Raises NotFound."""
    names = _listed(tx, patch, owner=certificate_id)
    made = editor.update(tx, CERTIFICATES, certificate_id, patch, now=now)
    if "snis" in patch:
        _become(tx, str(made["id"]), names or [], now=now)
    return _shown(tx, made)


def _current(key: str) -> Current:
    """What the path with that id or SNI leads to; None where there is nothing yet, which a PUT may create."""

    def current(tx: Transaction) -> Addressed | None:
        try:
            held = _certificate(tx, key)
        except Refused:
            return None
        return None if held is None else Addressed(CERTIFICATES, _shown(tx, held))

    return current


def _existing(tx: Transaction, key: str) -> EntityBody:
    """The certificate by id or SNI; raises NotFound for an id and Refused (404) for an SNI that is not there."""
    found = _certificate(tx, key)
    if found is None:
        raise NotFound({"id": key.lower()})
    return found


def _certificate(tx: Transaction, key: str) -> EntityBody | None:
    if is_uuid(key):
        return tx.get(CERTIFICATES, key.lower())
    sni = _sni(tx, key)
    if sni is None:
        raise Refused(404, "SNI not found")
    return tx.get(CERTIFICATES, str(foreign_id(sni[SNI_FIELD])))


def _sni(tx: Transaction, name: str) -> EntityBody | None:
    return editor.lookup(tx, SNIS, name)


def _listed(tx: Transaction, body: EntityBody, *, owner: str | None) -> list[str] | None:
    """The names in a body's list, which no other certificate than `owner` may have; None = no list to go by.

    Raises InvalidUnique for what could never be an SNI and SchemaViolation for one that is taken or said twice.
    """
    given = body.get("snis")
    if not isinstance(given, list):
        return None  # absent, null, or for the schema to refuse
    names = [name for name in given if isinstance(name, str) and name]
    for position, name in enumerate(names):
        if name in names[:position]:
            raise SchemaViolation({"snis": f"{name} is duplicated"})
        sni = None if is_uuid(name) else _sni(tx, name)
        holder = None if sni is None else foreign_id(sni[SNI_FIELD])
        if holder is not None and holder != owner:
            raise SchemaViolation({"snis": f"{name} already associated with existing certificate '{holder}'"})
    return names


def _become(tx: Transaction, certificate_id: str, names: list[str], *, now: float) -> None:
    """Makes the names the certificate's SNIs: what is missing is created, what is too much goes, the rest stays."""
    held = {str(sni["name"]): sni for sni in _snis(tx, certificate_id)}
    for name, sni in held.items():
        if name not in names:
            tx.delete(SNIS, str(sni["id"]))
    parent = editor.Parent(SNI_FIELD, CERTIFICATES, certificate_id)
    for name in names:
        if name not in held:
            editor.create(tx, SNIS, {"name": name}, now=now, parent=parent)


def _snis(tx: Transaction, certificate_id: str) -> list[EntityBody]:
    rows: list[EntityBody] = []
    while True:
        after = str(rows[-1]["id"]) if rows else ""
        more = tx.page(SNIS, size=PORTION, after=after, parent=(SNI_FIELD, certificate_id))
        rows.extend(more)
        if len(more) < PORTION:
            return rows


def _shown(tx: Transaction, body: EntityBody) -> EntityBody:
    names: list[JsonValue] = [*sorted(str(sni["name"]) for sni in _snis(tx, str(body["id"])))]
    return {**body, "snis": names}
