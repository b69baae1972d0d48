"""What must hold before a version may exist: every node can take it.

The store calls `check_changes` as the last thing before a unit of work takes its version, so that a configuration that
nodes would have to refuse is refused here, with the entity and the field, and never becomes a version. References and
uniqueness are the database's part and hold by constraint; this is the part that only the node's own rules can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from control_plane.entities.errors import ENTITY, SchemaViolation
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.snapshot.encode import ENCODERS, Unencodable, encode
from control_plane.store.contract import Change, Transaction
from pointsman.rules.addresses import split_target
from pointsman.rules.regexes import BadRegex, compile_header_regex, compile_path_regex

ENTITY_BYTES_MAX = 256 * 1024
"""Of one entity as nodes receive it. A route with thousands of paths fits; a batch to a worker holds many."""


def check_changes(tx: Transaction, changes: Sequence[Change]) -> None:
    """Refuses changes that nodes could not run. Fits `before_commit` of `open_sqlite`.

    Raises:
        SchemaViolation: of the first such entity; its name and id are in the text.
    """
    del tx  # what is checked now needs nothing but the changed entities; certificates and their keys will
    for change in changes:
        if change.after is not None and change.collection in ENCODERS:
            _check_entity(change.collection, change.after)


def _check_entity(collection: str, body: EntityBody) -> None:
    try:
        encoded = encode(collection, body)
    except Unencodable as error:
        raise _refusal(collection, body, error.field, str(error)) from error
    if len(encoded) > ENTITY_BYTES_MAX:
        text = f"takes {len(encoded)} bytes on its way to the nodes, {ENTITY_BYTES_MAX} is the most; split it"
        raise _refusal(collection, body, "", text)
    if collection == "routes":
        _check_regexes(body)
    elif collection == "targets":
        _check_target(body)


def _check_regexes(route: EntityBody) -> None:
    """With the code that nodes compile by: what passes here builds there."""
    for path in _texts(route.get("paths")):
        if path.startswith("~"):
            try:
                compile_path_regex(path[1:])
            except BadRegex as error:
                raise _refusal("routes", route, "paths", f"invalid regex: '{path[1:]}' ({error})") from error
    headers = route.get("headers")
    for values in headers.values() if isinstance(headers, dict) else ():
        for value in _texts(values):
            if value.startswith("~*"):
                try:
                    compile_header_regex(value[2:])
                except BadRegex as error:
                    raise _refusal("routes", route, "headers", f"invalid regex: '{value[2:]}' ({error})") from error


def _check_target(target: EntityBody) -> None:
    address = str(target.get("target"))
    _, port = split_target(address)
    if port == 0:
        raise _refusal("targets", target, "target", f"'{address}' has port 0, to which nothing can connect")


def _texts(value: JsonValue) -> Iterator[str]:
    return (item for item in value if isinstance(item, str)) if isinstance(value, list) else iter(())


def _refusal(collection: str, body: EntityBody, field: str, text: str) -> SchemaViolation:
    name = body.get("name") or body.get("target") or body.get("id")
    if field:
        return SchemaViolation({field: f"{text} [{collection} {name}]"})
    return SchemaViolation({ENTITY: [f"{text} [{collection} {name}]"]})
