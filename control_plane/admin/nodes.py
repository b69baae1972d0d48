"""The nodes: our own view of the fleet, and Kong's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from control_plane.admin.messages import Answer, Call, entity_page, json_answer, not_found
from control_plane.admin.operations import OFFSET, SIZE, Operation, answer_of, page_of
from control_plane.admin.paging import decode_offset, encode_offset, page, page_size
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Fleet
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.nodes import NodeView
from control_plane.fleet.own_settings import Fence

NOTICED_WITHIN_S = 15.0
"""By then a node that lost its control plane knows it, even by a connection that died without a word."""

_TEXT: EntityBody = {"type": "string"}
_WHOLE: EntityBody = {"type": "integer"}
_NODE: EntityBody = answer_of(
    {
        "node_id": _TEXT,
        "hostname": _TEXT,
        "ip": _TEXT,
        "software": _TEXT,
        "labels": {"type": "object", "additionalProperties": _TEXT},
        "state": _TEXT,
        "connected": {"type": "boolean"},
        "version": _WHOLE,
        "snapshot_hash": _TEXT,
        "offered_version": _WHOLE,
        "in_flight": _WHOLE,
        "apply_took_s": {"type": ["number", "null"]},
        "rejected_version": {"type": ["integer", "null"]},
        "rejected_stage": {"type": ["string", "null"]},
        "faults": {"type": "array", "items": {"type": "object"}},
        "held_version": {"type": ["integer", "null"]},
        "reason": _TEXT,
        "first_seen": {"type": "number"},
        "last_seen": {"type": "number"},
        "last_seen_s_ago": {"type": "number"},
        "workers": _WHOLE,
        "proxy_addresses": {"type": "array", "items": _TEXT},
        "status_address": _TEXT,
        "sync_status": _TEXT,
        "certificate_expires_at": {"type": ["number", "null"]},
        "plane": {
            "type": ["object", "null"],
            "properties": {"id": _TEXT, "hostname": _TEXT},
            "description": "The control plane that the node is connected to.",
        },
    }
) | {"additionalProperties": True}

_REFUSED: EntityBody = answer_of(
    {
        "node_id": _TEXT,
        "address": _TEXT,
        "hostname": _TEXT,
        "software": _TEXT,
        "reason": _TEXT,
        "message": _TEXT,
        "times": _WHOLE,
        "first_at": {"type": "number"},
        "last_at": {"type": "number"},
    }
)


def mount(table: PathTable, fleet: Fleet, *, clock: Callable[[], float] = time.time) -> None:
    """Adds `/fleet/nodes` and `/clustering/...`."""
    nodes = _Nodes(fleet, clock)
    listed = Operation(summary="List the nodes and what each runs", answers={200: page_of(_NODE)})
    table.add("/fleet/nodes", {"GET": nodes.list_nodes}, about={"GET": listed})
    shown = Operation(summary="Show one node", answers={200: _NODE})
    table.add("/fleet/nodes/{node_id}", {"GET": nodes.get}, about={"GET": shown})
    out = Operation(summary="List whoever was not let in as a node, and why", answers={200: page_of(_REFUSED)})
    table.add("/fleet/refusals", {"GET": nodes.refused}, about={"GET": out})
    kongs = Operation(
        summary="List the nodes as Kong shows them",
        parameters=(SIZE, OFFSET),
        answers={200: page_of({"type": "object"})},
    )
    table.add("/clustering/data-planes", {"GET": nodes.data_planes}, about={"GET": kongs})
    status = Operation(summary="Show the nodes by id, as Kong once did", answers={200: {"type": "object"}})
    table.add("/clustering/status", {"GET": nodes.clustering_status}, about={"GET": status})


@dataclass(frozen=True, slots=True)
class _Nodes:
    fleet: Fleet
    clock: Callable[[], float]

    async def list_nodes(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        """All nodes at once: the fleet is bounded, and half of it would be no answer to "is everyone there?"."""
        now, fences = self.clock(), self.fleet.fences()
        return json_answer(200, entity_page([_node(view, now, fences) for view in self.fleet.nodes()]))

    async def get(self, _call: Call, path: tuple[str, ...]) -> Answer:
        now = self.clock()
        for view in self.fleet.nodes():
            if view.id == path[0]:
                return json_answer(200, _node(view, now, self.fleet.fences()))
        raise not_found()

    async def refused(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        """Of this control plane alone: each keeps its own."""
        return json_answer(200, entity_page([each.to_json() for each in self.fleet.refused()]))

    async def data_planes(self, call: Call, _path: tuple[str, ...]) -> Answer:
        size, key = page_size(call), decode_offset(call)
        after = key[0] if key is not None else ""
        rows = [row for row in self.fleet.data_planes() if str(row["id"]) > after]
        offset = encode_offset(str(rows[size - 1]["id"])) if len(rows) > size else None
        shown: list[JsonValue] = list(rows[:size])
        return json_answer(200, page(call, shown, offset=offset))

    async def clustering_status(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        body: EntityBody = {
            str(row["id"]): {name: row[name] for name in ("config_hash", "hostname", "ip", "last_seen")}
            for row in self.fleet.data_planes()
        }
        return json_answer(200, body, {"Deprecation": "true"})


def _node(view: NodeView, now: float, fences: Sequence[Fence]) -> EntityBody:
    age_s = view.beat_age_s if view.beat_age_s is not None else max(0.0, now - view.last_seen)
    return {
        "node_id": view.id,
        "hostname": view.hostname,
        "ip": view.ip,
        "software": view.software,
        "labels": dict(view.labels),
        "state": view.state.value,
        "connected": view.connected,
        "version": view.version,
        "snapshot_hash": view.snapshot_hash,
        "offered_version": view.offered_version,
        "in_flight": view.in_flight,
        "apply_took_s": view.applied_took_s,
        "rejected_version": view.rejected_version,
        "rejected_stage": view.rejected_stage.value if view.rejected_stage is not None else None,
        "faults": [asdict(fault) for fault in view.faults],
        "held_version": view.held_version,
        "reason": view.reason,
        "first_seen": view.first_seen,
        "last_seen": view.last_seen,
        "last_seen_s_ago": round(age_s, 3),
        "fencing": [] if view.connected else [_fencing(fence, age_s, now) for fence in fences],
        "workers": view.workers,
        "proxy_addresses": list(view.proxy_addresses),
        "status_address": view.status_address,
        "sync_status": view.sync_status.value,
        "certificate_expires_at": view.certificate_expires_at,
        "plane": None if view.plane is None else {"id": view.plane.id, "hostname": view.plane.hostname},
    }


def _fencing(fence: Fence, age_s: float, now: float) -> EntityBody:
    """What follows from a service's settings for a node that was last heard `age_s` ago; not the node's own word."""
    left_s = fence.after_s + NOTICED_WITHIN_S - age_s
    return {"service": fence.service, "fenced": left_s <= 0, "by": round(now + left_s, 3)}
