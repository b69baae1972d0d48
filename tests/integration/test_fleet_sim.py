"""The simulated fleet runs, small: its figures at full size are in docs/benchmarks.md."""

from __future__ import annotations

import json

import pytest

from tests.support import fleet_sim


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert fleet_sim.main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert isinstance(report, dict)
    return report


def test_a_small_simulated_fleet_follows_changes_and_survives_a_restart(capsys: pytest.CaptureFixture[str]) -> None:
    report = run(capsys, "--nodes=20", "--entities=50", "--changes=3", "--rollouts=2")
    assert report["changes"] == 3
    assert report["rollouts"] == 2
    assert report["storm_pulls"] == 0, "who runs the head is sent nothing"
