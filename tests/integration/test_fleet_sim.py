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
    report = run(capsys, "--nodes=20", "--entities=50", "--changes=3", "--beat-interval-s=0.5")
    assert report["changes"] == 3
    assert report["storm_pulls"] == 0, "who runs the head is sent nothing"


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_a_thousand_simulated_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    report = run(capsys, "--nodes=1000", "--entities=1000", "--changes=20")
    with capsys.disabled():
        print(json.dumps(report, indent=2))  # noqa: T201 - the figures of the proof
    assert report["storm_pulls"] == 0
    storm, rss = report["storm_settled_s"], report["control_plane_rss_max_mib"]
    assert isinstance(storm, float)
    assert isinstance(rss, float)
    assert storm <= 30
    assert rss <= 1024
