"""What must hold before a version may exist: every node can take it.

The store calls `check_changes` as the last thing before a unit of work takes its version, so that a configuration that
nodes would have to refuse is refused here, with the entity and the field, and never becomes a version. References and
uniqueness are the database's part and hold by constraint; this is the part that only the node's own rules can tell.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence

from control_plane.entities.errors import ENTITY, SchemaViolation, StillReferenced, UpstreamInUse
from control_plane.entities.service_settings import COLLECTION as SERVICE_SETTINGS
from control_plane.entities.service_settings import named_upstreams
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.snapshot.encode import ENCODERS, Unencodable, encode
from control_plane.store.contract import Change, Transaction
from control_plane.store.holds import check_not_held
from pointsman.rules.addresses import split_target
from pointsman.rules.pems import UnusablePem, load_authorities, load_pair
from pointsman.rules.regexes import BadRegex, compile_header_regex, compile_path_regex

ENTITY_BYTES_MAX = 256 * 1024
"""Of one entity as nodes receive it. A route with thousands of paths fits; a batch to a worker holds many."""


def before_commit(tx: Transaction, changes: Sequence[Change]) -> None:
    """All that is checked last: fits `before_commit` of `open_sqlite`. Raises as `check_not_held`, `check_changes`."""
    check_not_held(tx, changes)
    check_changes(tx, changes)


def check_changes(tx: Transaction, changes: Sequence[Change]) -> None:
    """Refuses changes that nodes could not run. `before_commit` calls it.

    Raises:
        SchemaViolation: of the first such entity; its name and id are in the text.
        StillReferenced: a CA certificate goes while a service names it, which no constraint can see.
        UpstreamInUse: an upstream goes while a service's settings send requests to it.
    """
    gone: set[str] = set()
    upstreams_gone: set[str] = set()
    for change in changes:
        if change.after is not None and change.collection in ENCODERS:
            _check_entity(change.collection, change.after)
            if change.collection == SERVICE_SETTINGS:
                _check_sides(tx, change.after)
        elif change.after is None and change.collection == "ca_certificates":
            gone.add(change.id)
        elif change.after is None and change.collection == "upstreams":
            upstreams_gone.add(change.id)
    if gone:
        _check_authorities_unused(tx, gone)
    if upstreams_gone:
        _check_upstreams_unused(tx, upstreams_gone, {change.id: change.before for change in changes})


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
    elif collection == "certificates":
        _check_pairs(body)
    elif collection == "ca_certificates":
        _check_authority(body)


def _check_pairs(certificate: EntityBody) -> None:
    """With the code that nodes load by: OpenSSL refuses what others may take, like keys too short for its policy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for cert, key in (("cert", "key"), ("cert_alt", "key_alt")):
        if certificate.get(cert) is None:
            continue
        try:
            load_pair(context, str(certificate[cert]), str(certificate[key]))
        except UnusablePem as error:
            raise _refusal("certificates", certificate, cert, f"invalid certificate: {error}") from None


def _check_authority(authority: EntityBody) -> None:
    try:
        load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), str(authority["cert"]))
    except UnusablePem as error:
        raise _refusal("ca_certificates", authority, "cert", f"invalid certificate: {error}") from None


def _check_authorities_unused(tx: Transaction, gone: set[str]) -> None:
    for service in tx.each("services"):
        for named in _texts(service.get("ca_certificates")):
            if named in gone:
                raise StillReferenced(named, str(service["id"]))


def _check_sides(tx: Transaction, settings: EntityBody) -> None:
    for field, upstream in named_upstreams(settings):
        if tx.get("upstreams", upstream) is None:
            named = _service_name(tx, settings)
            raise SchemaViolation({field: {"to": f"there is no upstream {upstream} [service_settings {named}]"}})


def _check_upstreams_unused(tx: Transaction, gone: set[str], before: Mapping[str, EntityBody | None]) -> None:
    for settings in tx.each(SERVICE_SETTINGS):
        for field, upstream in named_upstreams(settings):
            if upstream in gone and tx.get("upstreams", upstream) is None:
                body = before.get(upstream) or {}
                held = tx.holders([(SERVICE_SETTINGS, str(settings["id"]))])
                name = str(body.get("name") or upstream)
                raise UpstreamInUse(name, _service_name(tx, settings), field, canary=next(iter(held.values()), None))


def _service_name(tx: Transaction, settings: EntityBody) -> str:
    service = tx.get("services", str(settings["id"])) or settings
    return str(service.get("name") or settings["id"])


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
