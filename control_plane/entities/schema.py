"""The engine: one schema an entity, from which everything else about that entity is derived.

The Admin API's paths, the validation, `/schemas/...`, OpenAPI and the declarative loader all read the same `Schema`.
Its methods take what a client sent and return the complete entity, or raise one error that names all that is wrong.
They know no database: foreign keys given by name are resolved by a function the caller passes in, and whether an id
exists is the store's to say.
"""

from __future__ import annotations

import secrets
import string
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from control_plane.entities.checks import Check, Problems
from control_plane.entities.errors import ForeignKeysUnresolved, InvalidUnique, SchemaViolation
from control_plane.entities.fields import Field, Foreign, Lifetime, Record, String, is_uuid
from control_plane.entities.types import EntityBody, JsonValue

Resolve = Callable[[str, str, str], str | None]
"""(collection, unique field, value) -> id of the entity with that value."""


_ALPHABET = string.ascii_letters + string.digits

REDACTED = "******"
"""What stands where a secret is not shown; Kong masks its settings so."""


class OnDelete(StrEnum):
    """What happens to an entity when the one it refers to is to be deleted."""

    RESTRICT = "restrict"
    CASCADE = "cascade"


@dataclass(frozen=True, slots=True)
class ForeignField:
    """A foreign field as the store and the Admin API need it."""

    name: str
    collection: str
    on_delete: OnDelete
    required: bool
    nested: bool = True  # in a file, inside the entity that it refers to


def _whatever_it_is(_collection: str, _field: str, _value: str) -> str:
    return str(uuid.UUID(int=0))


class Schema:
    """What is known of one kind of entity.

    `prepare` changes a client's body before anything else (shorthands, normalising); it may raise a SchemaViolation,
    which is then the only thing reported. `settle` completes the filled entity where a default depends on other fields
    and raises when the entity's sub-type cannot be told; it puts values in the place of others and alters none. `vary`
    gives the fields that the sub-type has in place of the general ones: the `config` of a plugin by its name.
    `foreign_keys` maps a collection to the unique fields by which it may be referred to. `transient` fields are checked
    and then dropped: others keep what they say. `transform` computes fields of an entity that has been found right; it
    is told which fields the client gave. `nulls_count` are unique keys in which null is a value like others.
    `shorthands` are fields that a body may have and an entity has not, with what stands for them in OpenAPI.
    """

    def __init__(
        self,
        *,
        collection: str,
        singular: str,
        fields: Mapping[str, Field],
        endpoint_key: str | None,
        unique_together: Sequence[tuple[str, ...]] = (),
        checks: Sequence[Check] = (),
        prepare: Callable[[EntityBody], EntityBody] | None = None,
        settle: Callable[[EntityBody, frozenset[str]], None] | None = None,
        vary: Callable[[EntityBody], Mapping[str, Field]] | None = None,
        foreign_keys: Mapping[str, tuple[str, ...]] | None = None,
        fractional_seconds: bool = False,
        transient: Sequence[str] = (),
        transform: Callable[[EntityBody, Collection[str]], None] | None = None,
        recognised_by: str = "",
        path: str = "",
        nulls_count: Sequence[tuple[str, ...]] = (),
        put_is_patch: bool = False,
        shorthands: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self.collection = collection
        self.path = path or collection
        """The collection's name in the Admin API's paths: `key-auths` for `keyauth_credentials`."""
        self.singular = singular
        self.fields = dict(fields)
        self.endpoint_key = endpoint_key
        self.put_is_patch = put_is_patch
        self.nulls_count = frozenset(nulls_count)
        self.unique_keys: tuple[tuple[str, ...], ...] = (
            *((name,) for name, definition in fields.items() if definition.unique),
            *unique_together,
        )
        self.foreign_fields: Mapping[str, ForeignField] = {
            name: ForeignField(
                name,
                definition.collection,
                OnDelete.CASCADE if definition.cascade else OnDelete.RESTRICT,
                definition.required,
                definition.nested,
            )
            for name, definition in fields.items()
            if isinstance(definition, Foreign)
        }
        self._generated = tuple(
            name for name, definition in fields.items() if isinstance(definition, String) and definition.random
        )
        self.lifetimes = tuple(name for name, definition in fields.items() if isinstance(definition, Lifetime))
        """Fields that end an entity; kept as the time of the end."""
        self._shorthands = shorthands or {}
        self._only_when_set = tuple(name for name, definition in fields.items() if definition.only_when_set)
        self._checks = tuple(checks)
        self._prepare = prepare
        self._settle = settle
        self._vary = vary
        self._foreign_keys = foreign_keys or {}
        self._fractional_seconds = fractional_seconds
        self._transient = tuple(transient)
        self._transform = transform
        self.recognised_by = recognised_by
        """The field by which a file's nameless entity is the same as one of the store; empty = by its id only."""
        self._sound = frozenset(
            name for name, definition in fields.items() if definition.problem(definition.missing()) is None
        )
        """Fields whose defaults are known to be right."""
        blank = {name: definition.missing() for name, definition in fields.items()}
        self._made_anew = tuple(name for name, default in blank.items() if isinstance(default, list | dict))
        self._plain: EntityBody = {name: None if name in self._made_anew else value for name, value in blank.items()}
        """Every field with its default where that can be shared; the others' are made for each entity."""
        self.secrets: Mapping[str, str] = {
            name: definition.private_to
            for name, definition in fields.items()
            if isinstance(definition, String) and definition.private_to
        }
        """Fields that only the entity's own pages show, with the field that each belongs to."""

    def on_insert(
        self,
        body: EntityBody,
        *,
        now: float,
        resolve: Resolve,
        entity_id: str | None = None,
        as_stored: Collection[str] = (),
    ) -> EntityBody:
        """Return the complete new entity. Its id is `entity_id`, else the body's, else a fresh one.

        Fields in `as_stored` come from a store, not from a client: a password among them is a hash already.
        """
        prepared = dict(body) if self._prepare is None else self._prepare(dict(body))
        given = frozenset(prepared)
        fields = self._fields_of(prepared)
        defaults = self._defaults(fields, given)
        filled: EntityBody = {
            name: fields[name].filled(prepared[name]) if name in prepared else value for name, value in defaults.items()
        }
        filled.update((name, value) for name, value in prepared.items() if name not in self.fields)
        if filled.get("id") is None:
            filled["id"] = entity_id or str(uuid.uuid4())
        if filled.get("created_at") is None:
            filled["created_at"] = self.timestamp(now)
        for name in self._generated:
            if filled[name] is None:
                filled[name] = random_text()
        if "updated_at" in self.fields:
            filled["updated_at"] = self.timestamp(now)
        self._resolve_foreign(filled, resolve)
        if self._settle is not None:
            self._settle(filled, given)
        ends = {name: filled.pop(name) for name in self.lifetimes if name in as_stored}
        if self._vary is None:
            taken = {name: defaults[name] for name in self._sound if name not in given}
            self._refuse_problems(filled, Problems(), fields, taken=taken)
        else:
            self._refuse_problems(filled, Problems(), fields)
        if entity_id is not None:
            filled["id"] = entity_id
        return self._as_kept({**filled, **ends}, given - set(as_stored), now=now)

    def on_upsert(
        self, body: EntityBody, *, now: float, resolve: Resolve, entity_id: str, as_stored: Collection[str] = ()
    ) -> EntityBody:
        """Return the entity that takes the place of the one with `entity_id`: nothing of that one is kept."""
        return self.on_insert(body, now=now, resolve=resolve, entity_id=entity_id, as_stored=as_stored)

    def on_update(self, current: EntityBody, patch: EntityBody, *, now: float, resolve: Resolve) -> EntityBody:
        """Return the current entity with the patch merged in; records are merged field by field."""
        prepared = dict(patch) if self._prepare is None else self._prepare(dict(patch))
        fields = self._fields_of({**current, **prepared})
        merged = _merged(current, prepared, fields)
        filled: EntityBody = {
            name: fields[name].filled(value) if name in fields else value for name, value in merged.items()
        }
        for name, definition in fields.items():
            if name not in filled:
                filled[name] = definition.missing()
        for name in ("id", "created_at"):
            if filled[name] is None:
                filled[name] = current[name]
        if "updated_at" in self.fields:
            filled["updated_at"] = self.timestamp(now)
        ends = {name: filled.pop(name) for name in self.lifetimes if name not in prepared}
        self._resolve_foreign(filled, resolve)
        if self._settle is not None:
            self._settle(filled, frozenset(filled))
        self._refuse_problems(filled, Problems(updating=True), fields)
        filled["id"] = current["id"]
        return self._as_kept({**filled, **ends}, frozenset(prepared), now=now)

    def shown(self, body: EntityBody, *, now: float) -> EntityBody:
        """Return a stored entity as its readers see it: what is kept as an end is shown as the seconds until then."""
        if not any(body.get(name) is not None for name in self.lifetimes):
            return body
        return {
            name: max(0, value - int(now)) if name in self.lifetimes and isinstance(value, int) else value
            for name, value in body.items()
        }

    @property
    def shown_as_kept(self) -> bool:
        """Whether readers may be handed the very text that is kept: nothing in it is secret or changes with time."""
        return not self.secrets and not self.lifetimes

    def expired(self, body: EntityBody, *, now: float) -> bool:
        """Tell whether an entity's time is over; it is then as good as deleted."""
        return any(isinstance(end := body.get(name), int) and end <= now for name in self.lifetimes)

    def validate(self, body: EntityBody, *, now: float) -> None:
        """Raise what an insert of `body` would, but for all that needs the store."""
        self.on_insert(body, now=now, resolve=_whatever_it_is)

    def check_key(self, value: str) -> None:
        """Raise InvalidUnique when a key in a URL could never name an entity of this kind."""
        if self.endpoint_key is None:
            return
        problem = self.fields[self.endpoint_key].problem(value)
        if problem is not None:
            raise InvalidUnique(self.endpoint_key, str(problem))

    @property
    def varies(self) -> bool:
        """Whether the type of some fields hangs on the value of others."""
        return self._vary is not None

    def coerce(self, form: EntityBody, *, over: EntityBody | None = None) -> EntityBody:
        """Return a decoded form with its texts typed as the fields are; what does not fit stays text.

        `over` is the entity that the form is a patch of: it says of which sub-type a form is that does not.
        """
        fields = self._fields_of(form if over is None else {**over, **form})
        return {name: fields[name].coerced(value) if name in fields else value for name, value in form.items()}

    def document(self) -> EntityBody:
        """Return the body of `GET /schemas/{collection}`."""
        return {
            "fields": [
                {name: definition.document()}
                for name, definition in self.fields.items()
                if not definition.only_when_set
            ],
            "entity_checks": [dict(check.facts) for check in self._checks if check.facts],
        }

    def json_schema(self) -> EntityBody:
        """Return the entity as JSON Schema (draft 2020-12), for OpenAPI."""
        required = [
            name
            for name, definition in self.fields.items()
            if definition.required and not definition.has_default and not isinstance(definition, Record)
        ]
        properties: EntityBody = {name: definition.json_schema() for name, definition in self.fields.items()}
        described: EntityBody = {"type": "object", "properties": properties, "additionalProperties": False}
        if not self._shorthands:
            return {**described, "required": list(required)}
        either: list[JsonValue] = [{"required": [*required]}]
        either += [{"required": [name]} for name in self._shorthands]
        return {**described, "properties": {**properties, **self._shorthands}, "anyOf": either}

    def patch_schema(self) -> EntityBody:
        """Return what a PATCH of the entity may hold as JSON Schema: any of its fields, none of them needed."""
        whole = self.json_schema()
        return {"type": "object", "properties": whole["properties"], "additionalProperties": False}

    def answer_schema(self) -> EntityBody:
        """Return the JSON Schema of an entity in an answer: every field stands in it."""
        return {
            "type": "object",
            "properties": {name: definition.json_schema() for name, definition in self.fields.items()},
            "required": [name for name, definition in self.fields.items() if not definition.only_when_set],
            "additionalProperties": False,
        }

    def redacted(self, body: EntityBody) -> EntityBody:
        """Return the entity with its secrets masked, for everybody but readers of the entity itself."""
        if not any(body.get(name) is not None for name in self.secrets):
            return body
        return {name: REDACTED if name in self.secrets and value is not None else value for name, value in body.items()}

    def timestamp(self, now: float) -> int | float:
        """Return a time as this kind of entity keeps it: whole seconds, or milliseconds as a fraction."""
        return round(now, 3) if self._fractional_seconds else int(now)

    def _resolve_foreign(self, entity: EntityBody, resolve: Resolve) -> None:
        unresolved: dict[str, tuple[str, str, str]] = {}
        for name, foreign in self.foreign_fields.items():
            value = entity.get(name)
            if not isinstance(value, dict) or value.get("id") is not None:
                continue
            for key in self._foreign_keys.get(foreign.collection, ()):
                wanted = value.get(key)
                if isinstance(wanted, str):
                    found = resolve(foreign.collection, key, wanted)
                    if found is None:
                        unresolved[name] = (key, wanted, foreign.collection)
                    else:
                        entity[name] = {"id": found}
                    break
        if unresolved:
            raise ForeignKeysUnresolved(unresolved)

    def _as_kept(self, entity: EntityBody, given: Collection[str], *, now: float) -> EntityBody:
        """Return a checked entity in the form in which it is kept."""
        if self._transform is not None:
            self._transform(entity, given)
        for name in self.lifetimes:
            seconds = entity[name]
            if name in given and isinstance(seconds, int):
                entity[name] = int(now) + seconds
        for name in self._transient:
            entity.pop(name, None)
        for name in self._only_when_set:
            if entity[name] is None:
                del entity[name]
        return entity

    def _fields_of(self, entity: EntityBody) -> Mapping[str, Field]:
        return self.fields if self._vary is None else {**self.fields, **self._vary(entity)}

    def _defaults(self, fields: Mapping[str, Field], given: Collection[str]) -> EntityBody:
        """Return all fields in their order, with what stands in each for which nothing is given."""
        if fields is not self.fields:
            return {name: definition.missing() for name, definition in fields.items()}
        defaults = dict(self._plain)
        for name in self._made_anew:
            if name not in given:
                defaults[name] = fields[name].missing()
        return defaults

    def _refuse_problems(
        self, entity: EntityBody, problems: Problems, fields: Mapping[str, Field], *, taken: EntityBody | None = None
    ) -> None:
        """Raises what is wrong. `taken` are defaults that are known to be right: most of an entity, as a rule."""
        taken = taken or {}
        for name, value in entity.items():
            definition = fields.get(name)
            if name in taken and taken[name] is value:
                continue
            problem = "unknown field" if definition is None else definition.problem(value)
            if problem is not None:
                problems.fields[name] = problem
        for check in self._checks:
            check.run(entity, problems)
        if problems.fields or problems.entity:
            raise SchemaViolation(problems.tree())


def random_text() -> str:
    """Return 32 random letters and digits, about 190 bits: what a key is when the client gives none."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(32))


def _merged(current: EntityBody, patch: EntityBody, fields: Mapping[str, Field]) -> EntityBody:
    merged = dict(current)
    for name, value in patch.items():
        definition = fields.get(name)
        before = current.get(name)
        if isinstance(definition, Record) and value == []:
            value = {}
        if isinstance(definition, Record) and isinstance(value, dict) and isinstance(before, dict):
            merged[name] = _merged(before, value, definition.fields)
        else:
            merged[name] = value
    return merged


def foreign_id(value: JsonValue) -> str | None:
    """Return the id inside a foreign field's value, None when it is empty."""
    if isinstance(value, dict):
        entity_id = value.get("id")
        return entity_id if isinstance(entity_id, str) and is_uuid(entity_id) else None
    return None
