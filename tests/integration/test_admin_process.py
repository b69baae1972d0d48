"""`python -m control_plane` as an operator runs it: ports, refusals, exit codes, stop, and what survives a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.support.patience import PATIENCE_S
from tests.support.processes import ControlPlane


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a control plane that is expected to end by itself."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    return subprocess.run(
        [sys.executable, "-m", "control_plane", *arguments],
        capture_output=True, text=True, timeout=PATIENCE_S, cwd=folder, env=environment, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "flags"), [("admin", ()), ("fleet", ("--cluster-mtls=off",))])
def test_only_loopback_unless_told_otherwise(tmp_path: Path, name: str, flags: tuple[str, ...]) -> None:
    ended = run(f"--{name}-listen", "0.0.0.0:0", *flags, folder=tmp_path)
    assert ended.returncode == 64
    assert f"--insecure-{name}" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    ended = run("--admin-lisen", "127.0.0.1:0", folder=tmp_path)
    assert ended.returncode == 64
    assert "--admin-lisen" in ended.stderr
    assert run("--admin-origins", "example.com", folder=tmp_path).returncode == 64


def test_help(tmp_path: Path) -> None:
    ended = run("--help", folder=tmp_path)
    assert ended.returncode == 0
    assert "--admin-listen" in ended.stdout


async def test_it_writes_its_ports_and_stops_in_order(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    try:
        await plane.up()
        ports = json.loads((tmp_path / "control-plane.ports").read_text())
        assert ports == {"admin": plane.admin, "fleet": plane.fleet}
        assert not plane.admin.endswith(":0")
        assert not plane.fleet.endswith(":0")
        assert await plane.stop() == 0
        assert "stopped" in plane.log_tail()
    finally:
        plane.destroy()


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    try:
        await plane.up()
        async with aiohttp.ClientSession() as session:
            for number in range(20):
                async with session.post(f"{plane.url}/services", json={"name": f"s{number}", "host": "h"}) as answer:
                    assert answer.status == 201
        plane.kill(signal.SIGKILL)
        await plane.wait()
        await plane.up()
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{plane.url}/services?size=1000") as answer:
                assert len((await answer.json())["data"]) == 20
            async with session.get(f"{plane.url}/") as answer:
                assert (await answer.json())["pointsman"]["head"] == 20
    finally:
        plane.destroy()


async def test_the_first_token_is_beside_an_sqlite_file(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, "--admin-tokens=required", database=str(tmp_path / "store.db"))
    try:
        await plane.up()
        assert (tmp_path / "store.db.admin-token").stat().st_mode & 0o777 == 0o600
    finally:
        plane.destroy()


async def test_a_second_one_on_the_same_database_is_refused(tmp_path: Path) -> None:
    database = str(tmp_path / "store.db")  # SQLite, also where the tests run over PostgreSQL, which takes several
    plane = ControlPlane(tmp_path, database=database)
    try:
        await plane.up()
        ended = run(
            "--database", database, "--admin-listen", "127.0.0.1:0", "--fleet-listen", "127.0.0.1:0", folder=tmp_path
        )
        assert ended.returncode == 1
        assert "another control plane" in ended.stderr
    finally:
        plane.destroy()


async def test_a_taken_port_is_told(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    try:
        await plane.up()
        for flags in (("--admin-listen", plane.admin), ("--fleet-listen", plane.fleet)):
            other = {"--admin-listen": "127.0.0.1:0", "--fleet-listen": "127.0.0.1:0", flags[0]: flags[1]}
            arguments = [part for pair in other.items() for part in pair]
            ended = run("--database", str(tmp_path / "b.db"), *arguments, folder=tmp_path)
            assert ended.returncode == 1
            assert flags[1] in ended.stderr
    finally:
        plane.destroy()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database, surely" * 100)
    ended = run("--database", "x.db", "--admin-listen", "127.0.0.1:0", "--fleet-listen", "127.0.0.1:0", folder=tmp_path)
    assert ended.returncode == 1
    assert "x.db" in ended.stderr
