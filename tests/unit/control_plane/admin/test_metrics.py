"""The control plane's `/metrics`: what is declared is shown, Prometheus can read it, and the figures are true."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from control_plane.admin.metrics import CONTENT_TYPE, METRICS, LoopLag
from control_plane.fleet.nodes import NodeState, NodeView, SyncStatus
from tests.unit.control_plane.admin.conftest import Client

NODE = NodeView(
    id="00000000-0000-4000-8000-00000000000a",
    hostname='dp-"1"',
    ip="127.0.0.1",
    software="0.1.0",
    labels={},
    state=NodeState.CURRENT,
    connected=True,
    version=4,
    snapshot_hash="00000000000000000000000000000010" + "ff" * 16,
    offered_version=4,
    in_flight=0,
    beat_age_s=0.1,
    applied_took_s=0.01,
    rejected_version=None,
    rejected_stage=None,
    faults=(),
    reason="",
    first_seen=1.0,
    last_seen=1700000000.5,
    workers=1,
    proxy_addresses=(),
    status_address="",
    sync_status=SyncStatus.NORMAL,
)


async def samples(client: Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await client.ask("GET", "/metrics")
    assert (answer.status, answer.content_type) == (200, CONTENT_TYPE)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


async def test_what_is_declared_is_shown_with_its_labels(client: Client) -> None:
    client.fleet.views = (NODE,)
    text = (await client.ask("GET", "/metrics")).body.decode()
    shown = {line.split(" ")[2]: line.split(" ")[3] for line in text.splitlines() if line.startswith("# TYPE ")}
    ours = {name: kind for name, kind in shown.items() if not name.startswith("process_")}
    assert ours == {metric.name: metric.kind.value for metric in METRICS}
    names = {name: {label for label, _ in labels} for name, labels in await samples(client)}
    for metric in METRICS:
        assert names.get(metric.name, names.get(f"{metric.name}_count")) == set(metric.labels), metric.name


async def test_kongs_figures_of_a_node(client: Client) -> None:
    client.fleet.views = (NODE,)
    found = await samples(client)
    node = (("hostname", NODE.hostname), ("ip", NODE.ip), ("node_id", NODE.id))
    assert found["kong_data_plane_last_seen", node] == 1700000000.5
    assert found["kong_data_plane_config_hash", node] == 0x10
    compatible = tuple(sorted([*node, ("kong_version", "0.1.0")]))
    assert found["kong_data_plane_version_compatible", compatible] == 1
    assert found["pointsman_nodes", (("state", "current"),)] == 1
    assert found["pointsman_nodes", (("state", "rejected"),)] == 0
    assert found["pointsman_node_version", node] == 4


async def test_writes_and_versions_are_counted(client: Client) -> None:
    await client.tree("POST", "/services", {"name": "a", "host": "b.test"}, status=201)
    await client.tree("POST", "/services", {"name": "a", "host": "b.test"}, status=409)
    found = await samples(client)
    assert found["pointsman_store_write_seconds_count", ()] == 1
    assert found["pointsman_store_write_seconds_sum", ()] > 0
    assert found["pointsman_version", (("kind", "head"),)] == 1
    assert found["pointsman_version", (("kind", "published"),)] == client.fleet.published
    assert found["kong_datastore_reachable", ()] == 1


def test_the_lag_shown_is_the_worst_of_the_last_looks() -> None:
    lag = LoopLag()
    assert lag.worst_s == 0
    for late in (0.1, 0.5, -0.1):
        lag.note(late)
    assert lag.worst_s == 0.5
    for _ in range(100):
        lag.note(0.01)
    assert lag.worst_s == 0.01
