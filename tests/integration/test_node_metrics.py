"""`/metrics` of a real node with two workers after real traffic: the format, the sums, and what dashboards look for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from data_plane.node.metrics import METRICS
from tests.support.node_rig import TinyUpstream, config, prepared_node, ready, request, status_address
from tests.support.patience import PATIENCE_S
from tests.support.processes import Node

Families = Mapping[str, Metric]

# What the queries of Kong's official Grafana board ("Kong (official)", version 9) select by and group by: each metric
# with the labels it is asked for, and the values that a query names. `instance` is added by Prometheus.
BOARD: Mapping[str, Mapping[str, set[str]]] = {
    "kong_http_requests_total": {"service": set(), "route": set(), "code": set()},
    "kong_kong_latency_ms_bucket": {"service": set(), "route": set(), "le": set()},
    "kong_upstream_latency_ms_bucket": {"service": set(), "route": set(), "le": set()},
    "kong_request_latency_ms_bucket": {"service": set(), "route": set(), "le": set()},
    "kong_bandwidth_bytes": {"service": set(), "route": set(), "direction": {"egress", "ingress"}},
    "kong_upstream_target_health": {
        "upstream": set(),
        "target": set(),
        "address": set(),
        "state": {"healthy", "unhealthy", "dns_error", "healthchecks_off"},
    },
    "kong_memory_lua_shared_dict_bytes": {"shared_dict": set(), "kong_subsystem": set()},
    "kong_memory_lua_shared_dict_total_bytes": {"shared_dict": set(), "kong_subsystem": set()},
    "kong_memory_workers_lua_vms_bytes": {"pid": set(), "kong_subsystem": set()},
    "kong_nginx_connections_total": {
        "state": {"accepted", "active", "handled", "reading", "total", "waiting", "writing"}
    },
    "kong_nginx_requests_total": {"subsystem": set()},
    "kong_nginx_timers": {"state": {"pending", "running"}},
    "kong_datastore_reachable": {},
    "kong_node_info": {"node_id": set(), "version": set()},
}


async def scrape(node: Node) -> Families:
    answer = await request(status_address(node), "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in text_string_to_metric_families(answer.body)}


def value(families: Families, sample_name: str, **labels: str) -> float:
    """The sum of the samples with these labels; at least one must be there."""
    found = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if _name(sample.name) == sample_name and labels.items() <= sample.labels.items()
    ]
    assert found, f"{sample_name} {labels}"
    return sum(found)


def _name(name: str) -> str:
    """As it is on the page: the parser gives a counter without `_total` one, as OpenMetrics would."""
    return "kong_bandwidth_bytes" if name == "kong_bandwidth_bytes_total" else name


async def test_the_sums_are_those_of_the_traffic(node: Node) -> None:
    for _ in range(30):
        assert (await request(node.proxy_address, "/anything")).status == 200
    assert (await request(node.proxy_address, "/anything", method="POST", body="x" * 1000)).status == 200
    assert (await request(node.proxy_address, "/%zz")).status == 400
    families = await scrape(node)
    route = {"service": "example", "route": "r0"}
    assert value(families, "kong_http_requests_total", **route, code="200", source="service") == 31
    for name in ("kong_kong_latency_ms", "kong_upstream_latency_ms", "kong_request_latency_ms"):
        assert value(families, f"{name}_count", **route) == 31
        assert value(families, f"{name}_bucket", **route, le="+Inf") == 31
        assert value(families, f"{name}_sum", **route) > 0
    assert value(families, "kong_request_latency_ms_sum") >= value(families, "kong_upstream_latency_ms_sum")
    head = len("GET /anything HTTP/1.1\r\nHost: example.test\r\nContent-Length: 0\r\n\r\n")
    assert value(families, "kong_bandwidth_bytes", direction="ingress") == 30 * head + head + 1 + 1000 + 3
    assert value(families, "kong_bandwidth_bytes", direction="egress") > 31 * 100
    assert value(families, "kong_nginx_requests_total") == 32
    assert value(families, "pointsman_requests_malformed_total") == 1
    assert value(families, "kong_nginx_connections_total", state="accepted") == 32
    assert value(families, "pointsman_version", kind="running") == 7
    assert value(families, "kong_control_plane_connected") == 0
    assert value(families, "pointsman_metrics_folded_total") == 0


async def test_what_declares_itself_is_there_and_nothing_else(node: Node) -> None:
    await request(node.proxy_address, "/anything")
    text = (await request(status_address(node), "/metrics")).body
    declared = {line.split(" ")[2]: line.split(" ")[3] for line in text.splitlines() if line.startswith("# TYPE ")}
    here = [metric for metric in METRICS if metric.name != "kong_data_plane_cluster_cert_expiry_timestamp"]
    assert declared == {metric.name: metric.kind.value for metric in here}  # this link has no certificate
    assert text.endswith("\n")
    for metric in here:
        suffixes = ("_bucket", "_sum", "_count") if metric.bounds else ("",)
        lines = [line for line in text.splitlines() if line.startswith(tuple(metric.name + s for s in suffixes))]
        # Only services with more sides than their host have those: test_service_sides.py sees them.
        assert lines or metric.name.startswith(("pointsman_side_", "pointsman_mirror_")), metric.name
        for line in lines:
            if metric.labels:
                assert all(f'{label}="' in line for label in metric.labels), line


async def test_every_query_of_kongs_board_finds_its_series(node: Node) -> None:
    await request(node.proxy_address, "/anything")
    families = await scrape(node)
    samples = [sample for family in families.values() for sample in family.samples]
    for name, labels in BOARD.items():
        found = [sample for sample in samples if _name(sample.name) == name]
        assert found, name
        for label, values in labels.items():
            given = {sample.labels.get(label, "") for sample in found}
            assert "" not in given, f"{name} {label}"
            assert values <= given, f"{name} {label}"


async def test_a_head_that_is_not_complete_is_being_read(node: Node) -> None:
    reader, writer = await asyncio.open_connection(*node.proxy_address)
    writer.write(b"GET /anything HTTP/1.1\r\n")
    await _states(node, active=1, reading=1, waiting=0, writing=0)
    server = json.loads((await request(status_address(node), "/status")).body)["server"]
    assert (server["connections_reading"], server["connections_waiting"]) == (1, 0)
    writer.write(b"Host: example.test\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await _states(node, active=1, reading=0, waiting=1, writing=0)
    writer.close()


async def _states(node: Node, **wanted: int) -> None:
    """Wait until the connections are in these states."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            families = await scrape(node)
            if all(value(families, "kong_nginx_connections_total", state=at) == n for at, n in wanted.items()):
                return
            await asyncio.sleep(0.05)


async def test_targets_without_checks_say_so(node: Node, blue: TinyUpstream) -> None:
    families = await scrape(node)
    target = {"upstream": "blue", "target": blue.address, "address": blue.address, "subsystem": "http"}
    assert value(families, "kong_upstream_target_health", **target, state="healthchecks_off") == 1
    for state in ("healthy", "unhealthy", "dns_error"):
        assert value(families, "kong_upstream_target_health", **target, state=state) == 0


async def test_a_dead_workers_counts_are_kept(node: Node) -> None:
    for _ in range(40):
        await request(node.proxy_address, "/anything")
    before = await scrape(node)
    status = json.loads((await request(status_address(node), "/status")).body)
    for worker in status["workers"]["processes"]:
        os.kill(worker["pid"], signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        while value(await scrape(node), "pointsman_worker_restarts_total") < 2:
            await asyncio.sleep(0.05)
    await ready(node)
    await request(node.proxy_address, "/anything")
    after = await scrape(node)
    for name in ("kong_http_requests_total", "kong_request_latency_ms_count", "kong_nginx_requests_total"):
        assert value(after, name) == value(before, name) + 1
    assert value(after, "kong_bandwidth_bytes", direction="egress") > value(
        before, "kong_bandwidth_bytes", direction="egress"
    )


async def test_an_answer_of_the_gateway_counts_as_its_own(tmp_path: Path) -> None:
    node = prepared_node(tmp_path, config("127.0.0.1:1", version=1), workers=1)
    try:
        await node.up()
        await ready(node)
        assert (await request(node.proxy_address, "/anything")).status == 502
        families = await scrape(node)
    finally:
        node.destroy()
    assert value(families, "kong_http_requests_total", code="502", source="kong") == 1
    assert value(families, "kong_upstream_latency_ms_count") == 0
    assert value(families, "kong_request_latency_ms_count") == 1
    assert value(families, "pointsman_attempts_failed_total") == 6
    assert value(families, "pointsman_retries_total") == 5


async def test_beyond_the_limit_requests_are_counted_together(tmp_path: Path, blue: TinyUpstream) -> None:
    node = prepared_node(tmp_path, config(blue.address, routes=4), "--metrics-series-max=1", workers=1)
    try:
        await node.up()
        await ready(node)
        assert (await request(node.proxy_address, "/anything")).status == 200
        for number in (1, 2, 3):
            answer = await request(node.proxy_address, f"/unused/{number}", headers=[f"X-Host: host{number}.test"])
            assert answer.status == 200
        families = await scrape(node)
    finally:
        node.destroy()
    assert value(families, "kong_http_requests_total") == 4
    assert {sample.labels["route"] for sample in families["kong_http_requests"].samples} <= {"r0", "_overflow"}


async def test_the_access_log_of_a_node_is_opened_anew_on_sighup(tmp_path: Path, blue: TinyUpstream) -> None:
    path = tmp_path / "access.log"
    node = prepared_node(tmp_path, config(blue.address), f"--access-log={path}", workers=2)
    try:
        await node.up()
        await ready(node)
        for _ in range(10):
            await request(node.proxy_address, "/before", headers=["Authorization: Bearer hunter2"])
        await _lines(path, 10)
        path.rename(tmp_path / "access.log.1")
        node.kill(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_S):
            while not _line_count(path):
                await request(node.proxy_address, "/after")
        families = await scrape(node)
        assert value(families, "pointsman_access_log_dropped_total") == 0
        assert value(families, "pointsman_access_log_lines_total") >= 11
    finally:
        node.destroy()
    lines = [json.loads(line) for line in (tmp_path / "access.log.1").read_text().splitlines()]
    assert [line["request"]["uri"] for line in lines[:10]] == ["/before"] * 10
    assert {line["node"] for line in lines} == {node.node_id}
    assert lines[0]["tries"][0]["port"] == blue.port
    assert "hunter2" not in (tmp_path / "access.log.1").read_text()


async def _lines(path: Path, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while _line_count(path) < count:
            await asyncio.sleep(0.02)


def _line_count(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0
