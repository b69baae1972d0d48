"""The store as a declarative file, in decK's form and order.

Deterministic: keys alphabetical, lists by name, one text for one state. `dump` then `sync` changes nothing, which
asks for one departure from decK: a null is written out where leaving it away would mean a default instead.

Private keys are left out unless asked for, because dumps end up in repositories. `dump` then `sync` still changes
nothing: a certificate that the file names without a key keeps the key that the store has. Into another store such a
file is refused, at the certificate whose key is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from control_plane.declarative.document import FORMAT_VERSION
from control_plane.declarative.own_settings import SECTION, dump_section
from control_plane.declarative.state import has_tags, name_of, shown_name
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.schema import Schema, foreign_id
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Transaction

_LEFT_OUT = frozenset({"cert_digest", "created_at", "id", "updated_at"})  # the store makes them

_HASHED = frozenset({"basicauth_credentials", "oauth2_credentials"})


def dump(
    tx: Transaction, *, select_tags: Sequence[str] = (), with_ids: bool = False, with_keys: bool = False
) -> EntityBody:
    """The entities that carry all of the tags, as a file that `sync` reads back to the same state.

    Children are nested in their parents; one whose parent is not part of the dump stands at the top level and names
    it. Ids are left out of entities that have a name, unless `with_ids`. The tags selected by are in `_info` and not
    repeated on each entity, since reading the file puts them back. `with_keys` = private keys stand in it.
    """
    return _Dump(tx, select_tags=select_tags, with_ids=with_ids, with_keys=with_keys).file()


class _Dump:
    def __init__(self, tx: Transaction, *, select_tags: Sequence[str], with_ids: bool, with_keys: bool) -> None:
        self._tx = tx
        self._tags = tuple(select_tags)
        self._with_ids = with_ids
        self._with_keys = with_keys
        self._all: dict[str, dict[str, EntityBody]] = {
            collection: {str(body["id"]): body for body in tx.each(collection)} for collection in SCHEMAS
        }

    def file(self) -> EntityBody:
        top: dict[str, list[EntityBody]] = {}
        forms: dict[tuple[str, str], EntityBody] = {}
        for collection, schema in SCHEMAS.items():
            defaults = {name: field.missing() for name, field in schema.fields.items()}
            chosen = [body for body in self._all[collection].values() if has_tags(body, self._tags)]
            chosen.sort(key=lambda body: _order(schema, body))
            for body in chosen:
                form = self._form(schema, body, defaults)
                forms[collection, str(body["id"])] = form
                holder = self._holder(schema, body, form, forms)
                if holder is None:
                    top.setdefault(collection, []).append(form)
                else:
                    nested = holder.setdefault(collection, [])
                    assert isinstance(nested, list)
                    nested.append(form)
        document: EntityBody = {"_format_version": FORMAT_VERSION}
        if self._with_keys and any(collection in _HASHED for collection, _ in forms):
            document["_transform"] = False  # read back, their hashes are not hashed again
        if self._tags:
            document["_info"] = {"defaults": {}, "select_tags": list(self._tags)}
        dumped = {
            owners: {key: body for key, body in self._all[owners].items() if (owners, key) in forms}
            for owners in ("upstreams", "services")
        }
        settings = dump_section(self._tx, dumped, targets=self._all["targets"], upstreams=self._all["upstreams"])
        if settings is not None:
            document[SECTION] = settings
        for collection in sorted(top):
            document[collection] = list(top[collection])
        return document

    def _form(self, schema: Schema, body: EntityBody, defaults: Mapping[str, JsonValue]) -> EntityBody:
        form = _without_nulls(body, defaults)
        for name in (*_LEFT_OUT, *schema.lifetimes):
            form.pop(name, None)
        if not self._with_keys:
            for name in schema.secrets:
                form.pop(name, None)
        if self._with_ids or not (name_of(schema, body) if self._with_keys else shown_name(schema, body)):
            form["id"] = body["id"]
        tags = form.get("tags")
        if self._tags and isinstance(tags, list):
            rest = [tag for tag in tags if tag not in self._tags]
            if rest:
                form["tags"] = rest
            else:
                del form["tags"]
        for name, foreign in schema.foreign_fields.items():
            parent_id = foreign_id(body.get(name))
            if parent_id is not None:
                form[name] = self._reference(foreign.collection, parent_id)
        return form

    def _reference(self, collection: str, entity_id: str) -> EntityBody:
        parent = self._all[collection].get(entity_id) if collection in self._all else None
        name = name_of(SCHEMAS[collection], parent) if parent is not None else ""
        key = SCHEMAS[collection].endpoint_key if name else None
        return {key: name} if key is not None and not self._with_ids else {"id": entity_id}

    def _holder(
        self, schema: Schema, body: EntityBody, form: EntityBody, forms: Mapping[tuple[str, str], EntityBody]
    ) -> EntityBody | None:
        """The parent's form that this entity is nested in; the nesting then stands for the foreign field."""
        for name, foreign in schema.foreign_fields.items():
            parent_id = foreign_id(body.get(name)) if foreign.nested else None
            holder = forms.get((foreign.collection, parent_id)) if parent_id is not None else None
            if holder is not None:
                del form[name]
                return holder
        return None


def _order(schema: Schema, body: EntityBody) -> tuple[bool, str, str]:
    """Named entities by name, then the nameless ones by id."""
    name = name_of(schema, body)
    return (not name, name, str(body["id"]))


def _without_nulls(body: EntityBody, defaults: Mapping[str, JsonValue]) -> EntityBody:
    """The body without the nulls that mean the same as absence. Those of a field with a default do not."""
    form: EntityBody = {}
    for name, value in body.items():
        default = defaults.get(name)
        if isinstance(value, dict):
            form[name] = _without_nulls(value, default if isinstance(default, dict) else {})
        elif value is not None or default is not None:
            form[name] = value
    return form
