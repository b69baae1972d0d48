"""Thirteen HTTP servers behind one node: what the node sent and what each says it got, for thousands of requests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.differential import run_differential
from tests.support.origins import ALL, Unavailable, available, install

EXAMPLES = int(os.environ.get("POINTSMAN_PROVE_EXAMPLES", "150"))
ORIGINS_MIN = 8


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_eight_and_more_origins_get_exactly_what_the_node_sent(tmp_path: Path) -> None:
    try:
        install()
    except Unavailable as missing:
        pytest.skip(str(missing))
    names = available(ALL)
    assert len(names) >= ORIGINS_MIN
    counts = run_differential(tmp_path, names, examples=EXAMPLES)
    print()
    for name, count in counts.items():
        print(f"{name:18} " + "  ".join(f"{what} {number}" for what, number in count.items()))
    assert all(count["accepted"] > EXAMPLES for count in counts.values())
