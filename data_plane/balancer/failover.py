"""The two groups of an upstream: its regular endpoints, and those that stand in when none of them is available.

Each group has a policy and sums of its own, so the group that comes into use is ready at once, and the upstream's
threshold is judged by the weight of the group that is in use.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from data_plane.balancer.endpoint import Endpoint
from data_plane.balancer.policy import STEP, Policy, Steps, let_go


class Group:
    """Endpoints of positive weight that take traffic together, the policy among them, and the sums of their weights."""

    __slots__ = ("_flips", "_shares", "available_weight", "candidates", "live", "policy", "total_weight")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.candidates: set[Endpoint] = set()
        self.live = 0  # how many candidates are available
        self.total_weight = 0
        self.available_weight = 0
        self._flips = 0
        self._shares: list[tuple[Endpoint, int]] = []  # what the policy was last reconciled with

    def reconcile_steps(self, endpoints: Sequence[Endpoint], policy: Policy) -> Steps:
        """Become these endpoints, in an order that all workers share, chosen by `policy` when all is done."""
        flips = self._flips
        shares: list[tuple[Endpoint, int]] = []
        candidates: set[Endpoint] = set()
        live = total_weight = available_weight = 0
        for start in range(0, len(endpoints), STEP):
            for endpoint in endpoints[start : start + STEP]:
                weight = endpoint.weight
                shares.append((endpoint, weight))
                candidates.add(endpoint)
                total_weight += weight
                if endpoint.available:
                    live += 1
                    available_weight += weight
            yield
        if shares != self._shares or policy is not self.policy:
            yield
            yield from policy.reconcile_steps(endpoints)
            self.policy = policy
            shares, self._shares = self._shares, shares
            self.candidates = candidates
        if flips == self._flips:
            self.live, self.total_weight, self.available_weight = live, total_weight, available_weight
        else:
            self.weigh()
        yield from let_go(shares)

    def weigh(self) -> None:
        """Sum up anew."""
        self.total_weight = sum([endpoint.weight for endpoint in self.candidates])
        available = [endpoint.weight for endpoint in self.candidates if endpoint.available]
        self.live = len(available)
        self.available_weight = sum(available)

    def availability_changed(self, endpoint: Endpoint) -> None:
        """Follow a verdict; ignored for an endpoint of another group."""
        self._flips += 1
        if endpoint not in self.candidates:
            return
        self.policy.availability_changed(endpoint)
        self.live += 1 if endpoint.available else -1
        self.available_weight += endpoint.weight if endpoint.available else -endpoint.weight

    def excluded(self, tried: Sequence[Endpoint]) -> Collection[Endpoint]:
        """Whom a further attempt should avoid: those tried before, until all available ones have been."""
        distinct = set(tried)
        if not self.live or sum(endpoint.available for endpoint in distinct & self.candidates) < self.live:
            return distinct
        # All have been tried: go round again, again without those already tried in this round.
        return set(tried[len(tried) - len(tried) % self.live :])
