"""A thousand simulated nodes on one control plane, with the figures that docs/benchmarks.md keeps."""

from __future__ import annotations

import json

import pytest

from tests.support import fleet_sim


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_a_thousand_simulated_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert fleet_sim.main(["--nodes=1000", "--entities=1000", "--changes=20"]) == 0
    report = json.loads(capsys.readouterr().out)
    with capsys.disabled():
        print(json.dumps(report, indent=2))
    assert report["storm_pulls"] == 0
    storm, rss = report["storm_settled_s"], report["control_plane_rss_max_mib"]
    assert isinstance(storm, float)
    assert isinstance(rss, float)
    assert storm <= 30
    assert rss <= 1024
