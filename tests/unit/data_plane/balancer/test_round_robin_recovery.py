"""An endpoint that was down comes back into the order of turns, wherever in a revolution that happens."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from data_plane.balancer import Upstream
from data_plane.model import TargetConfig, UpstreamConfig


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("alone", [1, 2, 10, 11])
def test_after_a_recovery_the_shares_are_exact_at_once(seed: int, alone: int) -> None:
    upstream = Upstream("u", rng=random.Random(seed))
    targets = [TargetConfig(id=f"t{number}", upstream="u", host=f"10.0.0.{number}", port=80) for number in (1, 2)]
    upstream.reconcile(UpstreamConfig(id="u", name="u"), targets, lambda _: None)
    first, second = upstream.endpoints
    for _ in range(10):
        upstream.pick()
    upstream.set_available(second, available=False)
    assert {upstream.pick().key for _ in range(alone)} == {first}
    upstream.set_available(second, available=True)
    assert Counter(upstream.pick().key for _ in range(10)) == {first: 5, second: 5}
