"""An upstream's live side: its endpoints, which of them may be picked, and the policy that chooses.

It is keyed by the upstream's id and outlives every config: a service that is pointed elsewhere and back finds it as it
was. `reconcile` changes it in place. What survives keeps its position, count, connections and verdict; only what is
gone from the config or from DNS is retired.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import final

from data_plane.balancer.addresses import Address, addresses_of
from data_plane.balancer.endpoint import Endpoint, NoEndpoint, Reason
from data_plane.balancer.latency import Latency
from data_plane.balancer.least_connections import LeastConnections
from data_plane.balancer.policy import Policy
from data_plane.balancer.ring import ConsistentHashing
from data_plane.balancer.round_robin import RoundRobin
from data_plane.model import TargetConfig, UpstreamConfig
from data_plane.resolve.answers import Answer

CONSISTENT_HASHING = "consistent-hashing"
LEAST_CONNECTIONS = "least-connections"
LATENCY = "latency"


@final
class Upstream:
    """The balancer of one upstream in one worker.

    `on_retire` is told of each endpoint that goes. `rng` decides where policies begin; without one they begin at the
    same place everywhere. `clock` gives seconds that only grow. `hashing` is the config when picks need the request's
    hash input (`hash_input`), else None; `measures` says that attempts are to be reported with `observe`.
    """

    def __init__(
        self,
        upstream_id: str,
        *,
        rng: random.Random | None = None,
        on_retire: Callable[[Endpoint], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = upstream_id
        self.hashing: UpstreamConfig | None = None
        self.measures = False
        self.total_weight = 0
        self.available_weight = 0
        self._rng = rng
        self._on_retire = on_retire
        self._threshold = 0.0
        self._endpoints: dict[str, Endpoint] = {}
        self._candidates: set[Endpoint] = set()  # those with a weight
        self._live = 0  # how many candidates are available
        self._usable = False
        self._clock = clock
        self._algorithm = ""
        self._shares: list[tuple[Endpoint, int]] = []  # what the policy was last reconciled with
        self._policy: Policy = RoundRobin(rng)
        self._loads: LeastConnections | None = None
        self._times: Latency | None = None

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """All endpoints by key, those of weight 0 too."""
        return self._endpoints

    def reconcile(
        self, config: UpstreamConfig, targets: Sequence[TargetConfig], answers: Callable[[str], Answer | None]
    ) -> None:
        """Become what `config`, `targets` and the names' `answers` say, keeping the state of what stays.

        A name without an answer yet keeps what it had. Changes nothing when nothing differs.
        """
        self._threshold = config.healthchecks.threshold
        self._follow_algorithm(config)
        wanted = addresses_of(targets, answers)
        kept: dict[str, Endpoint] = {}
        for key, address in wanted.items():
            if isinstance(address, Address):
                kept[key] = self._adopt(address)
            else:
                kept.update(self._resolved_from(address.target))
        for key, endpoint in self._endpoints.items():
            if key not in kept:
                self._retire(endpoint)
        # In an order that depends on nothing but the endpoints themselves, so that all workers agree on it.
        self._endpoints = dict(sorted(kept.items()))
        candidates = [endpoint for endpoint in self._endpoints.values() if endpoint.weight > 0]
        self._candidates = set(candidates)
        shares = [(endpoint, endpoint.weight) for endpoint in candidates]
        if shares != self._shares:
            self._shares = shares
            self._policy.reconcile(candidates)
        self._weigh()

    def pick(self, tried: Sequence[Endpoint] = (), key: bytes = b"") -> Endpoint:
        """Choose the endpoint of the next attempt; raises NoEndpoint.

        An endpoint in `tried` (the attempts of this request, in order) is chosen again only when all available ones
        have been tried as often. `key` is the request's hash input, for policies that hash.
        """
        if not self._usable:
            raise NoEndpoint(Reason.ALL_UNAVAILABLE if self.total_weight else Reason.NO_TARGETS)
        endpoint = self._policy.pick(self._excluded(tried) if tried else (), key)
        if endpoint is None:
            raise NoEndpoint(Reason.ALL_UNAVAILABLE)
        return endpoint

    def take(self, endpoint: Endpoint) -> None:
        """Count an attempt that begins on the endpoint."""
        endpoint.in_flight += 1
        if self._loads is not None:
            self._loads.load_changed(endpoint)

    def release(self, endpoint: Endpoint) -> None:
        """Count the end of an attempt begun with `take`, once."""
        assert endpoint.in_flight > 0, "an attempt is released once"
        endpoint.in_flight -= 1
        if self._loads is not None:
            self._loads.load_changed(endpoint)

    def observe(self, endpoint: Endpoint, seconds: float, *, failed: bool = False) -> None:
        """Report how long an attempt took that ended by itself; only needed while `measures`."""
        if self._times is not None:
            self._times.observed(endpoint, seconds, failed=failed)

    def set_available(self, key: str, *, available: bool) -> bool:
        """Follow a verdict on the endpoint with that key; False when there is none such."""
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            return False
        if endpoint.available != available:
            endpoint.available = available
            if endpoint in self._candidates:
                self._policy.availability_changed(endpoint)
                self._live += 1 if available else -1
                self.available_weight += endpoint.weight if available else -endpoint.weight
                self._usable = is_healthy(self.available_weight, self.total_weight, self._threshold)
        return True

    def retire(self) -> None:
        """Let go of everything: the upstream is gone from the config."""
        for endpoint in self._endpoints.values():
            self._retire(endpoint)
        self._endpoints = {}
        self._candidates = set()
        self._shares = []
        self._policy.reconcile(())
        self._weigh()

    def _follow_algorithm(self, config: UpstreamConfig) -> None:
        self.hashing = config if config.algorithm == CONSISTENT_HASHING else None
        if config.algorithm == self._algorithm:
            return
        self._algorithm = config.algorithm
        self._shares = []
        self._loads = None
        self._times = None
        if config.algorithm == CONSISTENT_HASHING:
            self._policy = ConsistentHashing()
        elif config.algorithm == LEAST_CONNECTIONS:
            self._policy = self._loads = LeastConnections(self._rng)
        elif config.algorithm == LATENCY:
            self._policy = self._times = Latency(self._clock, self._rng)
        else:
            self._policy = RoundRobin(self._rng)
        self.measures = self._times is not None

    def _resolved_from(self, target: TargetConfig) -> Iterator[tuple[str, Endpoint]]:
        written = f"{target.host}:{target.port}/"
        return ((key, endpoint) for key, endpoint in self._endpoints.items() if key.startswith(written))

    def _adopt(self, address: Address) -> Endpoint:
        endpoint = self._endpoints.get(address.key)
        if endpoint is None:
            return Endpoint(
                key=address.key,
                ip=address.ip,
                port=address.port,
                host=address.host,
                weight=address.weight,
                target_id=address.target_id,
            )
        endpoint.weight = address.weight
        endpoint.target_id = address.target_id
        return endpoint

    def _retire(self, endpoint: Endpoint) -> None:
        endpoint.retired = True
        endpoint.available = False
        if self._on_retire is not None:
            self._on_retire(endpoint)

    def _weigh(self) -> None:
        available = [endpoint for endpoint in self._candidates if endpoint.available]
        self._live = len(available)
        self.total_weight = sum(endpoint.weight for endpoint in self._candidates)
        self.available_weight = sum(endpoint.weight for endpoint in available)
        self._usable = is_healthy(self.available_weight, self.total_weight, self._threshold)

    def _excluded(self, tried: Sequence[Endpoint]) -> Collection[Endpoint]:
        distinct = set(tried)
        if sum(endpoint.available for endpoint in distinct & self._candidates) < self._live:
            return distinct
        # All have been tried: go round again, again without those already tried in this round.
        return set(tried[len(tried) - len(tried) % self._live :])


def is_healthy(available: int, total: int, threshold: float) -> bool:
    """Tell whether an upstream may be used: more than `threshold` percent of its weight is available.

    Kong compares strictly, so at 100 nothing would ever do; there, all of the weight is enough.
    """
    if total <= 0 or available <= 0:
        return False
    percent = available / total * 100
    return percent >= threshold if threshold >= 100 else percent > threshold
