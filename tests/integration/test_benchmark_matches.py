"""The router's benchmark runs, and finds a route for all that it asks."""

from __future__ import annotations

import pytest

from benchmarks import matches


def test_the_table_has_a_row_for_each_kind_of_route(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(matches, "MATCHES", 20)
    monkeypatch.setattr(matches, "COUNTS", (1, 40))
    matches.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "a host each",
        "a prefix each",
        "a regex each",
        "regexes that begin alike",
    ]
