"""The long proof of renewal: ten minutes of load under certificates of one minute, and twenty rotations in a row."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.test_certificates import rotate_under_load, streams_lost
from tests.support.enrolled import EnrolledFleet


@pytest.mark.prove
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("life_s", "rotations"), [(60.0, 15), (6.0, 20)])
async def test_certificates_rotate_and_nothing_is_lost(tmp_path: Path, life_s: float, rotations: int) -> None:
    began = time.monotonic()
    async with EnrolledFleet(tmp_path, nodes=2, life_s=life_s) as fleet:
        books = await rotate_under_load(fleet, rotations=rotations, rate=100)
        took_s = time.monotonic() - began
        print(
            f"\ncertificates of {life_s:g} s on 2 nodes: {rotations} rotations each in {took_s:.0f} s, "
            f"{len(books.switches)} switches meanwhile, {books.sent} requests sent, "
            f"{books.answered_once} answered once, {len(books.lost)} lost, "
            f"{books.doubled} doubled, {len(streams_lost(fleet))} streams lost"
        )
        assert books.failures == []
        assert books.answered_once == books.sent
        assert streams_lost(fleet) == []
