"""`switch --quick`: one plain write, each node follows as soon as it can, and says so."""

from __future__ import annotations

import time

from pointsman.cli.client import AdminClient, segment
from pointsman.cli.errors import ExitCode, RefusedRequest, failure
from pointsman.cli.json_values import Json, JsonObject, as_number, as_object, as_text
from pointsman.cli.output import Table
from pointsman.cli.session import Session
from pointsman.cli.waiting import FleetOutcome, fleet_nodes, node_name, outcome_of, reason_of, report, seconds, short_id


def switch_quickly(session: Session, service: str, to: str, *, wait_s: int, reason: str) -> ExitCode:
    """Writes the new host at once and waits for every node's word. The write stands whatever they say."""
    client = session.client()
    before = _service(client, service)
    _require_upstream(client, to)
    came_from = as_text(before.get("host"))
    started = time.monotonic()
    answer = client.write_json(
        "PATCH",
        f"/services/{segment(service)}",
        {"host": to},
        wait_s=wait_s,
        reason=reason,
    )
    took_s = time.monotonic() - started
    outcome = outcome_of(answer)
    nodes = _nodes(client, outcome)
    shown: list[Json] = list(nodes)
    value: JsonObject = {
        "service": as_text(before.get("name")) or service,
        "from": came_from,
        "to": to,
        "version": outcome.version,
        "complete": outcome.exit_code is ExitCode.DONE,
        "took_s": round(took_s, 6),
        "nodes": shown,
    }
    session.output.message(f"{value['service']}: {came_from} -> {to}, version {outcome.version}")
    rows = [
        (
            node_name(node),
            short_id(node),
            as_text(node["state"]),
            as_text(node["version"]),
            seconds(node["took_s"]),
            as_text(node["reason"]),
        )
        for node in nodes
    ]
    names = [as_text(node["node_id"]) for node in nodes]
    session.output.data(value, table=Table(("NODE", "ID", "STATE", "VERSION", "TOOK", "REASON"), rows), names=names)
    exit_code = report(session.output, outcome, took_s)
    if exit_code is ExitCode.DONE and came_from and came_from != to:
        session.output.message(f"to go back: pointsman switch {service} --to {came_from} --quick")
    return exit_code


def _service(client: AdminClient, service: str) -> JsonObject:
    try:
        return as_object(client.get(f"/services/{segment(service)}").body)
    except RefusedRequest as error:
        if error.status != 404:
            raise
        raise failure(
            ExitCode.NOT_FOUND,
            f"no service '{service}'",
            where="SERVICE",
            remedy="see what there is: pointsman service list",
        ) from error


def _require_upstream(client: AdminClient, upstream: str) -> None:
    """A host that is no upstream would be a DNS name to the nodes: a typing error would send traffic into the void."""
    try:
        client.get(f"/upstreams/{segment(upstream)}")
    except RefusedRequest as error:
        if error.status not in (400, 404):  # 400: an address or a name that can't be an upstream's
            raise
        raise failure(
            ExitCode.NOT_FOUND,
            f"no upstream '{upstream}'",
            where="--to",
            remedy="see what there is: pointsman upstream list; a plain host goes by "
            "`pointsman service set SERVICE host=...`",
        ) from error


def _nodes(client: AdminClient, outcome: FleetOutcome) -> list[JsonObject]:
    """Each node with the version it runs, and the reason from the outcome for those that lag."""
    reasons = {as_text(node.get("node_id")): node for node in outcome.lagging}
    nodes: list[JsonObject] = []
    for node in fleet_nodes(client):
        node_id = as_text(node.get("node_id"))
        lagging = reasons.get(node_id)
        nodes.append(
            {
                "node_id": node_id,
                "hostname": as_text(node.get("hostname")),
                "state": as_text(node.get("state")),
                "version": node.get("version"),
                "took_s": node.get("apply_took_s") if _runs(node, outcome.version) else None,
                "reason": reason_of(lagging) if lagging is not None else "",
            }
        )
    return nodes


def _runs(node: JsonObject, version: int | None) -> bool:
    """Whether what the node applied last is the switch or later; before, its time tells of an older version."""
    running = as_number(node.get("version"))
    return running is not None and version is not None and running >= version
