"""Field types that several entities share, with Kong's texts (spec: entities, shared field types)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from control_plane.entities.fields import Array, Integer, Map, Rule, Set, String, between, is_utf8, one_of, text_rule
from control_plane.entities.types import JsonValue
from pointsman.rules.addresses import AddressKind, BadAddress, parse_host_port, parse_ip_or_cidr

PROTOCOLS = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")

_NAME = re.compile(r"[A-Za-z0-9._~\x80-\U0010ffff-]*\Z")
_PATH = re.compile(r"[A-Za-z0-9._~/%:@!$&'()*+,;=-]*\Z")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)
_HEADER_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
_COOKIE_NAME = re.compile(r"[^\x00-\x20\x7f()<>@,;:\\\"/?={}\[\]]+\Z")
_METHOD = re.compile(r"[A-Z]+\Z")
_TAG = re.compile(r"[^\x00-\x1f\x7f,/]*\Z")

# The same as regexes of ECMA 262, for JSON Schema.
_NAME_PATTERN = r"^[^\x00-,/:-@\[-\^`{-}\x7f]+$"
_PATH_PATTERN = r"^(/([A-Za-z0-9._~:@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)*/?$"
_COOKIE_NAME_PATTERN = r"^[^\x00-\x20\x7f()<>@,;:\\\"/?={}\[\]]+$"
_HEADER_NAME_PATTERN = r"^[A-Za-z0-9_-]+$"
_TAG_PATTERN = r"^[^\x00-\x1f\x7f,/]+$"


def check_name(value: str) -> str | None:
    """A name: any non-ASCII, of ASCII only letters, digits and `. - _ ~`."""
    if _NAME.match(value):
        return None
    return f"invalid value '{value}': the only accepted ascii characters are alphanumerics or ., -, _, and ~"


def check_host(value: str) -> str | None:
    """A host without a port."""
    try:
        parsed = parse_host_port(value)
    except BadAddress as error:
        return "must not have a port" if str(error) == "invalid port number" else f"invalid value: {value}"
    return None if parsed.port is None else "must not have a port"


def check_host_with_optional_port(value: str) -> str | None:
    """A host, with a port or without."""
    try:
        parse_host_port(value)
    except BadAddress as error:
        return str(error)
    return None


def check_sni(value: str) -> str | None:
    """A host name without a port, not an address."""
    problem = check_host(value)
    if problem is not None:
        return problem
    return None if parse_host_port(value).kind is AddressKind.NAME else "must not be an IP"


def check_wildcard_sni(value: str) -> str | None:
    """A host name with at most one `*`, as its first or last character."""
    if "*" not in value:
        return check_sni(value)
    if value.index("*") not in (0, len(value) - 1):
        return "wildcard must be leftmost or rightmost character"
    if value.count("*") > 1:
        return "only one wildcard must be specified"
    return check_sni(value.replace("*", "wildcard"))


def check_escapes(value: str) -> str | None:
    """Every `%` begins an escape."""
    bad = _BAD_ESCAPE.search(value)
    return f"invalid url-encoded value: '{bad[0]}'" if bad else None


def check_path(value: str) -> str | None:
    """A URL path as RFC 3986 allows it, without empty segments."""
    if not value.startswith("/"):
        return "should start with: /"
    if "//" in value:
        return "must not have empty segments"
    if not _PATH.match(value):
        return f"invalid path: '{value}' (characters outside of the reserved list of RFC 3986 found)"
    return check_escapes(value)


def check_ip_or_cidr(value: str) -> str | None:
    """An address or a range."""
    try:
        parse_ip_or_cidr(value)
    except BadAddress as error:
        return str(error)
    return None


def check_header_name(value: str) -> str | None:
    """A header name in Kong's narrower sense."""
    if _HEADER_NAME.match(value):
        return None
    return f"bad header name '{value}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"


def check_cookie_name(value: str) -> str | None:
    """A cookie name: an HTTP token."""
    if _COOKIE_NAME.match(value):
        return None
    return (
        "contains one or more invalid characters. ASCII control characters (0-31;127), space, tab and the "
        'characters ()<>@,;:\\"/?={}[] are not allowed.'
    )


def check_tag(value: str) -> str | None:
    """A tag: printable ASCII but `,` and `/`, or anything else that is UTF-8."""
    if is_utf8(value) and _TAG.match(value):
        return None
    return f"invalid tag '{value}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"


def header_name_rule() -> Rule:
    """Return the rule of a header's name."""
    return text_rule(check_header_name, pattern=_HEADER_NAME_PATTERN)


def cookie_name_rule() -> Rule:
    """Return the rule of a cookie's name."""
    return text_rule(check_cookie_name, pattern=_COOKIE_NAME_PATTERN)


def host_rule() -> Rule:
    """Return the rule of a host without a port."""
    return text_rule(check_host, form="host")


def sni_rule() -> Rule:
    """Return the rule of a server name in which `*` may stand for the first or the last label."""
    return text_rule(check_wildcard_sni, form="sni")


def uuid(description: str = "A UUID.") -> String:
    """Return an automatic UUID field."""
    return String(is_uuid=True, auto=True, description=description)


def name() -> String:
    """Return the unique, optional name that many entities have."""
    return String(
        unique=True, rules=(text_rule(check_name, pattern=_NAME_PATTERN),), description="A unique name; UTF-8."
    )


def port(*, default: int | None = None, required: bool = False) -> Integer:
    """Return a port field; 0 to 65535."""
    return Integer(
        default=default,
        has_default=default is not None,
        required=required,
        rules=(between(0, 65535),),
        description="A port.",
    )


def timeout_ms() -> Integer:
    """Return a timeout field: milliseconds, never zero."""
    return Integer(default=60000, has_default=True, rules=(between(1, 2147483646),), description="Milliseconds.")


def path(*, default: str | None = None) -> String:
    """Return a URL path field."""
    facts: Mapping[str, JsonValue] = {
        "starts_with": "/",
        "match_none": [{"pattern": "//", "err": "must not have empty segments"}],
    }
    return String(
        default=default,
        has_default=default is not None,
        rules=(text_rule(check_path, facts=facts, pattern=_PATH_PATTERN),),
        description="A path.",
    )


def tags() -> Set:
    """Return the tags that all entities have."""
    return Set(
        elements=String(rules=(text_rule(check_tag, pattern=_TAG_PATTERN),)), description="Texts to find entities by."
    )


def headers() -> Map:
    """Return a map from header names to the values any of which fits."""
    return Map(
        keys=String(rules=(header_name_rule(),)),
        values=Array(elements=String()),
        description="Header names with the values any of which fits.",
    )


def protocol(*, default: str | None = None, required: bool = False) -> String:
    """Return a protocol field."""
    return String(default=default, has_default=default is not None, required=required, rules=(one_of(*PROTOCOLS),))


def http_method() -> String:
    """Return a method: any word in upper case."""

    def check(value: str) -> str | None:
        return None if _METHOD.match(value) else f"invalid value: {value}"

    return String(rules=(text_rule(check, facts={"match": "^%u+$"}, pattern="^[A-Z]+$"),))


def statuses(default: list[JsonValue]) -> Array:
    """Return a list of HTTP statuses."""
    return Array(elements=Integer(rules=(between(100, 999),)), default=default, has_default=True)
