"""`make demo` shows the main job and fails when the promise is broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import demo, ledger
from tests.support.load import Record
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_the_demo_ends_well_and_prints_its_books() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.demo", "--switches", "2", "--rate", "100"],
        cwd=ROOT, capture_output=True, text=True, timeout=2.5 * PATIENCE_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for line in (
        "ok confirmed: 3 of 3 nodes serve green",
        "ok old side   blue: 0 requests open on any node, no service points there: safe to tear down",
        "example-service: green -> blue, undo of switch 1, switch 2",
        "refused, SIDE_UNHEALTHY: 0 of 2 targets of green are healthy (0 %), 75 % are needed",
    ):
        assert line in ended.stdout
    for line in ("lost 0   doubled 0   violations of order 0", "  1 -> green", "  2 -> blue", "by target    blue-1: "):
        assert line in ended.stdout
    assert ended.stdout.endswith("Nothing lost by the gateway, nothing doubled, nothing out of order.\n")
    assert max(len(line) for line in ended.stdout.splitlines()) <= 100, "it is read on a terminal"


def test_the_demo_fails_when_a_request_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(folder: Path, **_: object) -> ledger.Ledger:
        return ledger.Ledger(sent=1, lost=[Record(id=0, node=0, due=1.0, problem="connection lost")])

    monkeypatch.setattr(ledger, "run", run)
    monkeypatch.setattr(sys, "argv", ["demo"])
    with pytest.raises(SystemExit, match="1 requests lost, first: connection lost"):
        demo.main()
    assert "lost 1" in capsys.readouterr().out
