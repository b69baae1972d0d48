"""`/fleet/traffic`: what the sides of services serve now, over the fleet and by node.

Figures are the nodes' own (`fleet/side_figures.py`), reported once a second; rates are of the last ten seconds. A
service without any other side than its host is shown too, as long as it has traffic or had some since its nodes
started.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from control_plane.admin.messages import Answer, Call, json_answer, not_found
from control_plane.admin.operations import Operation, Parameter, answer_of
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Fleet
from control_plane.entities.service_settings import COLLECTION as SERVICE_SETTINGS
from control_plane.entities.service_settings import SHARE_MAX
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.side_figures import WINDOW_S, MirrorFigures, SideFigures, SideRate, together
from control_plane.store import editor
from control_plane.store.contract import Store, Transaction

SERVICES_MAX = 256
"""The busiest are shown; `omitted` says how many are not."""
QUANTILES = (0.5, 0.95, 0.99)

_TEXT: EntityBody = {"type": "string"}
_WHOLE: EntityBody = {"type": "integer", "minimum": 0}
_NUMBER: EntityBody = {"type": "number", "minimum": 0}
_OR_NONE: EntityBody = {"type": ["number", "null"], "minimum": 0}
_FIGURES: EntityBody = {
    "requests_per_s": _NUMBER,
    "error_ratio": _OR_NONE,
    "errors_5xx_per_s": _NUMBER,
    "connect_errors_per_s": _NUMBER,
    "latency_ms": answer_of({"p50": _OR_NONE, "p95": _OR_NONE, "p99": _OR_NONE}),
    "open": _WHOLE,
    "totals": answer_of({"requests": _WHOLE, "errors_5xx": _WHOLE, "connect_errors": _WHOLE, "closed_late": _WHOLE}),
}
_MIRROR = answer_of({"sent": _WHOLE, "errors_5xx": _WHOLE, "failed": _WHOLE, "skipped": _WHOLE})
_SIDE = answer_of(
    {
        "upstream": {"type": ["string", "null"], "description": "Its id; null = the host is no upstream."},
        "name": {"type": "string", "description": "The upstream's name, or the host."},
        "role": {"type": "string", "enum": ["primary", "split", "preview", "mirror", "left"]},
        "share_asked": {"type": ["number", "null"], "description": "Of the requests without a mark, between 0 and 1."},
        "share_seen": _OR_NONE,
        **_FIGURES,
        "mirror": {"anyOf": [_MIRROR, {"type": "null"}]},
        "nodes": {"type": "array", "items": answer_of({"node_id": _TEXT, "hostname": _TEXT, **_FIGURES})},
    }
)
_SERVICE = answer_of({"service": _TEXT, "name": _TEXT, "sides": {"type": "array", "items": _SIDE}})
_TRAFFIC = answer_of(
    {"window_s": _NUMBER, "nodes": _WHOLE, "omitted": _WHOLE, "data": {"type": "array", "items": _SERVICE}}
)

WHICH = Parameter(
    name="service", schema={"type": "string"}, description="Name or id; without it, the busiest services."
)


def mount(table: PathTable, store: Store, fleet: Fleet) -> None:
    """Adds the path."""
    shown = Operation(
        summary="Show what the sides of services serve now, over the fleet and by node",
        parameters=(WHICH,),
        answers={200: _TRAFFIC},
    )
    table.add("/fleet/traffic", {"GET": _Traffic(store, fleet).get}, about={"GET": shown})


@dataclass(frozen=True, slots=True)
class Roles:
    """What each upstream is to a service now: (id, or empty for a host that is no upstream) -> role and share."""

    service: str
    name: str
    names: Mapping[str, str]
    roles: Mapping[str, tuple[str, float | None]]


@dataclass(frozen=True, slots=True)
class _Traffic:
    store: Store
    fleet: Fleet

    async def get(self, call: Call, _path: tuple[str, ...]) -> Answer:
        """By service, side and node."""
        wanted = call.argument("service") or ""
        rates = self.fleet.side_rates()
        live = self.fleet.live_nodes()
        by_service: dict[str, list[SideRate]] = {}
        for rate in rates:
            if rate.node in live:
                by_service.setdefault(rate.row.service, []).append(rate)

        def look(tx: Transaction) -> list[Roles]:
            if wanted:
                service = editor.lookup(tx, "services", wanted)
                if service is None:
                    raise not_found()
                known = by_service.get(str(service["id"]), ())
                return [roles_of(tx, service, {rate.row.upstream for rate in known})]
            found = []
            for service_id in sorted(by_service, key=lambda each: (-_busy(by_service[each]), each))[:SERVICES_MAX]:
                service = tx.get("services", service_id)
                if service is not None:
                    found.append(roles_of(tx, service, {rate.row.upstream for rate in by_service[service_id]}))
            return found

        services = await self.store.read(look)
        data: list[JsonValue] = [_service(each, by_service.get(each.service, ()), live) for each in services]
        omitted = 0 if wanted else max(len(by_service) - SERVICES_MAX, 0)
        return json_answer(200, {"window_s": WINDOW_S, "nodes": len(live), "omitted": omitted, "data": data})


def roles_of(tx: Transaction, service: EntityBody, counted: Collection[str]) -> Roles:
    """Return what the upstreams that the service names, and those that nodes counted, are to it now."""
    service_id, host = str(service["id"]), str(service.get("host") or "")
    settings = tx.get(SERVICE_SETTINGS, service_id) or {}
    primary = tx.find("upstreams", {"name": host})
    primary_id = str(primary["id"]) if primary is not None else ""
    split = settings.get("split")
    share = split.get("share") if isinstance(split, dict) else None
    to_split = share / SHARE_MAX if isinstance(share, int) else 0.0
    roles: dict[str, tuple[str, float | None]] = {primary_id: ("primary", 1 - to_split)}
    for field in ("split", "preview", "mirror"):
        side = settings.get(field)
        if isinstance(side, dict):
            roles.setdefault(str(side.get("to")), (field, to_split if field == "split" else None))
    for upstream in sorted(counted):
        roles.setdefault(upstream, ("left", None))
    names = {"": host}
    for upstream in roles:
        body = tx.get("upstreams", upstream) if upstream else None
        if upstream:
            names[upstream] = str(body["name"]) if body is not None else upstream
    return Roles(service_id, str(service.get("name") or service_id), names, roles)


def _busy(rates: Sequence[SideRate]) -> float:
    return sum(rate.lately.requests / rate.seconds for rate in rates)


def _service(roles: Roles, rates: Sequence[SideRate], hostnames: Mapping[str, str]) -> EntityBody:
    by_side: dict[str, list[SideRate]] = {upstream: [] for upstream in roles.roles}
    for rate in rates:
        by_side.setdefault(rate.row.upstream, []).append(rate)
    total = _busy(rates)
    sides: list[JsonValue] = []
    for upstream, of_side in by_side.items():
        role, asked = roles.roles.get(upstream, ("left", None))
        nodes: list[JsonValue] = [
            {"node_id": rate.node, "hostname": hostnames[rate.node], **_figures([rate])}
            for rate in sorted(of_side, key=lambda rate: (hostnames[rate.node], rate.node))
        ]
        sides.append(
            {
                "upstream": upstream or None,
                "name": roles.names.get(upstream, upstream),
                "role": role,
                "share_asked": asked,
                "share_seen": round(_busy(of_side) / total, 4) if total else None,
                **_figures(of_side),
                "mirror": _mirror(of_side),
                "nodes": nodes,
            }
        )
    return {"service": roles.service, "name": roles.name, "sides": sides}


def _figures(rates: Sequence[SideRate]) -> EntityBody:
    lately = together(rate.lately for rate in rates)
    sums = together(rate.row.figures for rate in rates)
    latency: EntityBody = {f"p{round(q * 100)}": _rounded(lately.quantile(q)) for q in QUANTILES}
    return {
        "requests_per_s": _per_s(rates, lambda lately: lately.requests),
        "error_ratio": _rounded(lately.error_ratio, 6),
        "errors_5xx_per_s": _per_s(rates, lambda lately: lately.errors_5xx),
        "connect_errors_per_s": _per_s(rates, lambda lately: lately.connect_errors),
        "latency_ms": latency,
        "open": sums.open,
        "totals": {
            "requests": sums.requests,
            "errors_5xx": sums.errors_5xx,
            "connect_errors": sums.connect_errors,
            "closed_late": sum(rate.row.closed_late for rate in rates),
        },
    }


def _per_s(rates: Sequence[SideRate], count: Callable[[SideFigures], int]) -> float:
    return round(sum(count(rate.lately) / rate.seconds for rate in rates), 3)


def _mirror(rates: Sequence[SideRate]) -> EntityBody | None:
    found: list[MirrorFigures] = [rate.row.mirror for rate in rates if rate.row.mirror is not None]
    if not found:
        return None
    return {
        "sent": sum(each.sent for each in found),
        "errors_5xx": sum(each.errors_5xx for each in found),
        "failed": sum(each.failed for each in found),
        "skipped": sum(each.skipped for each in found),
    }


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
