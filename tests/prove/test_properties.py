"""Every property with twenty times the examples of `make test`; prints how many properties that were and how long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMES = 20


@pytest.mark.prove
@pytest.mark.timeout(4 * 3600)
def test_properties_hold_over_many_more_examples() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not prove", "--timeout=3600"]
    found = subprocess.run(
        [*command, *_with_examples()],
        cwd=ROOT, env={**os.environ, "POINTSMAN_EXAMPLES_TIMES": str(TIMES)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-5000:]
    print(f"{TIMES} times the examples: {found.stdout.splitlines()[-1]}")


def _with_examples() -> list[str]:
    """The files with properties."""
    rooms = (ROOT / "tests" / room for room in ("property", "unit"))
    files = (file for room in rooms for file in room.rglob("test_*.py"))
    return sorted(str(file) for file in files if "from hypothesis" in file.read_text(encoding="utf-8"))
