"""The command line against the real Admin API over the real store: the operator's first ten minutes, step by step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from control_plane.admin.parts import Parts
from control_plane.admin.server import AdminServer
from control_plane.entities.types import EntityBody
from control_plane.fleet.health import TargetVerdict
from control_plane.fleet.nodes import NodeState, NodeView, SyncStatus
from control_plane.fleet.own_settings import Fence
from control_plane.fleet.rollouts import Rollouts
from control_plane.fleet.side_figures import SideRate
from control_plane.fleet.timing import Times
from control_plane.fleet.tracing import NoNode, Question
from control_plane.fleet.waiting import NodeProgress, Outcome, WaitReport
from control_plane.identity.refusals import RefusedCaller
from control_plane.store.contract import Store
from control_plane.store.sqlite import open_sqlite
from pointsman.cli.main import main
from pointsman.settings import SocketAddress

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass
class TwoNodes:
    """A fleet that runs whatever it is asked for, at once, or lags when told to."""

    store: Store
    lags: bool = False
    waited: list[tuple[int, float]] = field(default_factory=list)
    version: int = 0
    rollouts: Rollouts | None = None

    def nodes(self) -> Sequence[NodeView]:
        return [
            NodeView(
                id=str(UUID(int=number)),
                hostname=f"dp-{number}",
                ip="127.0.0.1",
                software="pointsman/0.1.0",
                labels={},
                state=NodeState.CURRENT,
                connected=True,
                version=self.version,
                snapshot_hash="",
                offered_version=0,
                in_flight=0,
                beat_age_s=0.1,
                applied_took_s=0.003,
                rejected_version=None,
                rejected_stage=None,
                faults=(),
                reason="",
                first_seen=1.0,
                last_seen=2.0,
                workers=1,
                proxy_addresses=(),
                status_address="",
                sync_status=SyncStatus.NORMAL,
            )
            for number in (1, 2)
        ]

    def data_planes(self) -> Sequence[EntityBody]:
        return []

    def live_nodes(self) -> Mapping[str, str]:
        return {}

    def nodes_elsewhere(self) -> Mapping[str, str]:
        return {}

    def returning(self) -> Sequence[str]:
        return ()

    def verdict(self, upstream: str, target: str) -> TargetVerdict | None:
        return None

    def refusals(self) -> Mapping[str, int]:
        return {}

    def side_rates(self) -> Sequence[SideRate]:
        return ()

    def refused(self) -> Sequence[RefusedCaller]:
        return ()

    def loads_age_s(self) -> float | None:
        return None

    @property
    def published(self) -> int:
        return 0

    @property
    def gather_times(self) -> Times:
        return Times()

    async def trace(self, question: Question, *, node: str | None, timeout_s: float) -> tuple[str, str, EntityBody]:
        raise NoNode("no node is live")

    def fences(self) -> Sequence[Fence]:
        return ()

    async def wait_for(self, version: int, timeout_s: float) -> WaitReport:
        self.waited.append((version, timeout_s))
        self.version = version
        outcome = Outcome.LAGGING if self.lags else Outcome.APPLIED
        nodes = tuple(NodeProgress(view.id, view.hostname, outcome, version, reason="slow") for view in self.nodes())
        return WaitReport(version, 0.004, nodes)


@dataclass
class Plane:
    """A control plane in this process, and a command line pointed at it."""

    server: AdminServer
    fleet: TwoNodes
    capsys: pytest.CaptureFixture[str]

    async def run(self, *arguments: str, exits: int = 0) -> tuple[str, str]:
        """Runs a command; returns stdout and stderr."""
        code = await asyncio.to_thread(main, ["--addr", f"http://{self.server.address}", *arguments])
        captured = self.capsys.readouterr()
        assert code == exits, captured.err
        return captured.out, captured.err

    async def json(self, *arguments: str, exits: int = 0) -> EntityBody:
        """Runs a command with `-o json`."""
        out, _ = await self.run(*arguments, "-o", "json", exits=exits)
        value: EntityBody = json.loads(out)
        return value

    async def names(self, *arguments: str) -> list[str]:
        out, _ = await self.run(*arguments, "-o", "name")
        return out.split()


@pytest.fixture
async def plane(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Plane]:
    store = await open_sqlite(tmp_path / "store.db")
    fleet = TwoNodes(store)
    server = AdminServer(
        Parts(store=store, fleet=fleet), listen=SocketAddress("127.0.0.1", 0), node_id=str(UUID(int=9))
    )
    await server.start()
    yield Plane(server, fleet, capsys)
    await server.stop()
    await store.close()


async def test_the_examples_and_the_switch(plane: Plane) -> None:
    _, told = await plane.run("sync", "-f", str(EXAMPLES / "blue-green.yaml"))
    assert told == "version 1: 8 created, 0 updated, 0 deleted, 0 unchanged\n"
    await plane.run("diff", "-f", str(EXAMPLES / "blue-green.yaml"), "--non-zero-exit-code")
    out, _ = await plane.run("diff", "-f", str(EXAMPLES / "to-green.yaml"), "--apply", "--non-zero-exit-code", exits=2)
    assert "host: blue -> green" in out
    _, told = await plane.run("apply", "-f", str(EXAMPLES / "to-green.yaml"), "--wait", "3")
    assert "version 2 runs on every live node after" in told
    assert plane.fleet.waited == [(2, 3.0)]

    switched = await plane.json("switch", "example-service", "--to", "blue", "--quick", "--reason", "back – 100 %")
    assert (switched["from"], switched["to"], switched["version"]) == ("green", "blue", 3)
    assert switched["complete"] is True
    plane.fleet.lags = True
    _, told = await plane.run("switch", "example-service", "--to", "green", "--quick", "--wait", "1", exits=6)
    assert "dp-1 00000000 (slow), dp-2 00000000 (slow)" in told

    history = await plane.json("history")
    data = history["data"]
    assert isinstance(data, list)
    assert [entry["reason"] for entry in data if isinstance(entry, dict)] == ["", "back – 100 %", "", ""]
    assert [entry["source"] for entry in data if isinstance(entry, dict)] == ["admin-api", "admin-api", "apply", "sync"]
    assert (await plane.json("status"))["version"] == 4


async def test_a_refused_file_is_told_with_its_lines(plane: Plane, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("services:\n- name: a\n  hots: b\nroutes:\n- {name: r, paths: ['~/['], service: nowhere}\n")
    _, told = await plane.run("sync", "-f", str(path), exits=1)
    assert f"{path}:2, services[0], service 'a', field hots" in told
    assert "write 'host' if that was meant" in told
    assert f"{path}:5, routes[0], route 'r', field service" in told
    assert await plane.names("service", "list") == []
    path.write_text("services: [a\n")
    _, told = await plane.run("sync", "-f", str(path), exits=1)
    assert "failed parsing the file as YAML" in told


async def test_entities_by_hand(plane: Plane) -> None:
    await plane.run("upstream", "create", "name=blue", "healthchecks.active.healthy.interval=5")
    await plane.run("target", "create", "target=127.0.0.1:80", "weight=7", "--upstream", "blue")
    await plane.run("service", "create", "name=shop", "host=blue", "port=8080", "tags=a", "tags=b")
    await plane.run("route", "create", "name=r", "hosts=a.example", "service=shop", "strip_path=false", "--wait", "1")
    service = await plane.json("service", "get", "shop")
    assert (service["port"], service["tags"]) == (8080, ["a", "b"])
    route = await plane.json("route", "get", "r")
    assert (route["service"], route["hosts"], route["strip_path"]) == ({"id": service["id"]}, ["a.example"], False)
    upstream = await plane.json("upstream", "get", "blue")
    checks = upstream["healthchecks"]
    assert isinstance(checks, dict)
    assert isinstance(checks["active"], dict)
    assert isinstance(checks["active"]["healthy"], dict)
    assert checks["active"]["healthy"]["interval"] == 5
    out, _ = await plane.run("route", "list")
    assert "shop" in out
    assert await plane.names("target", "list", "-u", "blue") == ["127.0.0.1:80"]
    assert (await plane.json("target", "set", "127.0.0.1:80", "weight=0", "-u", "blue"))["weight"] == 0
    assert await plane.names("service", "list", "--tags", "a,b") == ["shop"]
    assert await plane.names("service", "list", "--tags", "c") == []

    _, told = await plane.run("service", "create", "name=shop", "host=h", exits=4)
    assert "UNIQUE violation" in told
    _, told = await plane.run("service", "set", "shop", "port=x", exits=1)
    assert "field port" in told
    _, told = await plane.run("service", "delete", "shop", exits=1)
    assert "references this 'services' entity" in told
    _, told = await plane.run("route", "create", "paths=/", "service=nope", exits=1)
    assert "cannot be resolved" in told
    await plane.run("service", "delete", "nope", exits=3)
    await plane.run("target", "delete", "127.0.0.2:80", "-u", "blue", exits=3)

    for arguments in (["route", "delete", "r"], ["service", "delete", "shop"],
                      ["target", "delete", "127.0.0.1:80", "-u", "blue"], ["upstream", "delete", "blue"]):  # fmt: skip
        await plane.run(*arguments)
    assert await plane.names("upstream", "list") == []


@pytest.mark.parametrize("name", ["dump.yaml", "dump.json"])
async def test_dump_and_back(plane: Plane, tmp_path: Path, name: str) -> None:
    await plane.run("sync", "-f", str(EXAMPLES / "blue-green.yaml"))
    path = tmp_path / name
    await plane.run("dump", "-f", str(path))
    _, told = await plane.run("sync", "-f", str(path))
    assert "0 created, 0 updated, 0 deleted, 8 unchanged" in told


async def test_nodes(plane: Plane) -> None:
    out, _ = await plane.run("nodes")
    assert [line.split()[0] for line in out.splitlines()] == ["NODE", "dp-1", "dp-2"]


async def test_going_back_and_reading_what_was_done(plane: Plane, tmp_path: Path) -> None:
    valid, _ = await plane.run("validate", "-f", str(EXAMPLES / "blue-green.yaml"))
    assert "valid" in valid
    await plane.run("sync", "-f", str(EXAMPLES / "blue-green.yaml"))
    await plane.run("apply", "-f", str(EXAMPLES / "to-green.yaml"))
    out, told = await plane.run("version", "diff", "2")
    assert "host: blue -> green" in out
    assert told == "from version 1 to 2: 1 change\n"
    await plane.run("rollback", "1", "--dry-run")
    _, told = await plane.run("rollback", "1", "--reason", "slow", "--wait", "2")
    assert told.startswith("version 3: as version 1 was, 1 change\nversion 3 runs on every live node")
    assert (await plane.json("service", "get", "example-service"))["host"] == "blue"
    await plane.run("version", "diff", "3", "1", "--non-zero-exit-code")
    await plane.run("diff", "-f", str(EXAMPLES / "blue-green.yaml"), "--non-zero-exit-code")
    saved = tmp_path / "saved.yaml"
    await plane.run("dump", "-f", str(saved))
    _, told = await plane.run("sync", "-f", str(saved))
    assert told == "version 3: 0 created, 0 updated, 0 deleted, 8 unchanged\n"
    _, told = await plane.run("rollback", "9", exits=3)
    assert "there is no version 9 yet" in told
    assert await plane.names("audit", "list") == ["3", "2", "1"]
    verified = await plane.json("audit", "verify")
    assert verified["valid"] is True
    await plane.run("audit", "verify", "--expect", str(verified["newest"]))
    await plane.run("audit", "verify", "--expect", f"1:{'0' * 64}", exits=1)


async def test_values_of_the_environment_are_not_printed(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECK_HOST", "secret-host")
    path = tmp_path / "a.yaml"
    path.write_text("services: [{name: a, host: plain}]")
    await plane.run("sync", "-f", str(path))
    path.write_text("services: [{name: a, host: '${{ env \"DECK_HOST\" }}'}]")
    for arguments in (["diff"], ["diff", "-o", "json"], ["sync"]):
        out, told = await plane.run(*arguments, "-f", str(path))
        assert "[masked]" in out
        assert "secret-host" not in out + told
    assert (await plane.json("service", "get", "a"))["host"] == "secret-host"
