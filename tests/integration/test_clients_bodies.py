"""Bodies far larger than a worker may grow: they pass through, whoever is slow. `make prove ONLY=bodies` has 1 GiB."""

from __future__ import annotations

from pathlib import Path

from tests.support.big_bodies import download, expected_sha256, node_before_echo, trickled_upload, upload

OCTETS = 64 << 20
GROWTH_MIB_MAX = 24


async def test_a_form_of_64_mib_passes_through(tmp_path: Path) -> None:
    async with node_before_echo(tmp_path) as node:
        cost = await upload(node, OCTETS)
    assert (cost.octets, cost.sha256) == (OCTETS, expected_sha256(OCTETS))
    assert cost.grew_mib < GROWTH_MIB_MAX


async def test_a_slow_reader_of_a_big_answer_does_not_grow_the_worker(tmp_path: Path) -> None:
    async with node_before_echo(tmp_path) as node:
        cost = await download(node, OCTETS, pause_every=16 << 20, pause_s=0.3)
    assert (cost.octets, cost.sha256) == (OCTETS, expected_sha256(OCTETS))
    assert cost.grew_mib < GROWTH_MIB_MAX


async def test_an_upstream_that_reads_slowly_does_not_grow_the_worker(tmp_path: Path) -> None:
    cost = await trickled_upload(tmp_path, OCTETS, pause_s=1.0)
    assert (cost.octets, cost.sha256) == (OCTETS, expected_sha256(OCTETS))
    assert cost.grew_mib < GROWTH_MIB_MAX
