"""The health of an upstream as the fleet sees it: in Kong's shapes, and in ours with every node's word.

    GET /upstreams/{u}/health                     Kong's page of targets
    GET /upstreams/{u}/health?balancer_health=1   Kong's view of the upstream as a whole
    GET /fleet/upstreams/{u}/health               each target, address and node; who differs; requests open

Kong's control plane knows nothing of health and leaves the verdicts out. So do we as long as no live node has reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control_plane.admin.messages import Answer, Call, json_answer
from control_plane.admin.operations import OFFSET, SIZE, Operation, Parameter
from control_plane.admin.table import PathTable
from control_plane.admin.targets import Targets
from control_plane.admin.upstream_settings import find_upstream
from control_plane.admin.writes import Fleet
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.entities.upstream_settings import COLLECTION, ManualHealth, former_weight, manual_health
from control_plane.fleet.health import AddressReport, AddressState, AddressVerdict, TargetVerdict
from control_plane.store.contract import Transaction
from pointsman.rules.addresses import split_target
from pointsman.rules.upstream_health import UNSTEADY, is_usable

NODES_SHOWN_MAX = 100
"""Nodes listed for an address whose word is the fleet's; those that differ are always listed."""
_TARGETS = 1_000
_NO_FAILOVER = ("consistent-hashing", "sticky-sessions")


_BALANCER_HEALTH = Parameter(
    name="balancer_health", schema={"enum": [0, 1]}, description="1 = the upstream as a whole."
)


def mount(table: PathTable, targets: Targets, fleet: Fleet, *, node_id: str) -> None:
    """Adds the paths."""
    health = UpstreamHealth(targets, fleet, node_id)
    kong = Operation(
        summary="Show what the nodes say of the upstream's targets, as Kong does",
        parameters=(SIZE, OFFSET, _BALANCER_HEALTH),
        answers={200: {"type": "object", "required": ["node_id", "next"]}},
    )
    table.add("/upstreams/{upstreams}/health", {"GET": health.kong}, about={"GET": kong})
    ours = Operation(summary="Show which node says what of each target", answers={200: {"type": "object"}})
    table.add("/fleet/upstreams/{upstreams}/health", {"GET": health.ours}, about={"GET": ours})


@dataclass(frozen=True, slots=True)
class _Facts:
    """An upstream with all of its targets, oldest first, and our settings of it."""

    upstream: EntityBody
    targets: list[EntityBody]
    settings: EntityBody | None


@dataclass(frozen=True, slots=True)
class UpstreamHealth:
    """The handlers; the variable segment is the upstream's id or name."""

    targets: Targets
    fleet: Fleet
    node_id: str

    async def kong(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Kong's page of targets, or with `balancer_health=1` the upstream."""
        if call.argument("balancer_health") == "1":
            facts = await self._facts(path[0])
            whole = self._balancer(facts)
            body: EntityBody = {"node_id": self.node_id, "next": None}
            return json_answer(200, body if whole is None else {**body, "data": whole})
        page = await self.targets.newest_page(call, path[0])
        rows = page["data"]
        assert isinstance(rows, list)
        shown: list[JsonValue] = [self._kong_target(row) for row in rows if isinstance(row, dict)]
        return json_answer(200, {"node_id": self.node_id, **page, "data": shown})

    async def ours(self, _call: Call, path: tuple[str, ...]) -> Answer:
        """Everything that is known, with the nodes' own words."""
        facts = await self._facts(path[0])
        names = self.fleet.live_nodes()
        targets = [self._our_target(facts, target, names) for target in facts.targets]
        whole = self._balancer(facts)
        reporting = {
            node for target in facts.targets if (verdict := self._verdict(target)) is not None for node in verdict.nodes
        }
        shown: list[JsonValue] = list(targets)
        return json_answer(
            200,
            {
                "upstream": {"id": facts.upstream["id"], "name": facts.upstream["name"]},
                "health": whole["health"] if whole is not None else None,
                "balancer_health": whole["balancer_health"] if whole is not None else None,
                "nodes": {"live": len(names), "reporting": len(reporting)},
                "disagreement": any(target["disagreement"] for target in targets),
                "in_flight": sum(count for target in targets if isinstance(count := target["in_flight"], int)),
                "in_flight_s_ago": round(age, 3) if (age := self.fleet.loads_age_s()) is not None else None,
                "targets": shown,
            },
        )

    async def _facts(self, key: str) -> _Facts:
        def work(tx: Transaction) -> _Facts:
            upstream = find_upstream(tx, key)
            upstream_id = str(upstream["id"])
            targets: list[EntityBody] = []
            while True:
                after = str(targets[-1]["id"]) if targets else ""
                page = tx.page("targets", size=_TARGETS, after=after, parent=("upstream", upstream_id))
                targets.extend(page)
                if len(page) < _TARGETS:
                    break
            targets.sort(key=_created_at)
            return _Facts(upstream, targets, tx.get(COLLECTION, upstream_id))

        return await self.targets.writes.store.read(work)

    def _verdict(self, target: EntityBody) -> TargetVerdict | None:
        upstream = target["upstream"]
        assert isinstance(upstream, dict)
        verdict = self.fleet.verdict(str(upstream["id"]), str(target["id"]))
        return verdict if verdict is not None and verdict.nodes else None

    def _kong_target(self, target: EntityBody) -> EntityBody:
        verdict = self._verdict(target)
        if verdict is None:
            return target
        addresses: list[JsonValue] = [
            {**_place(address), "health": address.state.word} for address in verdict.addresses
        ]
        if verdict.record_type == UNSTEADY:
            addresses = [{**_one_place(target, verdict), "health": verdict.word}]
        return {**target, "health": verdict.word, "data": {**_host(target, verdict), "addresses": addresses}}

    def _balancer(self, facts: _Facts) -> EntityBody | None:
        hosts: list[JsonValue] = []
        weights = {True: (0, 0), False: (0, 0)}  # by failover: available, total
        for target in facts.targets:
            verdict = self._verdict(target)
            if verdict is None:
                continue
            addresses: list[JsonValue] = [
                {**_place(address), "healthy": _usable(address)} for address in verdict.addresses
            ]
            if verdict.record_type == UNSTEADY:
                usable = any(_usable(address) for address in verdict.addresses)
                addresses = [{**_one_place(target, verdict), "healthy": usable}]
            hosts.append({**_host(target, verdict), "addresses": addresses})
            failover = target.get("failover") is True
            available, total = _weights(verdict)
            weights[failover] = (weights[failover][0] + available, weights[failover][1] + total)
        if not hosts and facts.targets:
            return None
        if not facts.targets and not self.fleet.live_nodes():
            return None
        available, total = weights[False]
        if not available and weights[True][0] and facts.upstream["algorithm"] not in _NO_FAILOVER:
            available, total = weights[True]
        usable = is_usable(available, total, _threshold(facts.upstream))
        word = AddressState.HEALTHY.word if usable else AddressState.UNHEALTHY.word
        return {
            "id": facts.upstream["id"],
            "health": word if checking(facts.upstream) else AddressState.OFF.word,
            "balancer_health": word,
            "details": {"healthy": usable, "weight": _weight_facts(available, total), "hosts": hosts},
        }

    def _our_target(self, facts: _Facts, target: EntityBody, names: Mapping[str, str]) -> EntityBody:
        upstream_id, target_id = str(facts.upstream["id"]), str(target["id"])
        verdict = self.fleet.verdict(upstream_id, target_id)
        in_flight = verdict.in_flight if verdict is not None else {}
        now = self.targets.writes.now()
        said: list[JsonValue] = [
            _word(word) for word in manual_health(facts.settings) if word.target == target_id and word.lasts(now)
        ]
        known = verdict is not None and bool(verdict.nodes)
        return {
            "id": target_id,
            "target": target["target"],
            "weight": target["weight"],
            "failover": target.get("failover") is True,
            "former_weight": former_weight(facts.settings, target_id),
            "health": verdict.word if verdict is not None and known else None,
            "disagreement": verdict is not None and verdict.disagreement,
            "dns": _record_type(target, verdict) if verdict is not None and known else None,
            "in_flight": sum(in_flight.values()),
            "in_flight_by_node": dict(in_flight),
            "manual": said,
            "addresses": [_our_address(address, names) for address in verdict.addresses] if verdict else [],
            "unresolved": [
                {"node_id": node, "hostname": names.get(node, ""), "error": error}
                for node, error in (verdict.failing.items() if verdict is not None else ())
            ],
        }


def checking(upstream: EntityBody) -> bool:
    """Whether anything is checked. Thresholds of successes alone switch nothing on (as on the nodes)."""
    checks = _record(upstream.get("healthchecks"))
    active, passive = _record(checks.get("active")), _record(checks.get("passive"))
    unhealthy = _record(passive.get("unhealthy"))
    return bool(
        _record(active.get("healthy")).get("interval")
        or _record(active.get("unhealthy")).get("interval")
        or unhealthy.get("tcp_failures")
        or unhealthy.get("timeouts")
        or unhealthy.get("http_failures")
    )


def _record(value: JsonValue) -> EntityBody:
    return value if isinstance(value, dict) else {}


def _threshold(upstream: EntityBody) -> float:
    value = _record(upstream.get("healthchecks")).get("threshold")
    return float(value) if isinstance(value, int | float) else 0.0


def _created_at(target: EntityBody) -> float:
    value = target["created_at"]
    return float(value) if isinstance(value, int | float) else 0.0


def _usable(address: AddressVerdict) -> bool:
    return address.state is not AddressState.UNHEALTHY


def _weights(verdict: TargetVerdict) -> tuple[int, int]:
    available = sum(address.weight for address in verdict.addresses if _usable(address))
    return available, sum(address.weight for address in verdict.addresses)


def _weight_facts(available: int, total: int) -> EntityBody:
    return {"total": total, "available": available, "unavailable": total - available}


def _place(address: AddressVerdict) -> EntityBody:
    return {"ip": _shown(address.ip), "port": address.port, "weight": address.weight}


def _one_place(target: EntityBody, verdict: TargetVerdict) -> EntityBody:
    """How Kong shows a name whose answers are good for one moment: as an address that is the name."""
    host, port = split_target(str(target["target"]))
    return {"ip": host, "port": port, "weight": sum(address.weight for address in verdict.addresses)}


def _shown(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _host(target: EntityBody, verdict: TargetVerdict) -> EntityBody:
    host, port = split_target(str(target["target"]))
    return {
        "host": _shown(host),
        "port": port,
        "dns": _record_type(target, verdict),
        "nodeWeight": target["weight"],
        "weight": _weight_facts(*_weights(verdict)),
    }


def _record_type(target: EntityBody, verdict: TargetVerdict) -> str:
    """How the target's name was resolved; an address counts as the record it would be, a failure as its error."""
    if not verdict.addresses:
        return verdict.error or "unknown"
    if verdict.record_type:
        return verdict.record_type
    return "AAAA" if ":" in split_target(str(target["target"]))[0] else "A"


def _our_address(address: AddressVerdict, names: Mapping[str, str]) -> EntityBody:
    dissenting = address.dissenting
    agreeing = [node for node in sorted(address.said) if node not in set(dissenting)]
    return {
        **_place(address),
        "health": address.state.word,
        "verdict": address.agreement.value,
        "nodes": _said(address.said, (*dissenting, *agreeing[:NODES_SHOWN_MAX]), names),
        "nodes_omitted": max(0, len(agreeing) - NODES_SHOWN_MAX),
        "dissenting": list(dissenting),
    }


def _said(said: Mapping[str, AddressReport], nodes: Sequence[str], names: Mapping[str, str]) -> list[JsonValue]:
    return [
        {
            "node_id": node,
            "hostname": names.get(node, ""),
            "health": said[node].state.word,
            "since": said[node].since,
            "reason": said[node].reason,
        }
        for node in nodes
    ]


def _word(word: ManualHealth) -> EntityBody:
    return {"address": word.address or None, "healthy": word.healthy, "until": word.until}
