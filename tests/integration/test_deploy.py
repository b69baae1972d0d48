"""What deploy/ says to the programs is understood by them: flags, times, addresses, units.

There may be no container engine where the tests run, so nothing is built here; `tests/prove/test_image.py` does the
Containerfile's steps by hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
import yaml

from control_plane.settings import Settings
from data_plane.settings import NodeSettings
from pointsman.cli.main import main
from pointsman.rules.cluster_mtls import ClusterMtls
from pointsman.settings import SettingsError, load
from tests.support.patience import PATIENCE_S
from tests.support.processes import Process

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOM = 5.0  # seconds that a stop needs beside what is waited for


def compose() -> Mapping[str, dict[str, object]]:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert isinstance(services, dict)
    return services


def command(service: str) -> tuple[str, list[str]]:
    """The plane a service runs, and its flags."""
    words = compose()[service]["command"]
    assert isinstance(words, list)
    return words[0], words[1:]


def control_plane() -> Settings:
    plane, flags = command("control-plane")
    assert plane == "control-plane"
    settings = load(Settings, flags, {}, program="pointsman control-plane")
    settings.check()
    return settings


def node() -> NodeSettings:
    plane, flags = command("node")
    assert plane == "data-plane"
    return load(NodeSettings, flags, {}, program="pointsman data-plane")


def seconds(text: object) -> float:
    found = re.fullmatch(r"(\d+)s", str(text))
    assert found is not None, f"{text} is not in seconds"
    return float(found[1])


def test_compose_runs_both_planes_with_flags_that_they_know() -> None:
    plane, one = control_plane(), node()
    assert one.listens()
    (address,) = one.control_plane
    assert (address.host, address.port) == ("control-plane", plane.fleet_listen.port)
    assert not plane.fleet_listen.is_loopback, "other containers could not reach it"


def test_compose_and_units_let_nodes_in_by_mutual_tls_alone() -> None:
    assert control_plane().node_identity is ClusterMtls.ENROLLED
    one = node()
    assert one.join_file
    assert "insecure-fleet" not in (DEPLOY / "compose.yaml").read_text()
    (enrol,) = one.enrolment_addresses()
    assert enrol == f"control-plane:{control_plane().enrolment_address.port}"
    services = compose()
    assert services["node"]["depends_on"] == {"join-token": {"condition": "service_completed_successfully"}}
    assert services["join-token"]["depends_on"] == {"control-plane": {"condition": "service_healthy"}}
    # Where the one writes the token and the other reads it is one volume, in a folder that the image gives to its user.
    folders = {str(volume).split(":")[1] for name in ("node", "join-token") for volume in services[name]["volumes"]}  # type: ignore[attr-defined]  # YAML
    assert folders == {str(Path(one.join_file).parent)}
    assert f"install --directory --owner=pointsman --mode=0700 {Path(one.join_file).parent}" in (
        DEPLOY / "Containerfile"
    ).read_text().replace("\\\n", "")
    unit = (DEPLOY / "systemd" / "pointsman-data-plane.service").read_text()
    assert re.search(r"^EnvironmentFile=-/etc/pointsman/join\.env$", unit, re.MULTILINE)
    assert "POINTSMAN_JOIN" in unit


def here(words: list[str], moved: Mapping[str, str]) -> list[str]:
    """A service's words with its names, ports and folders replaced by what this machine has."""
    for before, after in moved.items():
        words = [word.replace(before, after) for word in words]
    return words


async def test_the_three_services_of_compose_run_and_the_node_joins(tmp_path: Path) -> None:
    """As the compose file starts them, one after the other; only ports and folders are other ones."""
    state = {"/var/lib/pointsman-join": str(tmp_path), "/var/lib/pointsman": str(tmp_path), "0.0.0.0:": "127.0.0.1:"}
    any_port = {f"127.0.0.1:{port}": "127.0.0.1:0" for port in (8000, 8001, 8005, 8007)}
    ports = tmp_path / "ports"
    _, flags = command("control-plane")
    # On loopback enrolment would be off: it is what auto means at the compose file's address.
    more = ("--enroll-listen=127.0.0.1:0", "--cluster-mtls=enrolled", "--ports-file", str(ports))
    plane = Process("plane", [sys.executable, "-m", "control_plane", *here(flags, state | any_port), *more], tmp_path)
    one = Process("one", [], tmp_path)
    try:
        plane.start()
        at = json.loads(await plane.read_file(ports))
        words = compose()["join-token"]["entrypoint"]
        assert isinstance(words, list)
        installed = {"pointsman join": f"{Path(sys.executable).with_name('pointsman')} join"}
        made = await asyncio.create_subprocess_exec(
            *here(words, installed | state), env={**os.environ, "POINTSMAN_ADDR": f"http://{at['admin']}"}
        )
        assert await made.wait() == 0
        assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
        _, flags = command("node")
        dial = {"control-plane:8005": at["fleet"]}
        one.arguments = [
            *(sys.executable, "-m", "data_plane", *here(flags, dial | state | any_port)),
            *("--enroll-at", at["enroll"], "--workers", "1"),
        ]
        one.start()
        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_S):
            while True:
                async with session.get(f"http://{at['admin']}/fleet/nodes") as answer:
                    nodes = (await answer.json())["data"]
                if nodes and nodes[0]["connected"]:
                    break
                await asyncio.sleep(0.05)
        assert nodes[0]["certificate_expires_at"] is not None
    finally:
        one.destroy()
        plane.destroy()


def test_a_flag_that_is_gone_would_be_found() -> None:
    with pytest.raises(SettingsError):
        load(Settings, [*command("control-plane")[1], "--no-such-flag=1"], {}, program="pointsman control-plane")


def test_compose_publishes_the_ports_that_are_listened_on_to_loopback_only() -> None:
    services = compose()
    inside = {"control-plane": control_plane().admin_listen.port, "node": node().listens()[0].address.port}
    for name, port in inside.items():
        published = services[name]["ports"]
        assert isinstance(published, list)
        for entry in published:
            host, _, target = str(entry).rpartition(":")
            assert int(target) == port
            assert host.startswith("127.0.0.1:")


def test_nobody_is_killed_before_requests_are_finished() -> None:
    settings = node()
    needed = settings.drain_delay_s + settings.drain_timeout_s + ROOM
    assert seconds(compose()["node"]["stop_grace_period"]) >= needed
    unit = (DEPLOY / "systemd" / "pointsman-data-plane.service").read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert found is not None
    assert float(found[1]) >= needed
    assert "KillMode=mixed" in unit


def test_health_checks_ask_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    check = compose()["control-plane"]["healthcheck"]
    assert isinstance(check, dict)
    assert check["test"] == ["CMD", "pointsman", "status"]
    assert main(["status", "--help"]) == 0
    assert "Show how the control plane is" in capsys.readouterr().out
    assert f":{node().status_listen.port}/status/ready" in str(compose()["node"]["healthcheck"])


def test_state_is_kept_in_volumes() -> None:
    volumes = compose()["control-plane"]["volumes"]
    assert isinstance(volumes, list)
    kept = Path(str(volumes[0]).partition(":")[2])
    assert Path(control_plane().database).is_relative_to(kept)
    text = (DEPLOY / "Containerfile").read_text()
    (declared,) = re.findall(r"^VOLUME (\S+)$", text, re.MULTILINE)
    assert Path(declared) == kept
    assert node().state_dir.is_relative_to(kept)


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.stem)
def test_units_run_a_plane_and_are_accepted_by_systemd(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    program, plane, *flags = line.split()
    assert Path(program).name == "pointsman"
    assert f"pointsman-{plane}" == unit.stem
    assert flags == ["--config", f"/etc/pointsman/{plane}.yaml"]
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not here")
    # The program of the unit is not installed here; all else is verified as it is.
    copy = tmp_path / unit.name
    copy.write_text(text.replace(program, "/bin/true"))
    verified = subprocess.run(
        [verify, "verify", str(copy)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert complaints == []
