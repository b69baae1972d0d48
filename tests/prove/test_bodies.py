"""1 GiB up and 1 GiB down through one worker, whose memory stays where it was. Prints its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.big_bodies import download, expected_sha256, node_before_echo, upload

OCTETS = 1 << 30
GROWTH_MIB_MAX = 24


@pytest.mark.prove
@pytest.mark.timeout(600)
async def test_a_gibibyte_each_way_in_bounded_memory(tmp_path: Path) -> None:
    expected = expected_sha256(OCTETS)
    async with node_before_echo(tmp_path) as node:
        up = await upload(node, OCTETS)
        down = await download(node, OCTETS)
        chunked = await download(node, OCTETS, path="/bigchunked")
    print(
        f"\nthe worker grew by {up.grew_mib:.1f} MiB (up), {down.grew_mib:.1f} (down), "
        f"{chunked.grew_mib:.1f} (chunked down)"
    )
    assert (up.octets, up.sha256) == (OCTETS, expected)
    assert (down.octets, down.sha256) == (OCTETS, expected)
    assert chunked.octets > OCTETS, "with its framing"
    assert max(up.grew_mib, down.grew_mib, chunked.grew_mib) < GROWTH_MIB_MAX
