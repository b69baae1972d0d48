"""upstream: a named pool of targets, how one is chosen, and how their health is judged."""

from __future__ import annotations

from dataclasses import replace

from control_plane.entities import typedefs
from control_plane.entities.checks import distinct, must_be_one_of, must_be_set, unlisted
from control_plane.entities.fields import (
    Boolean,
    Field,
    Foreign,
    Integer,
    Number,
    Record,
    String,
    between,
    one_of,
    text_rule,
)
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody, JsonValue
from pointsman.rules.addresses import AddressKind, BadAddress, parse_host_port

_HASHES = ("none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture")
_ALGORITHMS = ("consistent-hashing", "least-connections", "round-robin", "latency")
_CHECK_TYPES = ("tcp", "http", "https", "grpc", "grpcs")
# Kong Enterprise's. Taken like the others, and not named where the open-source Kong does not name it.
_STICKY = "sticky-sessions"
# Algorithms that use no hash, so that hash_on means nothing with them.
_HASHLESS = ("least-connections", "latency")

_FINE_STATUSES: list[JsonValue] = [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306]
_FINE_STATUSES += [307, 308]


def _couple(body: EntityBody) -> EntityBody:
    """Keep `algorithm` and `hash_on` in step, as Kong does on every write.

    What clients see in the end: least-connections and latency have no hash; otherwise no hash means round-robin and any
    hash means consistent-hashing. Sticky sessions have no hash either, but there a hash that is given is a mistake to
    be told, as Kong Enterprise does.
    """
    if body.get("algorithm") == _STICKY:
        if body.get("hash_on") is None:
            body["hash_on"] = "none"
        return body
    if body.get("algorithm") in _HASHLESS:
        body["hash_on"] = None
    if "hash_on" in body:
        hash_on = body["hash_on"]
        if hash_on is None:
            body["hash_on"] = "none"
        elif hash_on == "none":
            body["algorithm"] = "round-robin"
        else:
            body["algorithm"] = "consistent-hashing"
    return body


def _settle(entity: EntityBody, _given: frozenset[str]) -> None:
    # An algorithm that is none of them is left to be refused; none at all becomes what the hash asks for.
    if entity.get("algorithm") in (None, _STICKY, *_ALGORITHMS):
        _couple(entity)


def _check_name(value: str) -> str | None:
    try:
        parsed = parse_host_port(value)
    except BadAddress:
        return f"Invalid name ('{value}'); must be a valid hostname"
    if parsed.kind is not AddressKind.NAME:
        return f"Invalid name ('{value}'); no ip addresses allowed"
    return None if parsed.port is None else f"Invalid name ('{value}'); no port allowed"


def _counter() -> Integer:
    return Integer(default=0, has_default=True, rules=(between(0, 255),), description="Consecutive; 0 = never.")


def _seconds(default: int) -> Number:
    return Number(default=default, has_default=True, rules=(between(0, 65535),), description="Seconds; 0 = off.")


def _check_type() -> String:
    return String(default="http", has_default=True, rules=(one_of(*_CHECK_TYPES),))


def _unhealthy(statuses: list[JsonValue], **first: Field) -> Record:
    return Record(
        fields={
            **first,
            "http_statuses": typedefs.statuses(statuses),
            "tcp_failures": _counter(),
            "timeouts": _counter(),
            "http_failures": _counter(),
        }
    )


HEALTHCHECKS = Record(
    description="How the targets' health is judged.",
    fields={
        "active": Record(
            fields={
                "type": _check_type(),
                "timeout": _seconds(1),
                "concurrency": Integer(default=10, has_default=True, rules=(between(1, 2147483648),)),
                "http_path": typedefs.path(default="/"),
                "https_sni": String(rules=(text_rule(typedefs.check_sni, form="host-name"),)),
                "https_verify_certificate": Boolean(default=True, has_default=True, required=True),
                "headers": typedefs.headers(),
                "healthy": Record(
                    fields={
                        "interval": _seconds(0),
                        "http_statuses": typedefs.statuses([200, 302]),
                        "successes": _counter(),
                    }
                ),
                "unhealthy": _unhealthy([429, 404, 500, 501, 502, 503, 504, 505], interval=_seconds(0)),
            }
        ),
        "passive": Record(
            fields={
                "type": _check_type(),
                "healthy": Record(fields={"http_statuses": typedefs.statuses(_FINE_STATUSES), "successes": _counter()}),
                "unhealthy": _unhealthy([429, 500, 503]),
            }
        ),
        "threshold": Number(
            default=0,
            has_default=True,
            rules=(between(0, 100),),
            description="Percent of the weight that must be available.",
        ),
    },
)


def _hash(name: str) -> String:
    return String(default="none", has_default=True, rules=(one_of(*_HASHES),), description=name)


_FIELDS: dict[str, Field] = {
    "id": typedefs.uuid(),
    "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
    "name": String(
        required=True,
        unique=True,
        rules=(text_rule(_check_name, form="upstream-name"),),
        description="What a service's host names it by.",
    ),
    "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
    "algorithm": String(
        default="round-robin",
        has_default=True,
        rules=(one_of(*_ALGORITHMS, unlisted=(_STICKY,)),),
        description="How a target is chosen.",
    ),
    "hash_on": _hash("What consistent-hashing hashes."),
    "hash_fallback": _hash("What it hashes where that is missing."),
    "hash_on_header": String(rules=(typedefs.header_name_rule(),)),
    "hash_fallback_header": String(rules=(typedefs.header_name_rule(),)),
    "hash_on_cookie": String(rules=(typedefs.cookie_name_rule(),)),
    "hash_on_cookie_path": typedefs.path(default="/"),
    "hash_on_query_arg": String(),
    "hash_fallback_query_arg": String(),
    "hash_on_uri_capture": String(),
    "hash_fallback_uri_capture": String(),
    "slots": Integer(
        default=10000, has_default=True, rules=(between(10, 65536),), description="Size of the hash ring."
    ),
    "healthchecks": HEALTHCHECKS,
    "tags": typedefs.tags(),
    "host_header": String(
        rules=(text_rule(typedefs.check_host_with_optional_port, form="host-and-port"),),
        description="Host sent to the targets.",
    ),
    "client_certificate": Foreign(collection="certificates", nested=False, description="Shown to the targets."),
    "use_srv_name": Boolean(default=False, has_default=True, description="Send the SRV record's name as Host."),
    "sticky_sessions_cookie": String(
        only_when_set=True,
        rules=(typedefs.cookie_name_rule(),),
        description="Name of the cookie that binds a client to a target; with sticky-sessions only.",
    ),
    # Without a default, other than in Kong Enterprise: decK would find "/" on the server and nothing in its file, and
    # would show that difference for ever. Nodes take a missing path as "/".
    "sticky_sessions_cookie_path": replace(
        typedefs.path(), only_when_set=True, description="Path of that cookie; / if there is none."
    ),
}


def _others(*names: str) -> tuple[str, ...]:
    return tuple(name for name in _HASHES if name not in names)


UPSTREAM = Schema(
    collection="upstreams",
    singular="upstream",
    endpoint_key="name",
    fields=_FIELDS,
    checks=(
        must_be_set("hash_on", "header", "hash_on_header", _FIELDS["hash_on_header"]),
        must_be_set("hash_fallback", "header", "hash_fallback_header", _FIELDS["hash_fallback_header"]),
        must_be_set("hash_on", "cookie", "hash_on_cookie", _FIELDS["hash_on_cookie"]),
        must_be_set("hash_fallback", "cookie", "hash_on_cookie", _FIELDS["hash_on_cookie"]),
        must_be_one_of("hash_on", "none", "hash_fallback", ("none",)),
        must_be_one_of("hash_on", "cookie", "hash_fallback", ("none",)),
        must_be_one_of("hash_on", "consumer", "hash_fallback", _others("consumer")),
        must_be_one_of("hash_on", "ip", "hash_fallback", _others("ip")),
        # Kong lists `ip` behind the others here; the text is compared by clients.
        must_be_one_of(
            "hash_on",
            "path",
            "hash_fallback",
            ("none", "consumer", "header", "cookie", "query_arg", "ip", "uri_capture"),
        ),
        distinct("hash_on_header", "hash_fallback_header"),
        must_be_set("hash_on", "query_arg", "hash_on_query_arg", _FIELDS["hash_on_query_arg"]),
        must_be_set("hash_fallback", "query_arg", "hash_fallback_query_arg", _FIELDS["hash_fallback_query_arg"]),
        distinct("hash_on_query_arg", "hash_fallback_query_arg"),
        must_be_set("hash_on", "uri_capture", "hash_on_uri_capture", _FIELDS["hash_on_uri_capture"]),
        must_be_set("hash_fallback", "uri_capture", "hash_fallback_uri_capture", _FIELDS["hash_fallback_uri_capture"]),
        distinct("hash_on_uri_capture", "hash_fallback_uri_capture"),
        unlisted(must_be_set("algorithm", _STICKY, "sticky_sessions_cookie", _FIELDS["sticky_sessions_cookie"])),
        unlisted(must_be_one_of("algorithm", _STICKY, "hash_on", ("none",))),
        unlisted(must_be_one_of("algorithm", _STICKY, "hash_fallback", ("none",))),
    ),
    prepare=_couple,
    settle=_settle,
)
