"""A link that went dead without a word, with beats too rare to notice: HTTP/2's keep-alive alone must, at both ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import Snap, entities, node, plane
from tests.support.patience import PATIENCE_S, until

FOUND_WITHIN_S = 15.0
RARE_BEATS_S = 120.0
"""The lease is three of them: it can't be what finds the cut."""


@pytest.mark.prove
@pytest.mark.parametrize("dead", ["both ways", "to the node", "to the control plane"])
async def test_keep_alive_alone_finds_a_half_open_link(tmp_path: Path, dead: str) -> None:
    async with (
        plane(beat_interval_s=RARE_BEATS_S) as control,
        FaultProxy(control.server.port) as proxy,
        node(proxy.address, tmp_path) as one,
    ):
        control.publish(Snap(1, entities(1)))
        await until(lambda: one.sink.running is not None and control.nodes.views()[0].version == 1)
        began = time.monotonic()
        if dead == "both ways":
            proxy.stall()
        else:
            proxy.stall_one_way(to_client=dead == "to the node")
        found: dict[str, float] = {}

        def look() -> bool:
            if not one.link.connected:
                found.setdefault("node", time.monotonic() - began)
            if not control.nodes.views()[0].connected:
                found.setdefault("control plane", time.monotonic() - began)
            return len(found) == 2

        await until(look, patience_s=PATIENCE_S)
        print(f"\nlink dead {dead}: " + ", ".join(f"the {end} knows after {s:.1f} s" for end, s in found.items()))
        assert max(found.values()) <= FOUND_WITHIN_S
