"""The committed vectors pass as a whole: what fails is printed by the runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.router import main

VECTORS = Path(__file__).parent / "vectors" / "router.json"
MORE = VECTORS.with_name("router-more.json")
"""The same rules at further places, each with the rule that it is about."""


def test_every_vector_passes_but_for_quirks_done_better(capsys: pytest.CaptureFixture[str]) -> None:
    status = main([str(VECTORS)])

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "passed 443 of 443", "\n".join(lines)
    assert "skipped 27: flavour expressions" in lines
    assert "skipped 22: subsystem stream" in lines
    assert status == 0


def test_every_further_vector_passes(capsys: pytest.CaptureFixture[str]) -> None:
    status = main([str(MORE)])

    assert capsys.readouterr().out.splitlines() == ["passed 149 of 149"]
    assert status == 0


def test_a_wrong_expectation_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "one.json"
    file.write_text(
        '{"about": {}, "vectors": [{"id": "x-1", "flavor": "traditional_compatible",'
        ' "routes": [{"id": "00000000-0000-4000-8000-000000000001", "name": "a", "paths": ["/a"]}],'
        ' "request": {"scheme": "http", "path": "/a", "host": "h"}, "expect": {"route": "b"}}]}'
    )

    assert main([str(file)]) == 1

    assert capsys.readouterr().out.splitlines() == ['x-1: route: expected "b", got "a"', "passed 0 of 1"]
