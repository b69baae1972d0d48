"""upstream_settings: what we let an operator say of an upstream beyond Kong's entity. One for an upstream, with its id.

Not one of Kong's collections: it has no path of its own (`/fleet/upstreams/{u}/settings` shows it), stands in files
below `_pointsman`, and is in `STORED` but not in `SCHEMAS`. It goes with its upstream.

`manual_health` is an operator's word on a target, or on one of its addresses, above all checks while it lasts.
`former_weights` is what `pointsman target drain` took away and `ready` gives back. Both name targets by id. A target
that goes leaves its rows behind; nodes find nothing they fit, and `tidied` removes them.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from control_plane.entities import typedefs
from control_plane.entities.fields import (
    INTEGER_MAX,
    Array,
    Boolean,
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

COLLECTION = "upstream_settings"
SLOW_START_S_MAX = 3600
UNTIL_LIFTED = 0
PORT_DEFAULT = 8000
NAMING_TARGETS = ("manual_health", "former_weights")
"""The fields that are rows about targets."""
"""Kong's port of an address that is given without one."""


def normal_address(text: str) -> str:
    """Return `ip:port` in one form, IPv6 in brackets; a missing port is 8000, as in Kong.

    Raises:
        BadAddress: it is no IP address with or without a port.
    """
    try:
        return f"[{ipaddress.IPv6Address(text)}]:{PORT_DEFAULT}"
    except ValueError:
        pass
    parsed = parse_host_port(text)
    if parsed.kind is AddressKind.NAME:
        raise BadAddress(f"'{text}' is a name; give an ip, or ip:port")
    host = parsed.host.strip("[]")
    port = PORT_DEFAULT if parsed.port is None else parsed.port
    ip = ipaddress.ip_address(host)
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Return ip (no brackets) and port of a normal address; ("", 0) for the empty one, which stands for all."""
    if not address:
        return "", 0
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _check_address(value: str) -> str | None:
    try:
        return None if normal_address(value) == value else f"write it as {normal_address(value)}"
    except BadAddress as error:
        return f"invalid address: {error}"


UPSTREAM_SETTINGS = Schema(
    collection=COLLECTION,
    singular="upstream_settings",
    endpoint_key=None,
    foreign_keys={"upstreams": ("name",)},
    fields={
        "id": typedefs.uuid("The upstream's id."),
        "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "upstream": Foreign(collection="upstreams", required=True, cascade=True, description="Whose settings."),
        "slow_start": Number(
            default=0,
            has_default=True,
            required=True,
            rules=(between(0, SLOW_START_S_MAX),),
            description="Seconds over which a new or recovered target comes up to its full weight; 0 = at once.",
        ),
        "probe_sampling": String(
            default="auto",
            has_default=True,
            required=True,
            rules=(one_of("auto", "on", "off"),),
            description="Whether a few nodes probe for all; auto = in large fleets.",
        ),
        "manual_health": Array(
            default=[],
            has_default=True,
            required=True,
            description="An operator's word on targets, above all checks while it lasts.",
            elements=Record(
                filled_when_missing=False,
                fields={
                    "target": String(is_uuid=True, required=True, description="The target's id."),
                    "address": String(
                        rules=(text_rule(_check_address, form="ip-and-port"),),
                        description="ip:port; none = all addresses of the target.",
                    ),
                    "healthy": Boolean(required=True),
                    "until": Integer(
                        default=UNTIL_LIFTED,
                        has_default=True,
                        required=True,
                        rules=(between(0, INTEGER_MAX),),
                        description="Seconds since the epoch; 0 = until it is lifted.",
                    ),
                },
            ),
        ),
        "former_weights": Array(
            default=[],
            has_default=True,
            required=True,
            description="Weights of drained targets, to go back to.",
            elements=Record(
                filled_when_missing=False,
                fields={
                    "target": String(is_uuid=True, required=True, description="The target's id."),
                    "weight": Integer(required=True, rules=(between(0, 65535),)),
                },
            ),
        ),
    },
)


@dataclass(frozen=True, slots=True)
class ManualHealth:
    """One word of an operator. `address` empty = all addresses of the target; `until` 0 = until lifted."""

    target: str
    address: str
    healthy: bool
    until: int

    def lasts(self, now: float) -> bool:
        """Whether it still counts."""
        return self.until == UNTIL_LIFTED or self.until > now

    def to_json(self) -> EntityBody:
        """The row as it is stored."""
        return {
            "target": self.target,
            "address": self.address or None,
            "healthy": self.healthy,
            "until": self.until,
        }


def with_target_ids(settings: EntityBody, find: Callable[[str, str], str | None]) -> EntityBody:
    """Return the settings with targets by id; `find` takes the field and what stands there, an id or an address.

    A row that it finds nothing for is left out; what is no row of a target is left for the schema to refuse.
    """
    by_id = dict(settings)
    for field in NAMING_TARGETS:
        rows = settings.get(field)
        if not isinstance(rows, list):
            continue
        found: list[JsonValue] = []
        for row in rows:
            key = row.get("target") if isinstance(row, dict) else None
            if not isinstance(row, dict) or not isinstance(key, str):
                found.append(row)
                continue
            target_id = find(field, key)
            if target_id is not None:
                found.append({**row, "target": target_id})
        by_id[field] = found
    return by_id


def manual_health(settings: EntityBody | None) -> list[ManualHealth]:
    """Return the operator's words that stored settings hold; None has none."""
    rows = settings.get("manual_health") if settings is not None else None
    found: list[ManualHealth] = []
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict):
            until = row.get("until")
            found.append(
                ManualHealth(
                    target=str(row.get("target")),
                    address=str(row.get("address") or ""),
                    healthy=row.get("healthy") is True,
                    until=until if isinstance(until, int) else UNTIL_LIFTED,
                )
            )
    return found


def with_word(settings: EntityBody | None, word: ManualHealth, *, now: float) -> list[JsonValue]:
    """Return `manual_health` with `word` in the place of what it overrides: all of a target's, or that address's."""
    kept = [row for row in manual_health(settings) if row.lasts(now) and not _covers(word, row)]
    return [row.to_json() for row in (*kept, word)]


def without_words(settings: EntityBody | None, target: str, address: str, *, now: float) -> list[JsonValue]:
    """Return `manual_health` without what was said of a target (address empty), or of one of its addresses."""
    lifted = ManualHealth(target, address, healthy=True, until=UNTIL_LIFTED)
    return [row.to_json() for row in manual_health(settings) if row.lasts(now) and not _covers(lifted, row)]


def _covers(word: ManualHealth, row: ManualHealth) -> bool:
    return row.target == word.target and (not word.address or row.address == word.address)


def former_weight(settings: EntityBody | None, target: str) -> int | None:
    """Return the weight that a drained target had, None when it is not drained."""
    rows = settings.get("former_weights") if settings is not None else None
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("target") == target and isinstance(weight := row.get("weight"), int):
            return weight
    return None


def with_former_weight(settings: EntityBody | None, target: str, weight: int | None) -> list[JsonValue]:
    """Return `former_weights` with this target's set, or removed by None."""
    rows = settings.get("former_weights") if settings is not None else None
    kept: list[JsonValue] = [
        row
        for row in (rows if isinstance(rows, list) else ())
        if not (isinstance(row, dict) and row.get("target") == target)
    ]
    return kept if weight is None else [*kept, {"target": target, "weight": weight}]


def tidied(settings: EntityBody, *, targets: Collection[str], now: float) -> EntityBody | None:
    """Return the settings without expired words and rows of targets that are gone; None when there are none such."""
    words: list[JsonValue] = [
        row.to_json() for row in manual_health(settings) if row.lasts(now) and row.target in targets
    ]
    rows = settings.get("former_weights")
    weights: list[JsonValue] = [
        row
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, dict) and row.get("target") in targets
    ]
    if words == settings.get("manual_health") and weights == rows:
        return None
    return {**settings, "manual_health": words, "former_weights": weights}


def until_of(ttl_s: float, *, now: float) -> int:
    """Return when a time to live ends, rounded up to whole seconds; 0 seconds = until lifted."""
    return math.ceil(now + ttl_s) if ttl_s > 0 else UNTIL_LIFTED
