"""Every command's output, as a table and as JSON, compared with files in golden/cli.

The command line runs in this process against an Admin API made of prepared answers. A golden file holds what an
operator would see: exit code, stdout, stderr. `POINTSMAN_GOLDEN=write` writes them anew; read the difference before
it is committed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from control_plane.switching.canary import Canary
from pointsman.cli import files, planes, switch_quick
from pointsman.cli.entities import KINDS
from pointsman.cli.entities import TARGET as TARGET_KIND
from pointsman.cli.json_values import Json, JsonObject
from pointsman.cli.main import build_app, main
from tests.integration.cli_admin import FakeAdmin
from tests.integration.cli_cases import OTHER_CASES, Case
from tests.support import canary_views

GOLDEN = Path(__file__).parent / "golden" / "cli"
ROOT = Path(__file__).parents[2]

SERVICE: JsonObject = {
    "id": "11111111-1111-4111-8111-111111111111",
    "name": "example-service",
    "protocol": "http",
    "host": "blue",
    "port": 80,
    "path": "/anything",
    "retries": 5,
    "enabled": True,
    "tags": ["shop", "prod"],
    "client_certificate": None,
    "created_at": 1700000000,
    "updated_at": 1700000000,
}
NAMELESS: JsonObject = {**SERVICE, "id": "11111111-1111-4111-8111-222222222222", "name": None, "tags": None}
ROUTE: JsonObject = {
    "id": "22222222-2222-4222-8222-222222222222",
    "name": "example-route",
    "protocols": ["http", "https"],
    "methods": None,
    "hosts": ["example.domain.com"],
    "paths": None,
    "headers": {"x-a": ["one", "two"]},
    "service": {"id": SERVICE["id"]},
    "tags": None,
}
UPSTREAM: JsonObject = {
    "id": "33333333-3333-4333-8333-333333333333",
    "name": "blue",
    "algorithm": "round-robin",
    "slots": 10000,
    "tags": None,
    "healthchecks": {"active": {"healthy": {"interval": 0}, "type": "http"}, "threshold": 0},
}
TARGET: JsonObject = {
    "id": "44444444-4444-4444-8444-444444444444",
    "upstream": {"id": UPSTREAM["id"]},
    "target": "192.168.34.15:80",
    "weight": 100,
    "tags": None,
    "created_at": 1700000000.5,
}


def node(number: int, **facts: Json) -> JsonObject:
    return {
        "node_id": f"0000000{number}-0000-4000-8000-000000000000",
        "hostname": f"dp-{number}",
        "ip": "127.0.0.1",
        "software": "pointsman/0.1.0",
        "labels": {"zone": f"eu-{number}"},
        "state": "current",
        "version": 9,
        "snapshot_hash": "ab" * 32,
        "last_seen_s_ago": 0.4,
        "apply_took_s": 0.0042,
        "faults": [],
        "reason": "",
        **facts,
    }


FAULT: JsonObject = {
    "code": "regex",
    "collection": "routes",
    "entity_id": ROUTE["id"],
    "entity_name": "example-route",
    "field": "paths",
    "message": "missing ): (",
}
LAGGING: JsonObject = {
    "node_id": "00000002-0000-4000-8000-000000000000",
    "hostname": "dp-2",
    "state": "lagging",
    "version": 8,
    "reason": "offered and not answered, last heard 0.6 s ago",
    "stage": None,
    "faults": [],
}
REFUSING: JsonObject = {
    **LAGGING,
    "state": "rejected",
    "reason": "routes example-route paths: missing ): (",
    "stage": "build",
    "faults": [FAULT],
}
SUMMARY: JsonObject = {
    "created": 1,
    "updated": 1,
    "deleted": 1,
    "unchanged": 6,
    "changes": [
        {
            "operation": "create",
            "entity_type": "target",
            "id": TARGET["id"],
            "name": "192.168.34.15:80",
            "parent": {"upstream": "blue"},
            "fields": [],
        },
        {
            "operation": "update",
            "entity_type": "service",
            "id": SERVICE["id"],
            "name": "example-service",
            "parent": None,
            "fields": [
                {"field": "host", "before": "blue", "after": "green"},
                {"field": "path", "before": "/anything", "after": None},
            ],
        },
        {
            "operation": "delete",
            "entity_type": "route",
            "id": ROUTE["id"],
            "name": "example-route",
            "parent": {"service": "example-service"},
            "fields": [],
        },
    ],
    "omitted": 0,
}
NOT_FOUND: JsonObject = {"message": "Not found"}
REFUSED_FILE: JsonObject = {
    "code": 14,
    "name": "invalid declarative configuration",
    "message": "declarative config is invalid: {...}",
    "fields": {},
    "problems": [
        {
            "entity_type": "service",
            "entity_name": "example-service",
            "path": "services[0]",
            "line": 2,
            "field": "hots",
            "message": "unknown field",
            "remedy": "write 'host' if that was meant, or remove 'hots'",
        },
        {
            "entity_type": "",
            "entity_name": "",
            "path": "plugins",
            "line": 1,
            "field": "",
            "message": "'plugins' are not supported yet",
            "remedy": "remove 'plugins' from the file",
        },
    ],
    "problems_omitted": 3,
}
SCHEMA_VIOLATION: JsonObject = {
    "code": 2,
    "name": "schema violation",
    "message": "2 schema violations (host: required field missing; protocols.1: expected one of: http)",
    "fields": {"host": "required field missing", "protocols": [None, "expected one of: http"]},
}
TAKEN: JsonObject = {
    "code": 5,
    "name": "unique constraint violation",
    "message": """UNIQUE violation detected on '{name="example-service"}'""",
    "fields": {"name": "example-service"},
}
VERSIONS: JsonObject = {
    "data": [
        {
            "version": 9,
            "committed_at": 1700000100.25,
            "author": "ann",
            "source": "admin-api",
            "address": "127.0.0.1",
            "reason": "release 2.7.1",
            "change_count": 1,
        },
        {
            "version": 8,
            "committed_at": 1700000000.0,
            "author": "",
            "source": "sync",
            "address": "127.0.0.1",
            "reason": "",
            "change_count": 8,
        },
    ],
    "next": None,
}

TRACED: JsonObject = {
    "node": {"node_id": "00000001-0000-4000-8000-000000000000", "hostname": "dp-1"},
    "request": {
        "method": "GET",
        "scheme": "http",
        "host": "a.example",
        "target": "/shop/1?x=1",
        "port": 80,
        "sni": None,
    },
    "version": 9,
    "routes": 3,
    "status": None,
    "message": "",
    "path": "/shop/1",
    "matched_path": "/shop",
    "captures": {"1": "shop"},
    "route": {"id": ROUTE["id"], "name": "example-route", "service": {"id": SERVICE["id"], "name": "example-service"}},
    "upstream": {
        "method": "GET",
        "protocol": "http",
        "path": "/anything/1?x=1",
        "host": None,
        "name": "blue",
        "endpoints": [
            {
                "ip": "192.168.34.15",
                "port": 80,
                "host": "192.168.34.15",
                "weight": 100,
                "available": True,
                "in_flight": 3,
                "host_sent": "192.168.34.15",
            }
        ],
        "endpoints_total": 1,
        "error": "",
    },
    "near": [
        {
            "route": {"id": "22222222-2222-4222-8222-333333333333", "name": "everything", "service": None},
            "failures": [],
            "outranked": "the winner has: longer path",
        },
        {
            "route": {"id": "22222222-2222-4222-8222-444444444444", "name": None, "service": None},
            "failures": [
                {"field": "methods", "wants": "POST, PUT", "has": "GET"},
                {"field": "headers.x-b", "wants": "1", "has": ""},
            ],
            "outranked": "",
        },
    ],
}

FILE = "examples/blue-green.yaml"
SERVICES = f"/services?size={1000}"
PATCH = "/services/example-service"


SIDE_OF = "/fleet/services/example-service/{}"
SETTINGS: JsonObject = {
    "id": SERVICE["id"],
    "service": {"id": SERVICE["id"]},
    "partition": "serve_stale",
    "fence_after_s": 60,
    "split": None,
    "preview": None,
    "mirror": None,
    "drain_deadline": None,
}
PREVIEW: JsonObject = {"to": UPSTREAM["id"], "header": "x-preview", "cookie": None, "value": "1"}


def figures(requests_per_s: float, **facts: Json) -> JsonObject:
    return {
        "requests_per_s": requests_per_s,
        "error_ratio": 0.0 if requests_per_s else None,
        "errors_5xx_per_s": 0.0,
        "connect_errors_per_s": 0.0,
        "latency_ms": {"p50": 3.2, "p95": 9, "p99": 12.75}
        if requests_per_s
        else {"p50": None, "p95": None, "p99": None},
        "open": 0,
        "totals": {"requests": 8000, "errors_5xx": 0, "connect_errors": 0, "closed_late": 0},
        **facts,
    }


def side(name: str, role: str, asked: Json, seen: Json, **facts: Json) -> JsonObject:
    return {"upstream": UPSTREAM["id"], "name": name, "role": role, "share_asked": asked, "share_seen": seen,
            "mirror": None, "nodes": [], **facts}  # fmt: skip


TRAFFIC: JsonObject = {
    "window_s": 10.0,
    "nodes": 2,
    "omitted": 3,
    "data": [
        {
            "service": SERVICE["id"],
            "name": "example-service",
            "sides": [
                side("blue", "primary", 0.95, 0.9512, **figures(301.4, open=7), nodes=[
                    {"node_id": "00000001-0000-4000-8000-000000000000", "hostname": "dp-1", **figures(151.0, open=4)},
                    {"node_id": "00000002-0000-4000-8000-000000000000", "hostname": "dp-2", **figures(150.4, open=3)},
                ]),
                side("green", "split", 0.05, 0.0488, **figures(15.5, error_ratio=0.0324, latency_ms={
                    "p50": 41.0, "p95": 230.0, "p99": 12000.0})),
                side("next", "mirror", None, 0.0, **figures(0),
                     mirror={"sent": 120, "errors_5xx": 0, "failed": 3, "skipped": 1}),
            ],
        },
        {"service": NAMELESS["id"], "name": "cart", "sides": [side("purple", "left", None, 0.0, **figures(0, open=2))]},
    ],
}  # fmt: skip


def page(*entities: JsonObject) -> JsonObject:
    return {"data": list(entities), "next": None}


def switching_case(admin: FakeAdmin, *, status: int, body: Json, nodes: JsonObject) -> None:
    admin.answer("GET", PATCH, SERVICE)
    admin.answer("GET", "/upstreams/green", UPSTREAM)
    admin.answer("PATCH", PATCH, body, status=status, version=9)
    admin.answer("GET", "/fleet/nodes", nodes)


def waited(total: int, *lagging: JsonObject) -> JsonObject:
    return {
        "version": 9,
        "nodes": {
            "total": total,
            "applied": total - len(lagging),
            "rejected": [node["node_id"] for node in lagging if node["state"] == "rejected"],
            "lagging": list(lagging),
        },
        "waited_s": 1.0,
        "entity": {**SERVICE, "host": "green"},
    }


FLEET = page(node(1), node(2))


def proof(number: int, standing: str = "activated", **facts: Json) -> JsonObject:
    done = standing == "activated"
    return {
        "node_id": f"0000000{number}-0000-4000-8000-000000000000",
        "hostname": f"dp-{number}",
        "standing": standing,
        "vote": None if standing in ("asked", "lagging") else "refuse" if standing == "refused" else "ready",
        "prepared_s": 0.041,
        "faults": [],
        "healthy": 2,
        "targets": 2,
        "connections": 16,
        "activated_us_after_instant": 210 if done else None,
        "first_new_us_after_instant": 1_300 if done else None,
        "last_old_us_after_instant": -400 if done else None,
        "late_us": 180 if done else None,
        "clock_error_us": 90,
        "open_on_old_side": 0 if done else None,
        "reason": "",
        **facts,
    }


ILL: JsonObject = {
    "code": "SIDE_UNHEALTHY",
    "what": "1 of 2 targets of green are healthy (50 %), 75 % are needed; not healthy: 192.168.34.18:80",
    "node": "",
    "target": "192.168.34.18:80",
    "remedy": "see `pointsman upstream health green`; mend the targets, or force it and say why",
    "overridable": True,
}
HELD: JsonObject = {
    "code": "HELD_BY_CANARY",
    "what": "canary 6 is moving service example-service",
    "node": "",
    "target": "",
    "remedy": "wait for its end, or end it: pointsman switch abort 6",
    "overridable": False,
}
MOVED: JsonObject = {"id": SERVICE["id"], "name": "example-service", "from": "blue", "to": "green"}
REST: JsonObject = {
    "name": "blue", "upstream": UPSTREAM["id"], "in_flight": 0, "waiting_for": [], "still_used_by": [],
    "safe_to_tear_down": True,
}  # fmt: skip


NOT_ENOUGH: JsonObject = {
    "code": "WOULD_ABORT",
    "what": "the nodes' answers are not enough: 1 of 2 nodes are ready, 2 are needed: dp-2 did not vote within 5 s",
    "node": "",
    "target": "",
    "remedy": "see `pointsman nodes`, then ask again",
    "overridable": False,
}
REHEARSAL: JsonObject = {
    "rollout": 9,
    "would_decide": False,
    "reason": "1 of 2 nodes are ready, 2 are needed: dp-2 did not vote within 5 s",
    "nodes": [
        {"node_id": proof(1)["node_id"], "hostname": "dp-1", "vote": "ready", "prepared_s": 0.012, "targets": 2,
         "healthy": 2, "connections": 8, "unreached": [], "faults": [], "reason": ""},
        {"node_id": proof(2)["node_id"], "hostname": "dp-2", "vote": None, "prepared_s": None, "targets": 0,
         "healthy": 0, "connections": 0, "unreached": [], "faults": [], "reason": "did not vote within 5 s"},
    ],
}  # fmt: skip


def drawn(*refusals: JsonObject) -> JsonObject:
    ids = [str(proof(number)["node_id"]) for number in (1, 2)]
    ill: Json = "unhealthy" if refusals else "healthy"
    return {
        "ready": not refusals,
        "services": [MOVED],
        "to": "green",
        "base_version": 8,
        "new_side": {
            "upstream": "green",
            "targets": [
                {"target": "192.168.34.17:80", "weight": 100, "healthy": True,
                 "seen": dict.fromkeys(ids, "healthy"), "why": {}},
                {"target": "192.168.34.18:80", "weight": 100, "healthy": not refusals,
                 "seen": dict.fromkeys(ids, ill), "why": {ids[0]: "connection refused"} if refusals else {}},
            ],
            "healthy": 1 if refusals else 2,
            "weight": 100 if refusals else 200,
            "weight_in_all": 200,
        },
        "old_sides": [],
        "capacity_percent": 66.7 if refusals else 133.3,
        "nodes": [
            {"node_id": each, "hostname": f"dp-{at}", "healthy": 2, "targets": 2} for at, each in enumerate(ids, 1)
        ],
        "gates": {"min_healthy_percent": 75.0, "min_healthy_targets": 1, "min_capacity_percent": 0.0},
        "refusals": list(refusals),
        "warnings": [],
    }  # fmt: skip


def switched(**facts: Json) -> JsonObject:
    return {
        "switch": 7,
        "verb": "switch",
        "services": [MOVED],
        "to": "green",
        "state": "confirmed",
        "ended_because": "",
        "reason": "2.7.1",
        "author": "ann",
        "forced": False,
        "undoes": None,
        "undone_by": None,
        "took_s": 0.182,
        "skew_us": 400,
        "version": 9,
        "plan": drawn(),
        "nodes": [proof(1), proof(2)],
        "old_sides": [{**REST, "in_flight": 3, "safe_to_tear_down": False}],
        "safe_to_tear_down": False,
        **facts,
    }


def held_canary() -> Canary:
    canary = canary_views.on_second_step()
    canary.hold("bob")
    return canary


PARTIAL = switched(state="partial", nodes=[proof(1), proof(2, "lagging", reason="did not vote within 5 s")])
UNDO = switched(switch=8, verb="undo", to="blue", undoes=7, version=10, plan=None, reason="undo of switch 7",
                services=[{**MOVED, "from": "green", "to": "blue"}])  # fmt: skip


def word(number: int, health: str, reason: str = "") -> JsonObject:
    return {
        "node_id": node(number)["node_id"],
        "hostname": f"dp-{number}",
        "health": health,
        "since": 1700000000,
        "reason": reason,
    }


def seen_target(place: str, *, open_now: int = 0, **facts: Json) -> JsonObject:
    ip, _, port = place.partition(":")
    return {
        "id": TARGET["id"],
        "target": place,
        "weight": 100,
        "failover": False,
        "former_weight": None,
        "health": "HEALTHY",
        "disagreement": False,
        "dns": "A",
        "in_flight": open_now,
        "in_flight_by_node": {str(node(1)["node_id"]): open_now} if open_now else {},
        "manual": [],
        "addresses": [
            {
                "ip": ip,
                "port": int(port),
                "weight": 100,
                "health": "HEALTHY",
                "verdict": "all",
                "nodes": [word(1, "HEALTHY"), word(2, "HEALTHY")],
                "nodes_omitted": 0,
                "dissenting": [],
            }
        ],
        "unresolved": [],
        **facts,
    }


def seen_health(*targets: JsonObject, live: int = 2, reporting: int = 2) -> JsonObject:
    return {
        "upstream": {"id": UPSTREAM["id"], "name": "blue"},
        "health": "HEALTHY",
        "balancer_health": "HEALTHY",
        "nodes": {"live": live, "reporting": reporting},
        "disagreement": any(target["disagreement"] is True for target in targets),
        "in_flight": 3,
        "in_flight_s_ago": 0.0,
        "targets": list(targets),
    }


SPLIT = seen_target(
    "10.0.0.2:80",
    disagreement=True,
    health="UNHEALTHY",
    addresses=[
        {
            "ip": "10.0.0.2",
            "port": 80,
            "weight": 100,
            "health": "UNHEALTHY",
            "verdict": "some",
            "nodes": [word(2, "HEALTHY"), word(1, "UNHEALTHY", "active tcp failure")],
            "nodes_omitted": 0,
            "dissenting": [node(2)["node_id"]],
        }
    ],
)
BY_HAND = seen_target(
    "10.0.0.3:80",
    weight=0,
    former_weight=50,
    failover=True,
    manual=[{"address": None, "healthy": False, "until": 1700000600}],
)
UNRESOLVED = seen_target(
    "api.test:80",
    health="DNS_ERROR",
    addresses=[],
    unresolved=[{"node_id": node(1)["node_id"], "hostname": "dp-1", "error": "3 name error"}],
)
HEALTH = "/fleet/upstreams/blue/health"
ONE_TARGET = "192.168.34.15:80"
DRAIN = "/fleet/upstreams/blue/targets/192.168.34.15%3A80/drain"
READY = "/fleet/upstreams/blue/targets/192.168.34.15%3A80/ready"
AT_TARGET = "/upstreams/blue/targets/192.168.34.15%3A80"
DRAINED: JsonObject = {**TARGET, "weight": 0}
IDLE = seen_health(seen_target(ONE_TARGET))
BUSY = seen_health(seen_target(ONE_TARGET, open_now=2))

CHANGES: JsonObject = {
    "change_count": 2,
    "changes": [
        {"operation": "update", "collection": "services", "id": "11111111-1111-4111-8111-111111111111",
         "name": "example-service", "before": None, "after": None,
         "fields": [{"field": "host", "before": "blue", "after": "green"},
                    {"field": "tags", "before": None, "after": ["x"]}]},
        {"operation": "delete", "collection": "certificates", "id": "66666666-6666-4666-8666-666666666666",
         "name": "", "before": None, "after": None, "fields": []},
    ],
    "changes_omitted": 0,
}  # fmt: skip
VERSION: JsonObject = {
    "version": 3, "committed_at": 1700000000.0, "author": "anna", "source": "admin-api", "address": "127.0.0.1",
    "reason": "release 2.7.1", **CHANGES,
}  # fmt: skip
AUDIT: JsonObject = {
    "data": [
        {"number": 2, "at": 1700000001.0, "author": "", "source": "admin-api", "address": "127.0.0.1",
         "action": "PATCH /services/{services}", "outcome": "refused", "version": None, "details": {"status": 412},
         "hash": "ab"},
        {"number": 1, "at": 1700000000.0, "author": "anna", "source": "admin-api", "address": "127.0.0.1",
         "action": "POST /services", "outcome": "done", "version": 1, "details": {"change_count": 1}, "hash": "aa"},
    ],
    "next": None,
}  # fmt: skip


def rolled_out_node(number: int, **facts: Json) -> JsonObject:
    return {
        "node_id": f"0000000{number}-0000-4000-8000-000000000000",
        "hostname": f"dp-{number}",
        "standing": "activated",
        "reason": "",
        "vote": {
            "vote": "ready",
            "staged": True,
            "took_s": 0.021,
            "faults": [],
            "upstreams": [{"upstream": "u2", "targets": 2, "healthy": 2, "connections": 8, "failures": []}],
        },
        "activated_us_after_instant": 312,
        "late_us": [101, 312],
        "armed_us_before_instant": 48_700,
        "clock_error_us": 90,
        **facts,
    }


NOT_ACTIVATED: JsonObject = {"late_us": None, "activated_us_after_instant": None, "armed_us_before_instant": None}
ROLLED_OUT: JsonObject = {
    "rollout": 7,
    "state": "confirmed",
    "reason": "",
    "author": "ann",
    "why": "release 2.7.1",
    "version": 9,
    "took_s": 0.127,
    "skew_us": 1700,
    "changes": [{"operation": "update", "collection": "services", "id": "s1", "name": "example-service"}],
    "drained": [
        {"upstream": "u1", "in_flight": 0, "waiting_for": [], "still_used_by": [], "safe_to_tear_down": True},
    ],
    "elsewhere": [],
    "coordinator": "c on cp-1",
    "nodes": [rolled_out_node(1), rolled_out_node(2)],
}
LEFT_BEHIND: JsonObject = {
    **ROLLED_OUT,
    "state": "partial",
    "reason": "dp-2 has not said that it runs the version",
    "elsewhere": ["dp-3"],
    "drained": [
        {
            "upstream": "u1",
            "in_flight": 3,
            "waiting_for": ["dp-2", "dp-3 (at another control plane)"],
            "still_used_by": [],
            "safe_to_tear_down": False,
        }
    ],
    "nodes": [
        rolled_out_node(1),
        rolled_out_node(2, standing="lagging", reason="has not said that it runs the version", **NOT_ACTIVATED),
    ],
}
NOT_ROLLED_OUT: JsonObject = {
    **ROLLED_OUT,
    "rollout": 6,
    "state": "aborted",
    "reason": "dp-2 refused: no valid regex",
    "version": None,
    "skew_us": None,
    "drained": [],
    "nodes": [
        rolled_out_node(1, standing="released", **NOT_ACTIVATED),
        rolled_out_node(
            2,
            standing="refused",
            reason="no valid regex",
            vote={"vote": "refuse", "staged": False, "took_s": 0.004, "faults": [], "upstreams": []},
            **NOT_ACTIVATED,
        ),
    ],
}

CASES = [
    Case("service-list", ["service", "list"], lambda a: a.answer("GET", SERVICES, page(SERVICE, NAMELESS)),
         ("table", "json", "yaml", "name")),
    Case("service-list-empty", ["service", "list", "--tags", "a,b"],
         lambda a: a.answer("GET", "/services?tags=a%2Cb&size=1000", page())),
    Case("service-get", ["service", "get", "example-service"], lambda a: a.answer("GET", PATCH, SERVICE),
         ("table", "json", "yaml", "name")),
    Case("service-get-missing", ["service", "get", "nope"],
         lambda a: a.answer("GET", "/services/nope", NOT_FOUND, status=404)),
    Case("service-create", ["service", "create", "name=example-service", "host=blue"],
         lambda a: a.answer("POST", "/services", SERVICE, status=201, version=9)),
    Case("service-create-invalid", ["service", "create", "name=x"],
         lambda a: a.answer("POST", "/services", SCHEMA_VIOLATION, status=400)),
    Case("service-create-taken", ["service", "create", "name=example-service", "host=h"],
         lambda a: a.answer("POST", "/services", TAKEN, status=409)),
    Case("service-set-waited", ["service", "set", "example-service", "host=green", "--wait", "5"],
         lambda a: a.answer("PATCH", PATCH, {**SERVICE, "host": "green"}, version=9)),
    Case("service-set-lagging", ["service", "set", "example-service", "host=green", "--wait", "5"],
         lambda a: a.answer("PATCH", PATCH, waited(2, LAGGING), status=202, version=9)),
    Case("service-delete", ["service", "delete", "example-service"],
         lambda a: a.answer("GET", PATCH, SERVICE).answer("DELETE", PATCH, status=204, version=10)),
    Case("route-list", ["route", "list"],
         lambda a: a.answer("GET", "/routes?size=1000", page(ROUTE)).answer("GET", SERVICES, page(SERVICE))),
    Case("route-get", ["route", "get", "example-route"], lambda a: a.answer("GET", "/routes/example-route", ROUTE)),
    Case("upstream-list", ["upstream", "list"], lambda a: a.answer("GET", "/upstreams?size=1000", page(UPSTREAM))),
    Case("upstream-get", ["upstream", "get", "blue"], lambda a: a.answer("GET", "/upstreams/blue", UPSTREAM)),
    Case("target-list", ["target", "list", "--upstream", "blue"],
         lambda a: a.answer("GET", "/upstreams/blue/targets/all?size=1000", page(TARGET))),
    Case("target-get-missing", ["target", "get", "[::1]:80", "-u", "blue"],
         lambda a: a.answer("GET", "/upstreams/blue/targets/%5B%3A%3A1%5D%3A80", NOT_FOUND, status=404)),
    Case("target-set", ["target", "set", "192.168.34.15:80", "weight=1", "-u", "blue"],
         lambda a: a.answer("PATCH", "/upstreams/blue/targets/192.168.34.15%3A80", TARGET, version=9)),
    Case("upstream-health", ["upstream", "health", "blue"],
         lambda a: a.answer("GET", HEALTH, seen_health(seen_target("10.0.0.1:80", open_now=3), SPLIT, BY_HAND,
                                                       UNRESOLVED)), ("table", "json", "name")),
    Case("upstream-health-unknown", ["upstream", "health", "blue"],
         lambda a: a.answer("GET", HEALTH, seen_health(seen_target("10.0.0.1:80", health=None, addresses=[]), live=0,
                                                       reporting=0)), ("table",)),
    Case("upstream-health-missing", ["upstream", "health", "nope"],
         lambda a: a.answer("GET", "/fleet/upstreams/nope/health", NOT_FOUND, status=404)),
    Case("target-drain", ["target", "drain", ONE_TARGET, "-u", "blue"],
         lambda a: a.answer("PUT", DRAIN, DRAINED, version=9).answer("GET", HEALTH, BUSY)),
    Case("target-drain-waited", ["target", "drain", ONE_TARGET, "-u", "blue", "--wait", "5"],
         lambda a: a.answer("PUT", DRAIN, DRAINED, version=9).answer("GET", HEALTH, IDLE)),
    Case("target-drain-timed-out", ["target", "drain", ONE_TARGET, "-u", "blue", "--wait", "0"],
         lambda a: a.answer("PUT", DRAIN, DRAINED, version=9).answer("GET", HEALTH, BUSY)),
    Case("target-drain-missing", ["target", "drain", ONE_TARGET, "-u", "blue"],
         lambda a: a.answer("PUT", DRAIN, NOT_FOUND, status=404)),
    Case("target-ready", ["target", "ready", ONE_TARGET, "-u", "blue", "--wait", "5"],
         lambda a: a.answer("PUT", READY, TARGET, version=9)),
    Case("target-weight", ["target", "weight", ONE_TARGET, "100", "-u", "blue"],
         lambda a: a.answer("PATCH", AT_TARGET, TARGET, version=9)),
    Case("target-unhealthy", ["target", "unhealthy", ONE_TARGET, "-u", "blue", "--ttl", "600", "--wait", "5"],
         lambda a: a.answer("PUT", f"{AT_TARGET}/unhealthy?ttl=600", status=204, version=9)),
    Case("target-healthy", ["target", "healthy", ONE_TARGET, "-u", "blue", "--address", ONE_TARGET],
         lambda a: a.answer("PUT", f"{AT_TARGET}/192.168.34.15%3A80/healthy", status=204, version=9)),
    Case("sync", ["sync", "-f", FILE], lambda a: a.answer("POST", "/config/sync", SUMMARY, version=9),
         ("table", "json", "name")),
    Case("sync-waited", ["sync", "-f", FILE, "--wait", "5"],
         lambda a: a.answer("POST", "/config/sync", SUMMARY, version=9), ("table",)),
    Case("sync-no-nodes", ["sync", "-f", FILE, "--wait", "5"],
         lambda a: a.answer("POST", "/config/sync", {**waited(0), **SUMMARY}, status=202, version=9)),
    Case("sync-refused", ["sync", "-f", FILE], lambda a: a.answer("POST", "/config/sync", REFUSED_FILE, status=400)),
    Case("apply-nothing", ["apply", "-f", FILE],
         lambda a: a.answer("POST", "/config/apply",
                            {"created": 0, "updated": 0, "deleted": 0, "unchanged": 8, "changes": [], "omitted": 0},
                            version=9)),
    Case("diff", ["diff", "-f", FILE, "--non-zero-exit-code"],
         lambda a: a.answer("POST", "/config/diff?mode=sync", SUMMARY)),
    Case("dump", ["dump", "--select-tag", "a", "--select-tag", "b", "--with-id"],
         lambda a: a.answer("GET", "/config/dump?format=yaml&select_tags=a%2Cb&with_ids=true",
                            text='_format_version: "3.0"\n'), ("table",)),
    Case("dump-json", ["dump"], lambda a: a.answer("GET", "/config/dump?format=json", {"_format_version": "3.0"}),
         ("json",)),
    Case("switch-quick", ["switch", "example-service", "--to", "green", "--quick"],
         lambda a: switching_case(a, status=200, body={**SERVICE, "host": "green"}, nodes=FLEET)),
    Case("switch-quick-timed-out", ["switch", "example-service", "--to", "green", "--quick", "--wait", "1"],
         lambda a: switching_case(a, status=202, body=waited(2, LAGGING),
                                  nodes=page(node(1), node(2, state="lagging", version=8)))),
    Case("switch-quick-refused-by-a-node", ["switch", "example-service", "--to", "green", "--quick"],
         lambda a: switching_case(a, status=202, body=waited(2, REFUSING),
                                  nodes=page(node(1), node(2, state="rejected", version=8)))),
    Case("switch-quick-without-nodes", ["switch", "example-service", "--to", "green", "--quick"],
         lambda a: switching_case(a, status=202, body=waited(0), nodes=page())),
    Case("switch-quick-to-nothing", ["switch", "example-service", "--to", "gren", "--quick"],
         lambda a: (a.answer("GET", PATCH, SERVICE),
                    a.answer("GET", "/upstreams/gren", {"message": "Not found"}, status=404))),
    Case("switch-quick-with-force", ["switch", "example-service", "--to", "green", "--quick", "--force"],
         lambda _: None),
    Case("switch", ["switch", "example-service", "--to", "green", "--reason", "2.7.1"],
         lambda a: a.answer("POST", "/switches", switched(), status=200)),
    Case("switch-lags", ["switch", "example-service", "--to", "green"],
         lambda a: a.answer("POST", "/switches", PARTIAL, status=202)),
    Case("switch-aborted", ["switch", "example-service", "--to", "green"],
         lambda a: a.answer("POST", "/switches",
                            switched(state="aborted", version=None, ended_because="dp-2 refused: no", message="no",
                                     code="ABORTED", nodes=[proof(1, "released"), proof(2, "refused")], old_sides=[]),
                            status=409)),
    Case("switch-on-its-way", ["switch", "example-service", "--to", "green", "--wait", "1"],
         lambda a: a.answer("POST", "/switches",
                            switched(state="preparing", version=None, took_s=None, skew_us=None, old_sides=[],
                                     nodes=[proof(1, "ready"), proof(2, "asked")]), status=202)),
    Case("switch-later", ["switch", "example-service", "--to", "green", "--at", "2026-11-28T21:30:00Z"],
         lambda a: a.answer("POST", "/switches",
                            switched(state="scheduled", version=None, at=1795901400.0, nodes=[], old_sides=[],
                                     took_s=None, skew_us=None), status=202)),
    Case("switch-later-aborted", ["switch", "abort", "7", "--reason", "not tonight"],
         lambda a: a.answer("POST", "/switches/7/abort",
                            switched(state="cancelled", version=None, at=1795901400.0, nodes=[], old_sides=[],
                                     took_s=None, skew_us=None,
                                     ended_because="by anna: not tonight"), status=200)),
    Case("switch-at-no-time", ["switch", "example-service", "--to", "green", "--at", "soon"], lambda a: None),
    Case("switch-preflight-refused", ["switch", "example-service", "--to", "green"],
         lambda a: a.answer("POST", "/switches",
                            {"message": "1 of 2", "code": "PREFLIGHT_REFUSED", "refusals": [ILL],
                             "plan": drawn(ILL)}, status=409)),
    Case("switch-to-nothing", ["switch", "example-service", "--to", "gren"],
         lambda a: a.answer("POST", "/switches",
                            {"message": "there is no upstream 'gren'", "code": "NO_SUCH_UPSTREAM",
                             "remedy": "see what there is: pointsman upstream list"}, status=404)),
    Case("switch-watched", ["switch", "example-service", "--to", "green", "-w"],
         lambda a: (a.answer("POST", "/switches", switched(state="preparing"), status=202),
                    a.answer("GET", "/switches/7", switched(old_sides=[REST])))),
    Case("switch-canary", ["switch", "example-service", "--to", "green", "--canary", "5,25", "--every", "30s",
                           "--sticky", "header:x-user", "--gate", "errors=1%", "--gate", "p99=2x"],
         lambda a: (a.answer("POST", "/switches", canary_views.shown(canary_views.begun()), status=202),
                    a.answer("GET", "/switches/7", canary_views.shown(canary_views.confirmed())))),
    Case("switch-canary-undone", ["switch", "example-service", "--to", "green", "--canary", "5,25", "--every", "30s"],
         lambda a: (a.answer("POST", "/switches", canary_views.shown(canary_views.begun()), status=202),
                    a.answer("GET", "/switches/7", canary_views.shown(canary_views.undone())))),
    Case("switch-canary-held", ["switch", "example-service", "--to", "green", "--canary", "5,25"],
         lambda a: (a.answer("POST", "/switches", canary_views.shown(canary_views.begun(every_s=None)), status=202),
                    a.answer("GET", "/switches/7", canary_views.shown(canary_views.begun(every_s=None))))),
    Case("switch-canary-refused", ["switch", "example-service", "--to", "green", "--canary", "5,25"],
         lambda a: a.answer("POST", "/switches",
                            {"message": "canary 6 is moving service example-service", "code": "PREFLIGHT_REFUSED",
                             "remedy": "wait", "refusals": [HELD], "plan": drawn(HELD)}, status=409)),
    Case("switch-canary-bad-steps", ["switch", "example-service", "--to", "green", "--canary", "5,many"],
         lambda _: None),
    Case("switch-canary-bad-gate", ["switch", "example-service", "--to", "green", "--canary", "5", "--gate", "errors"],
         lambda _: None),
    Case("switch-canary-without-steps", ["switch", "example-service", "--to", "green", "--every", "30s"],
         lambda _: None),
    Case("switch-canary-show", ["switch", "show", "7"],
         lambda a: a.answer("GET", "/switches/7", canary_views.shown(canary_views.undone()))),
    Case("switch-canary-history", ["switch", "history"],
         lambda a: a.answer("GET", "/switches?size=20",
                            {"data": [canary_views.shown(canary_views.undone(), switch=9),
                                      canary_views.shown(canary_views.confirmed(), undone_by=8)]})),
    Case("switch-promote", ["switch", "promote", "example-service", "--to-step", "3"],
         lambda a: (a.answer("GET", "/switches?service=example-service&size=20",
                             {"data": [canary_views.shown(canary_views.on_second_step())]}),
                    a.answer("POST", "/switches/7/promote", canary_views.shown(canary_views.confirmed())))),
    Case("switch-hold", ["switch", "hold", "7"],
         lambda a: a.answer("POST", "/switches/7/hold", canary_views.shown(held_canary()))),
    Case("switch-undo-canary", ["switch", "undo", "example-service"],
         lambda a: (a.answer("GET", "/switches?service=example-service&size=20",
                             {"data": [canary_views.shown(canary_views.on_second_step())]}),
                    a.answer("POST", "/switches/7/undo", canary_views.shown(canary_views.undone())))),
    Case("switch-abort", ["switch", "abort", "7", "--reason", "too slow"],
         lambda a: a.answer("POST", "/switches/7/abort",
                            {"message": "switch 7: all requests go to the new side already; undo it",
                             "code": "TOO_LATE", "remedy": "see it: pointsman switch show 7"}, status=409)),
    Case("switch-plan", ["switch", "plan", "example-service", "--to", "green"],
         lambda a: a.answer("POST", "/switches?dry_run=1", drawn())),
    Case("switch-plan-refused", ["switch", "plan", "example-service", "--to", "green"],
         lambda a: a.answer("POST", "/switches?dry_run=1", drawn(ILL))),
    Case("switch-plan-asked", ["switch", "plan", "example-service", "--to", "green", "--ask-nodes"],
         lambda a: a.answer("POST", "/switches?dry_run=1&ask_nodes=1", {**drawn(NOT_ENOUGH), "rehearsal": REHEARSAL})),
    Case("switch-undo", ["switch", "undo", "example-service"],
         lambda a: (a.answer("GET", "/switches?service=example-service&size=20", {"data": [switched()]}),
                    a.answer("POST", "/switches/7/undo", UNDO))),
    Case("switch-undo-nothing", ["switch", "undo", "nope"],
         lambda a: a.answer("GET", "/switches?service=nope&size=20", {"data": []})),
    Case("switch-history", ["switch", "history", "--size", "5"],
         lambda a: a.answer("GET", "/switches?size=5", {"data": [UNDO, switched(undone_by=8)]})),
    Case("switch-show", ["switch", "show", "7"], lambda a: a.answer("GET", "/switches/7", switched(undone_by=8))),
    Case("switch-status", ["switch", "status", "example-service"],
         lambda a: (a.answer("GET", "/switches?service=example-service&size=20", {"data": [PARTIAL]}),
                    a.answer("GET", "/switches/7", PARTIAL))),
    Case("rollout-list", ["rollout", "list"],
         lambda a: a.answer("GET", "/fleet/rollouts?size=20", {"data": [ROLLED_OUT, NOT_ROLLED_OUT]}),
         ("table", "json", "name")),
    Case("rollout-list-none", ["rollout", "list", "--size", "5"],
         lambda a: a.answer("GET", "/fleet/rollouts?size=5", {"data": []})),
    Case("rollout-show", ["rollout", "show", "7"], lambda a: a.answer("GET", "/fleet/rollouts/7", ROLLED_OUT),
         ("table", "json", "name")),
    Case("rollout-show-partial", ["rollout", "show", "7"],
         lambda a: a.answer("GET", "/fleet/rollouts/7", LEFT_BEHIND)),
    Case("rollout-show-aborted", ["rollout", "show", "6"],
         lambda a: a.answer("GET", "/fleet/rollouts/6", NOT_ROLLED_OUT)),
    Case("rollout-show-missing", ["rollout", "show", "9"],
         lambda a: a.answer("GET", "/fleet/rollouts/9", {"message": "Not found"}, status=404)),
    Case("rollout-abort", ["rollout", "abort", "6", "--reason", "not now"],
         lambda a: a.answer("GET", "/fleet/rollouts/6", {**NOT_ROLLED_OUT, "state": "preparing"})
                    .answer("POST", "/fleet/rollouts/6/abort", {**NOT_ROLLED_OUT, "reason": "not now"})),
    Case("rollout-abort-too-late", ["rollout", "abort", "7"],
         lambda a: a.answer("GET", "/fleet/rollouts/7", ROLLED_OUT)
                    .answer("POST", "/fleet/rollouts/7/abort",
                            {"message": "the rollout has ended as confirmed"}, status=409)),
    Case("nodes", ["nodes"],
         lambda a: a.answer("GET", "/fleet/nodes",
                            page(node(2, state="expired", last_seen_s_ago=7300.0, labels={}), node(1))),
         ("table", "json", "name")),
    Case("nodes-none", ["nodes"], lambda a: a.answer("GET", "/fleet/nodes", page())),
    Case("status", ["status"],
         lambda a: a.answer("GET", "/", {"version": "3.9.1", "node_id": "55555555-5555-4555-8555-555555555555"})
                    .answer("GET", "/status", {"database": {"reachable": True}})
                    .answer("GET", "/versions?size=1", VERSIONS)
                    .answer("GET", "/fleet/nodes", page(node(1), node(2), node(3, state="lagging")))),
    Case("history", ["history"], lambda a: a.answer("GET", "/versions?size=20", VERSIONS), ("table", "json", "name")),
    Case("version-show", ["version", "show", "3"],
         lambda a: a.answer("GET", "/versions/3", VERSION), ("table", "json")),
    Case("version-diff", ["version", "diff", "3", "1", "--non-zero-exit-code"],
         lambda a: a.answer("GET", "/versions/3/diff?against=1", {"version": 3, "against": 1, **CHANGES})),
    Case("version-dropped", ["version", "show", "1"],
         lambda a: a.answer("GET", "/versions/1", {"message": "version 1 is no longer kept; the oldest that is, is 8"},
                            status=410)),
    Case("version-missing", ["version", "show", "77"],
         lambda a: a.answer("GET", "/versions/77", {"message": "there is no version 77 yet; the newest is 3"},
                            status=404)),
    Case("rollback", ["rollback", "1", "--reason", "2.7.1 is slow"],
         lambda a: a.answer("POST", "/versions/1/rollback", {"rolled_back_to": 1, **CHANGES}, version=4)),
    Case("rollback-dry-run", ["rollback", "1", "--dry-run"],
         lambda a: a.answer("POST", "/versions/1/rollback?dry_run=1",
                            {"dry_run": True, "rolled_back_to": 1, **CHANGES})),
    Case("rollback-nothing", ["rollback", "3"],
         lambda a: a.answer("POST", "/versions/3/rollback",
                            {"rolled_back_to": 3, "change_count": 0, "changes": [], "changes_omitted": 0}, version=3)),
    Case("audit-list", ["audit", "list"],
         lambda a: a.answer("GET", "/audit?size=20", AUDIT), ("table", "json", "name")),
    Case("audit-verify", ["audit", "verify"],
         lambda a: a.answer("GET", "/audit/verify", {"valid": True, "records": 2, "newest": "2:ab", "problems": [],
                                                     "omitted": 0})),
    Case("audit-broken", ["audit", "verify", "--expect", "2:ab"],
         lambda a: a.answer("GET", "/audit/verify?expect=2%3Aab",
                            {"valid": False, "records": 2, "newest": "2:ab", "omitted": 0,
                             "problems": [{"number": 1, "message": "record 1 was altered"}]})),
    Case("validate", ["validate", "-f", FILE],
         lambda a: a.answer("POST", "/config/sync?dry_run=1", {"dry_run": True, "status": 200, **SUMMARY})),
    Case("preview", ["preview", "example-service", "--to", "green", "--header", "x-preview: 1", "--wait", "5"],
         lambda a: a.answer("PUT", SIDE_OF.format("preview"), {**SETTINGS, "preview": PREVIEW}, version=9)),
    Case("preview-lagging", ["preview", "example-service", "--to", "green", "--cookie", "preview=1", "--wait", "5"],
         lambda a: a.answer("PUT", SIDE_OF.format("preview"),
                            {**waited(2, LAGGING), "entity": {**SETTINGS, "preview": PREVIEW}}, status=202, version=9)),
    Case("preview-show", ["preview", "example-service"],
         lambda a: a.answer("GET", SIDE_OF.format("settings"), {**SETTINGS, "preview": PREVIEW})
                    .answer("GET", f"/upstreams/{UPSTREAM['id']}", UPSTREAM), ("table", "json", "name")),
    Case("preview-off", ["preview", "off", "example-service"],
         lambda a: a.answer("DELETE", SIDE_OF.format("preview"), SETTINGS, version=10)),
    Case("preview-no-mark", ["preview", "example-service", "--to", "green"], lambda a: None),
    Case("preview-no-service", ["preview", "nope", "--to", "green", "-H", "x:1"],
         lambda a: a.answer("PUT", "/fleet/services/nope/preview", NOT_FOUND, status=404)),
    Case("mirror", ["mirror", "example-service", "--to", "green", "--percent", "2.5"],
         lambda a: a.answer("PUT", SIDE_OF.format("mirror"),
                            {**SETTINGS, "mirror": {"to": UPSTREAM["id"], "share": 250}}, version=9)),
    Case("mirror-off", ["mirror", "example-service", "off", "--wait", "5"],
         lambda a: a.answer("DELETE", SIDE_OF.format("mirror"), SETTINGS, version=10)),
    Case("top", ["top"], lambda a: a.answer("GET", "/fleet/traffic", TRAFFIC), ("table", "json", "name")),
    Case("top-nodes", ["top", "example-service", "--nodes", "--once"],
         lambda a: a.answer("GET", "/fleet/traffic?service=example-service", TRAFFIC), ("table",)),
    Case("top-nothing", ["top"],
         lambda a: a.answer("GET", "/fleet/traffic", {**TRAFFIC, "data": []})),
    Case("top-no-service", ["top", "nope"],
         lambda a: a.answer("GET", "/fleet/traffic?service=nope", NOT_FOUND, status=404)),
    Case("trace", ["trace", "GET", "http://a.example/shop/1?x=1", "-H", "x-a: 1", "-H", "x-a: 2", "--node", "dp-1"],
         lambda a: a.answer("POST", "/fleet/trace", TRACED), ("table", "json", "name")),
    Case("trace-no-route", ["trace", "POST", "https://b.example/", "--sni", "b.example"],
         lambda a: a.answer("POST", "/fleet/trace", {**TRACED, "route": None, "upstream": None, "captures": {},
                                                     "matched_path": "", "path": "/", "status": 404,
                                                     "message": "no Route matched with those values"})),
    Case("trace-no-node", ["trace", "GET", "http://a.example/"],
         lambda a: a.answer("POST", "/fleet/trace",
                            {"message": "no node is live; only a node can say, see /fleet/nodes"}, status=503)),
    *OTHER_CASES,
    Case("denied", ["history"],
         lambda a: a.answer("GET", "/versions?size=20", {"message": "no such token"}, status=403)),
    Case("server-error", ["history"],
         lambda a: a.answer("GET", "/versions?size=20", {"message": "An unexpected error occurred"}, status=500)),
]  # fmt: skip


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeAdmin]:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("POINTSMAN_CONTEXTS", str(tmp_path / "contexts.toml"))
    monkeypatch.delenv("POINTSMAN_ADDR", raising=False)
    time.tzset()
    # The measured time is the one thing that differs from run to run.
    ticks = iter(range(1_000))
    for module in (files, switch_quick):
        monkeypatch.setattr(module, "time", FakeTime(ticks))
    monkeypatch.setattr("pointsman.cli.entities.time", FakeTime(ticks))
    monkeypatch.setattr("pointsman.cli.targets.time", FakeTime(ticks))
    monkeypatch.setattr("pointsman.cli.sides.time", FakeTime(ticks))
    with FakeAdmin() as fake:
        yield fake
    monkeypatch.undo()
    time.tzset()


class FakeTime:
    """A `time` module whose clock moves by 12.5 ms at each look."""

    def __init__(self, ticks: Iterator[int]) -> None:
        self._ticks = ticks

    def monotonic(self) -> float:
        return next(self._ticks) * 0.0125

    def gmtime(self, at: float) -> time.struct_time:
        return time.gmtime(at)

    def strftime(self, form: str, at: time.struct_time) -> str:
        return time.strftime(form, at)


@pytest.mark.parametrize(("case", "form"), [pytest.param(c, f, id=f"{c.name}-{f}") for c in CASES for f in c.formats])
def test_output(
    case: Case, form: str, admin: FakeAdmin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # files are named from here, or the width of a table would depend on where this checkout is
    case.prepare(admin)
    exit_code = main(["--addr", admin.address, *case.arguments, "-o", form])
    captured = capsys.readouterr()
    shown = " ".join(case.arguments)
    seen = f"$ pointsman {shown} -o {form}\nexit {exit_code}\n--- stdout\n{captured.out}--- stderr\n{captured.err}"
    seen = seen.replace(admin.address, "http://127.0.0.1:8001")
    seen = seen.replace(os.environ["POINTSMAN_CONTEXTS"], "~/.config/pointsman/contexts.toml")
    path = GOLDEN / f"{case.name}.{form}.txt"
    if os.environ.get("POINTSMAN_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(seen)
    assert seen == path.read_text()


def test_tables_fit_80_columns() -> None:
    for path in GOLDEN.glob("*.table.txt"):
        if path.name == "events.table.txt":
            continue  # sentences, one a line, that a terminal may wrap
        for line in path.read_text().partition("--- stdout\n")[2].partition("--- stderr\n")[0].splitlines():
            assert len(line) <= 80, path.name


def test_every_golden_file_has_its_case() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{c.name}.{f}.txt" for c in CASES for f in c.formats}


def test_every_command_has_its_output_here_in_both_forms() -> None:
    """Asked of the command line itself. The verbs of a kind of entity are made by the same code as those of services,
    and differ by what is listed and shown."""
    root = typer.main.get_command(build_app([], whole=True))
    shown: dict[tuple[str, ...], set[str]] = {}
    for case in CASES:
        shown.setdefault(_command_of(root, case.arguments), set()).update(case.formats)
    missing = {path for path in _commands(root) if not {"table", "json"} <= shown.get(path, set())}
    missing -= {(name,) for name in (*planes.MODULES, *planes.DATABASE_COMMANDS)}  # programs of their own
    missing -= {(kind.name, verb) for kind in KINDS for verb in ("create", "set", "delete") if kind is not TARGET_KIND}
    assert missing == set()
    assert {("service", verb) for verb in ("create", "set", "delete")} <= shown.keys()


def _commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all commands that do something."""
    if not isinstance(command, TyperGroup):
        yield path
        return
    for name, each in command.commands.items():
        yield from _commands(each, (*path, name))


def _command_of(command: object, arguments: list[str]) -> tuple[str, ...]:
    """The path of the command that these arguments run."""
    path: tuple[str, ...] = ()
    for argument in arguments:
        if not isinstance(command, TyperGroup):
            break
        name = argument if argument in command.commands else "now"  # a service's name behind `switch`
        if (found := command.commands.get(name)) is not None:
            command, path = found, (*path, name)
    return path


def test_golden_files_hold_nothing_of_this_machine() -> None:
    for path in GOLDEN.iterdir():
        assert not re.search(r"/(home|root|tmp|work)/", path.read_text()), path.name
