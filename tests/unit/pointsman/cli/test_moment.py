from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from pointsman.cli.errors import CliError
from pointsman.cli.moment import parsed

NOW = datetime.fromisoformat("2026-03-28T21:00:00+00:00").timestamp()


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone whose clocks go forward in the night after NOW."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("+90s", "2026-03-28T21:01:30+00:00"),
        ("+2h", "2026-03-28T23:00:00+00:00"),
        ("+1d", "2026-03-29T21:00:00+00:00"),
        ("22:30", "2026-03-28T21:30:00+00:00"),
        ("22:00", "2026-03-29T20:00:00+00:00"),  # that minute has begun, and tomorrow is summer
        ("9:05", "2026-03-29T07:05:00+00:00"),
        ("2026-06-01T12:00", "2026-06-01T10:00:00+00:00"),
        ("2026-06-01 12:00:30", "2026-06-01T10:00:30+00:00"),
        ("2026-06-01T12:00:00Z", "2026-06-01T12:00:00+00:00"),
        ("2026-06-01T12:00:00-05:00", "2026-06-01T17:00:00+00:00"),
    ],
)
def test_times_as_operators_write_them(text: str, then: str) -> None:
    assert parsed(text, NOW) == datetime.fromisoformat(then).timestamp()


@pytest.mark.parametrize(
    "text", ["", "soon", "10m", "+10", "+10w", "25:00", "22:60", "2026-02-30T10:00", "2026", "+-5m"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(CliError, match="is not a time"):
        parsed(text, NOW)
