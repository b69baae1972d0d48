"""service_settings: what we let an operator say of a service beyond Kong's entity. One for a service, with its id.

Kept like `upstream_settings`: shown at `/fleet/services/{s}/settings`, below `_pointsman` in files, gone with its
service.

`partition` says what a node does with the service when it has lost every control plane: go on by what it knows
(`serve_stale`), or answer 503 after `fence_after_s` (`fence`), for services where an old answer is worse than none.

`preview`, `split` and `mirror` say which requests go to another upstream than the service's host, which is the primary
side: those that carry the operator's mark; a share of all; and a share that is sent a second time, for nobody to see.
They name upstreams by id. `drain_deadline` ends what is still open on an upstream that the service has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from control_plane.entities import typedefs
from control_plane.entities.errors import SchemaViolation
from control_plane.entities.fields import (
    REQUIRED,
    Foreign,
    Integer,
    Number,
    Record,
    Rule,
    String,
    between,
    is_uuid,
    one_of,
    text_rule,
)
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody, JsonValue

COLLECTION = "service_settings"
FENCE_AFTER_S_DEFAULT = 60
FENCE_AFTER_S_MIN = 1
FENCE_AFTER_S_MAX = 30 * 24 * 3600
SERVE_STALE, FENCE = "serve_stale", "fence"

SHARE_MAX = 10_000
"""All requests; a share is in ten-thousandths."""
DRAIN_DEADLINE_S_MAX = 7 * 24 * 3600
PREVIEW_VALUE_CHARACTERS_MAX = 256
SIDES = ("split", "preview", "mirror")
"""The fields that send requests elsewhere; each names its upstream in `to`."""


def _any_name(_name: str) -> None:
    return None


_NAMED: Mapping[str, Callable[[str], str | None]] = MappingProxyType(
    {
        "header": typedefs.check_header_name,
        "cookie": typedefs.check_cookie_name,
        "query_arg": _any_name,
        "uri_capture": _any_name,
    }
)
_UNNAMED = ("ip", "path", "consumer")


def _sticky_name(value: JsonValue) -> JsonValue:
    """Require a name of what has one, by the rules of an upstream's `hash_on_*` fields, and none of the others."""
    if not isinstance(value, dict):
        return None
    on, name = value.get("on"), value.get("name")
    check = _NAMED.get(on) if isinstance(on, str) else None
    if check is None:
        return {"name": f"must be null: '{on}' has no name"} if name is not None else None
    problem = REQUIRED if name is None else check(str(name))
    return None if problem is None else {"name": problem}


def _check_value(value: str) -> str | None:
    if len(value) > PREVIEW_VALUE_CHARACTERS_MAX:
        return f"length must be at most {PREVIEW_VALUE_CHARACTERS_MAX}"
    if value != value.strip() or not value.isprintable() or not value.isascii() or ";" in value:
        return "must be printable ASCII without ';' and without spaces around it"
    return None


def _to(description: str) -> String:
    return String(is_uuid=True, required=True, description=description)


def _share(description: str) -> Integer:
    return Integer(required=True, rules=(between(0, SHARE_MAX),), description=description)


_STICKY = Record(
    required=False,
    filled_when_missing=False,
    description="What keeps a client on its side; null = each request is counted out by itself.",
    rules=(Rule(_sticky_name),),
    fields={
        "on": String(required=True, rules=(one_of(*_NAMED, *_UNNAMED),), description="As an upstream's hash_on."),
        "name": String(description="Of the header, cookie, query argument or capture."),
    },
)

SERVICE_SETTINGS = Schema(
    collection=COLLECTION,
    singular="service_settings",
    endpoint_key=None,
    foreign_keys={"services": ("name",)},
    fields={
        "id": typedefs.uuid("The service's id."),
        "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "service": Foreign(collection="services", required=True, cascade=True, description="Whose settings."),
        "partition": String(
            default=SERVE_STALE,
            has_default=True,
            required=True,
            rules=(one_of(SERVE_STALE, FENCE),),
            description="What a node does with the service while it has no control plane.",
        ),
        "fence_after_s": Number(
            default=FENCE_AFTER_S_DEFAULT,
            has_default=True,
            required=True,
            rules=(between(FENCE_AFTER_S_MIN, FENCE_AFTER_S_MAX),),
            description="Seconds without a control plane after which `fence` answers 503.",
        ),
        "split": Record(
            required=False,
            filled_when_missing=False,
            description="A share of the requests goes to another upstream than the service's host.",
            fields={
                "to": _to("The upstream's id; its name is taken too."),
                "share": _share("Ten-thousandths of the requests that go there."),
                "sticky": _STICKY,
            },
        ),
        "preview": Record(
            required=False,
            filled_when_missing=False,
            description="Requests with a mark go to another upstream, before any split.",
            at_least_one_of=("header", "cookie"),
            fields={
                "to": _to("The upstream's id; its name is taken too."),
                "header": String(rules=(typedefs.header_name_rule(),), description="Name of the header with the mark."),
                "cookie": String(rules=(typedefs.cookie_name_rule(),), description="Name of the cookie with the mark."),
                "value": String(
                    required=True, rules=(text_rule(_check_value),), description="What must stand in it, exactly."
                ),
            },
        ),
        "mirror": Record(
            required=False,
            filled_when_missing=False,
            description="A share of the primary side's requests is sent to another upstream too; answers are dropped.",
            fields={
                "to": _to("The upstream's id; its name is taken too."),
                "share": _share("Ten-thousandths of the primary side's requests."),
            },
        ),
        "drain_deadline": Number(
            rules=(between(0, DRAIN_DEADLINE_S_MAX),),
            description="Seconds after which what is open on an upstream the service has left is closed; null = never.",
        ),
    },
)


def fence_after_s(settings: EntityBody) -> float | None:
    """Return how long a node may serve the service without a control plane; None = as long as it likes."""
    seconds = settings.get("fence_after_s")
    if settings.get("partition") != FENCE:
        return None
    return float(seconds) if isinstance(seconds, int | float) else float(FENCE_AFTER_S_DEFAULT)


def named_upstreams(settings: EntityBody) -> Iterator[tuple[str, str]]:
    """Yield each field that sends requests elsewhere with the id of the upstream it names."""
    for field in SIDES:
        side = settings.get(field)
        if isinstance(side, dict) and isinstance(to := side.get("to"), str):
            yield field, to


def with_upstream_ids(settings: EntityBody, find: Callable[[str], str | None]) -> EntityBody:
    """Return the settings as a client gave them with upstreams by id where they were named.

    Raises:
        SchemaViolation: `find` knows no upstream of that name.
    """
    resolved = dict(settings)
    unknown: EntityBody = {}
    for field, name in named_upstreams(settings):
        if is_uuid(name):
            continue
        side = settings[field]
        upstream = find(name)
        if upstream is None:
            unknown[field] = {"to": f"there is no upstream '{name}'"}
        elif isinstance(side, dict):
            resolved[field] = {**side, "to": upstream}
    if unknown:
        raise SchemaViolation(unknown)
    return resolved


def complete(settings: EntityBody) -> EntityBody:
    """Return stored settings with the fields that an earlier version of the software did not know."""
    missing = {name: field.missing() for name, field in SERVICE_SETTINGS.fields.items() if name not in settings}
    return {**settings, **missing}
