"""What can be wrong with a request about entities, as data.

One class a code of Kong's error object; the texts are Kong's, because clients and tests compare them. How an error
becomes an HTTP status is the Admin API's matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from control_plane.entities.types import EntityBody, JsonValue

ENTITY = "@entity"
"""The key under which problems of the entity as a whole are listed."""


def literal(value: JsonValue, *, indent: int | None = None, _depth: int = 1) -> str:
    """Write a value as Kong prints it inside messages: a Lua table with sorted keys, compact or indented."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        parts = [literal(item, indent=indent, _depth=_depth + 1) for item in value]
    else:
        equals = "=" if indent is None else " = "
        parts = [
            f"{key}{equals}{literal(item, indent=indent, _depth=_depth + 1)}" for key, item in sorted(value.items())
        ]
    if indent is None:
        return "{" + ",".join(parts) + "}"
    inner = " " * (indent * _depth)
    return "{\n" + ",\n".join(inner + part for part in parts) + "\n" + " " * (indent * (_depth - 1)) + "}"


_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def _without_keys(text: str) -> str:
    """The text without any private key: errors quote what they are about, and a key may stand in the wrong field."""
    return _PRIVATE_KEY.sub("(a private key)", text) if "PRIVATE KEY" in text else text


def _tree_without_keys(problem: JsonValue) -> JsonValue:
    if isinstance(problem, str):
        return _without_keys(problem)
    if isinstance(problem, list):
        return [_tree_without_keys(item) for item in problem]
    if isinstance(problem, dict):
        return {name: _tree_without_keys(item) for name, item in problem.items()}
    return problem


class EntityError(Exception):
    """An error object: `code`, `name` fixed per code, `message`, and `fields` or `options` where there are any."""

    code: int
    name: str

    def __init__(
        self,
        message: str,
        *,
        fields: Mapping[str, JsonValue] | None = None,
        options: Mapping[str, JsonValue] | None = None,
    ) -> None:
        message = _without_keys(message)
        super().__init__(message)
        self.message = message
        self.fields: EntityBody | None = (
            {name: _tree_without_keys(problem) for name, problem in fields.items()} if fields is not None else None
        )
        self.options: EntityBody | None = dict(options) if options is not None else None

    def to_json(self) -> EntityBody:
        """Return the object as the Admin API answers it."""
        body: EntityBody = {"code": self.code, "name": self.name, "message": self.message}
        if self.fields is not None:
            body["fields"] = self.fields
        if self.options is not None:
            body["options"] = self.options
        return body


class InvalidPrimaryKey(EntityError):
    """The id in the URL is no UUID."""

    code, name = 1, "invalid primary key"

    def __init__(self, why: str = "expected a valid UUID") -> None:
        super().__init__(f"""invalid primary key: '{literal({"id": why})}'""", fields={"id": why})


class SchemaViolation(EntityError):
    """The entity breaks its schema; `fields` mirrors the entity, with `@entity` for problems of the whole."""

    code, name = 2, "schema violation"

    def __init__(self, fields: Mapping[str, JsonValue]) -> None:
        fragments = list(_fragments(fields))
        joined = "; ".join(fragments)
        message = (
            f"schema violation ({joined})" if len(fragments) == 1 else f"{len(fragments)} schema violations ({joined})"
        )
        super().__init__(message, fields=fields)


def _fragments(fields: Mapping[str, JsonValue]) -> Iterable[str]:
    whole = fields.get(ENTITY, [])
    assert isinstance(whole, list)
    yield from (str(text) for text in whole)
    for field, problem in sorted(fields.items()):
        if field == ENTITY:
            continue
        if isinstance(problem, dict):
            yield from (f"{field}.{key}: {_text(inner)}" for key, inner in sorted(problem.items()))
        elif isinstance(problem, list):
            yield from (f"{field}.{at}: {_text(inner)}" for at, inner in enumerate(problem, 1) if inner is not None)
        else:
            yield f"{field}: {problem}"


def _text(problem: JsonValue) -> str:
    return problem if isinstance(problem, str) else literal(problem, indent=2)


class PrimaryKeyViolation(EntityError):
    """An entity with this id exists already."""

    code, name = 3, "primary key violation"

    def __init__(self, entity_id: str) -> None:
        super().__init__(f"""primary key violation on key '{literal({"id": entity_id})}'""", fields={"id": entity_id})


class ForeignKeyViolation(EntityError):
    """A foreign field names an entity that does not exist."""

    code, name = 4, "foreign key violation"

    def __init__(self, field: str, collection: str, key: Mapping[str, JsonValue]) -> None:
        super().__init__(
            f"the foreign key '{literal(dict(key))}' does not reference an existing '{collection}' entity.",
            fields={field: dict(key)},
        )


class ReferencedByOthers(EntityError):
    """The entity cannot go while others refer to it."""

    code, name = 4, "foreign key violation"

    def __init__(self, collection: str, referenced_by: str) -> None:
        super().__init__(
            f"an existing '{referenced_by}' entity references this '{collection}' entity",
            fields={"@referenced_by": referenced_by},
        )


class UniqueViolation(EntityError):
    """Another entity has this unique key; `values` holds all its parts, foreign ones as `{"id": ...}`."""

    code, name = 5, "unique constraint violation"

    def __init__(self, values: Mapping[str, JsonValue]) -> None:
        super().__init__(f"UNIQUE violation detected on '{literal(dict(values))}'", fields=values)


class NotFound(EntityError):
    """No entity has this key."""

    code, name = 6, "not found"

    def __init__(self, key: Mapping[str, JsonValue]) -> None:
        what = "primary key " if "id" in key else ""
        super().__init__(f"could not find the entity with {what}'{literal(dict(key))}'", fields=key)


class InvalidOffset(EntityError):
    """The paging token is none of ours."""

    code, name = 7, "invalid offset"

    def __init__(self, offset: str, why: str) -> None:
        super().__init__(f"'{offset}' is not a valid offset: {why}")


class InvalidSize(EntityError):
    """The page size is out of range."""

    code, name = 9, "invalid size"

    def __init__(self, message: str) -> None:
        super().__init__(message)


class InvalidUnique(EntityError):
    """The key in the URL could never be one."""

    code = 10

    def __init__(self, field: str, why: str) -> None:
        self.name = f"invalid unique {field}"
        super().__init__(why)


class InvalidOptions(EntityError):
    """An option of a listing is malformed."""

    code, name = 11, "invalid options"

    def __init__(self, options: Mapping[str, JsonValue]) -> None:
        joined = "; ".join(f"{option}: {why}" for option, why in sorted(options.items()))
        count = len(options)
        super().__init__(
            f"invalid option ({joined})" if count == 1 else f"{count} option violations ({joined})", options=options
        )


class OperationUnsupported(EntityError):
    """The collection cannot be written this way."""

    code, name = 12, "operation unsupported"


class ForeignKeysUnresolved(EntityError):
    """Foreign fields given by a unique key name nothing; `unresolved` = field -> (key, value, collection)."""

    code, name = 13, "foreign keys unresolved"

    def __init__(self, unresolved: Mapping[str, tuple[str, str, str]]) -> None:
        fields: EntityBody = {}
        fragments = []
        for field, (key, value, collection) in sorted(unresolved.items()):
            text = (
                f"the foreign key cannot be resolved with '{literal({key: value})}' "
                f"for an existing '{collection}' entity"
            )
            fields[field] = {key: text}
            fragments.append(f"{field}.{key}: {text}")
        joined = "; ".join(fragments)
        count = len(fragments)
        super().__init__(
            f"foreign key unresolved ({joined})" if count == 1 else f"{count} foreign keys unresolved ({joined})",
            fields=fields,
        )


class StillReferenced(EntityError):
    """A CA certificate cannot go while a service's list of them has its id."""

    code, name = 19, "referenced by others"

    def __init__(self, ca_certificate: str, service: str) -> None:
        super().__init__(f"ca certificate {ca_certificate} is still referenced by services (id = {service})")


class UpstreamInUse(EntityError):
    """An upstream cannot go while a service's settings send requests to it; answered like a foreign key's refusal.

    `canary` = the open one that these settings belong to: they are not to be taken back by hand.
    """

    code, name = 4, "foreign key violation"

    def __init__(self, upstream: str, service: str, field: str, *, canary: int | None = None) -> None:
        remedy = f"PATCH /fleet/services/{service}/settings with {field} null"
        if canary is not None:
            remedy = f"it is that of canary {canary}, which `pointsman switch abort {canary}` ends"
        super().__init__(
            f"the {field} of service '{service}' sends requests to upstream '{upstream}'; end it first: {remedy}",
            fields={"@referenced_by": "service_settings", **({} if canary is None else {"canary": canary})},
        )


class HeldByRollout(EntityError):
    """An open rollout or canary is about to change this entity; a code of our own, beyond Kong's."""

    code, name = 100, "held by a rollout"

    def __init__(self, rollout: int, collection: str, entity: str, *, canary: bool = False) -> None:
        kind = "canary" if canary else "rollout"
        text = f"{kind} {rollout} is about to change {collection} '{entity}'; wait for its end, or abort it"
        super().__init__(text, fields={kind: rollout})
        self.rollout = rollout


class DeclarativeError(EntityError):
    """A file cannot be loaded; `fields` is the tree of what is wrong in it."""

    code, name = 14, "invalid declarative configuration"

    def __init__(self, fields: Mapping[str, JsonValue]) -> None:
        super().__init__(f"declarative config is invalid: {literal(dict(fields))}", fields=fields)
