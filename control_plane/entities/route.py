"""route: which requests go to which service."""

from __future__ import annotations

import re
from collections.abc import Mapping

from control_plane.entities import typedefs
from control_plane.entities.checks import Check, Problems
from control_plane.entities.errors import SchemaViolation, literal
from control_plane.entities.fields import (
    INTEGER_MAX,
    Array,
    Boolean,
    Field,
    Foreign,
    Integer,
    Map,
    Record,
    Rule,
    Set,
    String,
    between,
    empty,
    one_of,
    text_rule,
)
from control_plane.entities.pcre import in_pcre_words
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody, JsonValue
from pointsman.rules import paths
from pointsman.rules.addresses import BadAddress, parse_host_port
from pointsman.rules.regexes import BadRegex, compile_header_regex, compile_path_regex

_FAMILIES = (("http", "https"), ("tcp", "tls", "udp"), ("tls_passthrough",), ("grpc", "grpcs"))
_STREAM = ("tcp", "tls", "udp")
_TLS = ("grpcs", "https", "tls", "tls_passthrough")
_SNIS_NEED_TLS = "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'"
_PORT = re.compile(r":[0-9]+\Z")


def _check_host(value: str) -> str | None:
    """A host with an optional port; one `*` may stand for the leftmost or rightmost label."""
    if "*" in value:
        if value.count("*") > 1:
            return "invalid wildcard: must have at most one wildcard"
        name = _PORT.sub("", value)
        if not (name.startswith("*.") or name.endswith(".*")):
            return "invalid wildcard: must be placed at leftmost or rightmost label"
        value = value.replace("*", "wildcard")
    try:
        parse_host_port(value)
    except BadAddress as error:
        return str(error)
    return None


def _check_path(value: str) -> str | None:
    """A prefix in normal form, or `~` and a regex that compiles within the limits of the nodes.

    The text about regexes is Kong's, PCRE and all, since clients know it by that.
    """
    if not value.startswith(("/", "~/")):
        return "should start with: / (fixed path) or ~/ (regex path)"
    if "//" in value:
        return "must not have empty segments"
    problem = typedefs.check_escapes(value)
    if problem is not None:
        return problem
    if value.startswith("~"):
        try:
            compile_path_regex(value[1:])
        except BadRegex as error:
            return f"invalid regex: '{value[1:]}' (PCRE returned: {in_pcre_words(value[1:], str(error))})"
        return None
    normal = paths.normalise(value.encode()).decode("utf-8", "replace")
    return None if normal == value else f"non-normalized path, consider use '{normal}' instead"


def _check_header_value(value: str) -> str | None:
    if not value.startswith("~*"):
        return None
    try:
        compile_header_regex(value[2:])
    except BadRegex as error:
        return f"invalid regex: '{value[2:]}' (PCRE returned: {in_pcre_words(value[2:], str(error))})"
    return None


def _check_header_name(value: str) -> str | None:
    if value.lower() == "host":
        return "cannot contain 'host' header, which must be specified in the 'hosts' attribute"
    return typedefs.check_header_name(value)


def _one_family(value: JsonValue) -> JsonValue:
    assert isinstance(value, list)
    if not value:
        return "length must be at least 1"
    used = [family for family in _FAMILIES if any(protocol in family for protocol in value)]
    if len(used) < 2:
        return None
    listed = ", ".join("(" + ", ".join(f"'{protocol}'" for protocol in family) + ")" for family in used[:2])
    return f"these sets are mutually exclusive: {listed}"


def _not_empty(value: JsonValue) -> JsonValue:
    return None if value else "length must be at least 1"


def _settle(entity: EntityBody, given: frozenset[str]) -> None:
    """Tell the sub-type by the first protocol that is one, and complete what depends on it."""
    protocols = entity.get("protocols")
    if not isinstance(protocols, list):
        return
    known = next((protocol for protocol in protocols if protocol in typedefs.PROTOCOLS), None)
    if known is None:
        first = protocols[0] if protocols else "nil"
        raise SchemaViolation({"protocols": f"unknown type: {first if isinstance(first, str) else literal(first)}"})
    if known in {"grpc", "grpcs"} and "strip_path" not in given:
        entity["strip_path"] = False


def _forbid(entity: EntityBody, problems: Problems, names: tuple[str, ...], protocols: str) -> None:
    for name in names:
        if entity.get(name) is not None:
            problems.fields[name] = f"cannot set '{name}' when 'protocols' is {protocols}"


def _demand(entity: EntityBody, problems: Problems, names: tuple[str, ...], protocols: str) -> None:
    if all(empty(entity.get(name)) for name in names):
        listed = ", ".join(f"'{name}'" for name in names)
        what = f"one of {listed}" if len(names) > 1 else names[0]
        problems.entity.append(f"must set {what} when 'protocols' is {protocols}")


def _protocols(entity: EntityBody) -> set[str]:
    listed = entity.get("protocols")
    return {protocol for protocol in listed if isinstance(protocol, str)} if isinstance(listed, list) else set()


def _snis_need_tls(entity: EntityBody, problems: Problems) -> None:
    protocols = _protocols(entity)
    if protocols and not protocols.intersection(_TLS) and not empty(entity.get("snis")):
        problems.fields["snis"] = "length must be 0"
        problems.entity.append(_SNIS_NEED_TLS)


def _match_fields(entity: EntityBody, problems: Problems) -> None:
    """Each kind of route has fields it must not have and fields of which it needs one."""
    protocols = _protocols(entity)
    if protocols & {"http", "https"}:
        _forbid(entity, problems, ("sources", "destinations"), "'http' or 'https'")
        if "https" in protocols:
            _demand(entity, problems, ("methods", "hosts", "headers", "paths", "snis"), "'https'")
        else:
            _demand(entity, problems, ("methods", "hosts", "headers", "paths"), "'http'")
    elif protocols & {"grpc", "grpcs"}:
        _forbid(entity, problems, ("methods", "sources", "destinations"), "'grpc' or 'grpcs'")
        if entity.get("strip_path") is True:
            problems.fields["strip_path"] = "cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'"
        if "grpcs" in protocols:
            _demand(entity, problems, ("hosts", "headers", "paths", "snis"), "'grpcs'")
        else:
            _demand(entity, problems, ("hosts", "headers", "paths"), "'grpc'")
    elif protocols & {*_STREAM, "tls_passthrough"}:
        forbidden = ("methods", "hosts", "paths", "headers")
        _forbid(entity, problems, forbidden, "'tcp', 'tls', 'tls_passthrough' or 'udp'")
        if protocols & set(_STREAM):
            _demand(entity, problems, ("sources", "destinations", "snis"), "'tcp', 'tls' or 'udp'")
        else:
            _demand(entity, problems, ("snis",), "'tls_passthrough'")


def _peers(description: str) -> Set:
    return Set(
        elements=Record(
            filled_when_missing=False,
            fields={
                "ip": String(rules=(text_rule(typedefs.check_ip_or_cidr, form="ip-or-cidr"),)),
                "port": typedefs.port(),
            },
            at_least_one_of=("ip", "port"),
        ),
        description=description,
    )


def _flag(*, default: bool, description: str) -> Boolean:
    return Boolean(default=default, has_default=True, required=True, description=description)


_FIELDS: Mapping[str, Field] = {
    "id": typedefs.uuid(),
    "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
    "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
    "name": typedefs.name(),
    "protocols": Set(
        elements=typedefs.protocol(),
        default=["http", "https"],
        has_default=True,
        required=True,
        rules=(
            Rule(
                _one_family,
                {"len_min": 1, "mutually_exclusive_subsets": [list(family) for family in _FAMILIES]},
                {"minItems": 1, "anyOf": [{"items": {"enum": list(family)}} for family in _FAMILIES]},
            ),
        ),
        description="Protocols the route accepts, of one family.",
    ),
    "methods": Set(elements=typedefs.http_method(), description="Methods that match."),
    "hosts": Array(
        elements=String(rules=(text_rule(_check_host, form="route-host"),)),
        description="Hosts that match; one `*` may stand for the first or the last label.",
    ),
    "paths": Array(
        elements=String(rules=(text_rule(_check_path, form="route-path"),)),
        description="Prefixes (`/...`) and regexes (`~/...`) that match.",
    ),
    "headers": Map(
        keys=String(rules=(text_rule(_check_header_name, pattern="^[A-Za-z0-9_-]+$"),)),
        values=Array(
            elements=String(rules=(text_rule(_check_header_value),)),
            rules=(Rule(_not_empty, {"len_min": 1}, {"minItems": 1}),),
        ),
        description="Headers that must be there, each with one of its values.",
    ),
    "https_redirect_status_code": Integer(
        default=426,
        has_default=True,
        required=True,
        rules=(one_of(426, 301, 302, 307, 308),),
        description="How plain requests for an https route are answered.",
    ),
    "regex_priority": Integer(
        default=0,
        has_default=True,
        rules=(between(-INTEGER_MAX, INTEGER_MAX),),
        description="Larger wins among regex paths.",
    ),
    "strip_path": _flag(default=True, description="Drop the matched prefix from what goes upstream."),
    "path_handling": String(
        default="v0",
        has_default=True,
        rules=(one_of("v0", "v1"),),
        description="How paths are joined; v1 is deprecated.",
    ),
    "preserve_host": _flag(default=False, description="Send the client's Host upstream."),
    "request_buffering": _flag(default=True, description="Gather the request's body before sending it."),
    "response_buffering": _flag(default=True, description="Let answers run ahead of a slow client."),
    "snis": Set(elements=String(rules=(typedefs.sni_rule(),)), description="TLS server names that match."),
    "sources": _peers("Client addresses that match; stream routes only."),
    "destinations": _peers("Local addresses that match; stream routes only."),
    "tags": typedefs.tags(),
    "service": Foreign(collection="services", description="Where matching requests go; none answers 503."),
}

ROUTE = Schema(
    collection="routes",
    singular="route",
    endpoint_key="name",
    fields=_FIELDS,
    checks=(
        Check(
            _snis_need_tls,
            {
                "conditional": {
                    "if_field": "protocols",
                    "if_match": {"elements": {"type": "string", "not_one_of": list(_TLS)}},
                    "then_field": "snis",
                    "then_match": {"len_eq": 0},
                    "then_err": _SNIS_NEED_TLS,
                }
            },
        ),
        # Kong keeps these in sub-schemas by protocol, which its document does not show.
        Check(_match_fields, {}),
    ),
    settle=_settle,
    foreign_keys={"services": ("name",)},
)
