"""target: an address with a weight inside an upstream."""

from __future__ import annotations

from control_plane.entities import typedefs
from control_plane.entities.errors import SchemaViolation
from control_plane.entities.fields import Boolean, Foreign, Integer, Number, String, between, text_rule
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody
from pointsman.rules.addresses import BadAddress, parse_target


def _normalise(body: EntityBody) -> EntityBody:
    target = body.get("target")
    if isinstance(target, str) and target:
        try:
            body["target"] = str(parse_target(target))
        except BadAddress:
            raise SchemaViolation({"target": "Invalid target; not a valid hostname or ip address"}) from None
    return body


def _check_target(value: str) -> str | None:
    try:
        parse_target(value)
    except BadAddress:
        return f"Invalid target ('{value}'); not a valid hostname or ip address"
    return None


TARGET = Schema(
    collection="targets",
    singular="target",
    endpoint_key="target",
    unique_together=(("upstream", "target"),),
    foreign_keys={"upstreams": ("name",)},
    fractional_seconds=True,
    put_is_patch=True,
    fields={
        "id": typedefs.uuid(),
        "created_at": Number(auto=True, is_timestamp=True, description="Seconds since the epoch, to milliseconds."),
        "updated_at": Number(auto=True, is_timestamp=True, description="Seconds since the epoch, to milliseconds."),
        "upstream": Foreign(collection="upstreams", required=True, cascade=True, description="Whose target it is."),
        "target": String(
            required=True,
            rules=(text_rule(_check_target, form="host-and-port"),),
            description="host:port; the port is 8000 if none is given.",
        ),
        "weight": Integer(
            default=100, has_default=True, rules=(between(0, 65535),), description="Share of the requests; 0 = none."
        ),
        "tags": typedefs.tags(),
        "failover": Boolean(
            only_when_set=True, description="Used only while no regular target of the upstream is available."
        ),
    },
    prepare=_normalise,
)
