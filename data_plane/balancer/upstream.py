"""An upstream's live side: its endpoints, which of them may be picked, and the policy that chooses.

It is keyed by the upstream's id and outlives every config: a service that is pointed elsewhere and back finds it as it
was. `reconcile` changes it in place. What survives keeps its position, count, connections and verdict; only what is
gone from the config or from DNS is retired.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from data_plane.balancer.addresses import Address, addresses_steps
from data_plane.balancer.endpoint import Endpoint, NoEndpoint, Reason
from data_plane.balancer.failover import Group
from data_plane.balancer.latency import Latency
from data_plane.balancer.least_connections import LeastConnections
from data_plane.balancer.policy import STEP, Policy, Steps, at_once, let_go
from data_plane.balancer.ring import ConsistentHashing
from data_plane.balancer.round_robin import RoundRobin
from data_plane.balancer.slow_start import SlowStart
from data_plane.balancer.sticky import StickySessions
from data_plane.health.passive import PassiveFilter, Sighting
from data_plane.model import TargetConfig, UpstreamConfig
from data_plane.resolve.answers import Answer
from pointsman.rules.upstream_health import is_usable

CONSISTENT_HASHING = "consistent-hashing"
LEAST_CONNECTIONS = "least-connections"
LATENCY = "latency"
STICKY_SESSIONS = "sticky-sessions"

Report = Callable[[Endpoint, Sighting, int], None]
"""Takes what was seen of an endpoint; the number is the status of an answer."""


@dataclass(frozen=True, slots=True)
class _Policies:
    """The policies of both groups, and which of them want to be told of loads, times and sessions."""

    regular: Policy
    failover: Policy
    loads: tuple[LeastConnections, ...] = ()
    times: tuple[Latency, ...] = ()
    sessions: StickySessions | None = None


def _in_order(kept: Mapping[str, Endpoint]) -> Generator[None, None, dict[str, Endpoint]]:
    """Return `kept` by key; ten thousand keys sorted at once would hold up requests for some milliseconds."""
    keys = list(kept)
    runs: list[list[str]] = []
    for start in range(0, len(keys), STEP):
        runs.append(sorted(keys[start : start + STEP]))
        yield
    endpoints: dict[str, Endpoint] = {}
    for number, key in enumerate(heapq.merge(*runs)):
        endpoints[key] = kept[key]
        if number % STEP == STEP - 1:
            yield
    return endpoints


class Upstream:
    """The balancer of one upstream in one worker.

    `on_retire` is told of each endpoint that goes. `rng` decides where policies begin; without one they begin at the
    same place everywhere. `clock` gives seconds that only grow. `report` gets what the passive checks count. `down` are
    the keys of endpoints that are unavailable by verdict: kept by the caller, because verdicts may come before the
    endpoints they are about.

    `plain` says that `pick`, `take` and `release` are all this upstream needs. Otherwise `hashing` is the config when
    picks need the request's hash input (`hash_input`), `sticky` is the config when they need the session's cookie,
    `measures` says that attempts are to be reported with `observe`, and `watches` that they are with `saw`.
    """

    def __init__(
        self,
        upstream_id: str,
        *,
        rng: random.Random | None = None,
        on_retire: Callable[[Endpoint], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        report: Report | None = None,
        down: set[str] | None = None,
        secret: bytes = b"",
    ) -> None:
        self.id = upstream_id
        self.plain = True
        self.hashing: UpstreamConfig | None = None
        self.sticky: UpstreamConfig | None = None
        self.measures = False
        self.watches = False
        self._rng = rng
        self._on_retire = on_retire
        self._clock = clock
        self._report = report
        self._down: set[str] = down if down is not None else set()
        self._secret = secret
        self._told: set[str] = set()  # verdicts on these came since the last walk began
        self._threshold = 0.0
        self._endpoints: dict[str, Endpoint] = {}
        self._usable = False
        self._algorithm = ""
        self._passive: PassiveFilter | None = None
        self._policies = _Policies(RoundRobin(rng), RoundRobin(rng))
        self._regular = Group(self._policies.regular)
        self._failover = Group(self._policies.failover)
        self._group = self._regular
        self._policy: Policy = self._regular.policy
        self._loads: tuple[LeastConnections, ...] = ()
        self._times: tuple[Latency, ...] = ()
        self._sessions: StickySessions | None = None
        self._slow_start = SlowStart(clock, rng or random.Random(0))  # noqa: S311 - drawing lots is not cryptography

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """All endpoints by key, those of weight 0 too."""
        return self._endpoints

    @property
    def total_weight(self) -> int:
        """Of the group in use, as `available_weight`."""
        return self._group.total_weight

    @property
    def available_weight(self) -> int:
        """What of `total_weight` may be picked."""
        return self._group.available_weight

    def reconcile(
        self, config: UpstreamConfig, targets: Sequence[TargetConfig], answers: Callable[[str], Answer | None]
    ) -> None:
        """Become what `config`, `targets` and the names' `answers` say, keeping the state of what stays.

        A name without an answer yet keeps what it had. Changes nothing when nothing differs.
        """
        at_once(self.reconcile_steps(config, targets, answers))

    def reconcile_steps(
        self, config: UpstreamConfig, targets: Sequence[TargetConfig], answers: Callable[[str], Answer | None]
    ) -> Steps:
        """The same between requests, for upstreams of thousands of targets: until the end all is as it was before.

        But for weights, which may be followed on the way. One such walk at a time.
        """
        self._told.clear()
        wanted = yield from addresses_steps(targets, answers, use_srv_name=config.use_srv_name)
        before = self._endpoints
        kept: dict[str, Endpoint] = {}
        fresh: list[Endpoint] = []
        emptied: list[tuple[Endpoint, Address]] = []
        for number, (key, address) in enumerate(wanted.items()):
            if isinstance(address, Address):
                endpoint = self._adopt(address)
                kept[key] = endpoint
                if before.get(key) is not endpoint:
                    fresh.append(endpoint)
                if endpoint.weight and not address.weight:
                    emptied.append((endpoint, address))  # policies divide by the weights of whom they know
                else:
                    endpoint.weight = address.weight
                endpoint.target_id = address.target_id
                endpoint.failover = address.failover
            else:
                kept.update(self._resolved_from(address.target))
            if number % STEP == STEP - 1:
                yield
        yield from let_go(wanted)
        # In an order that depends on nothing but the endpoints themselves, so that all workers agree on it.
        endpoints = yield from _in_order(kept)
        yield
        gone: list[Endpoint] = []
        for number, (key, endpoint) in enumerate(before.items()):
            if endpoints.get(key) is not endpoint:
                gone.append(endpoint)
            if number % STEP == STEP - 1:
                yield
        yield
        leaving = {endpoint for endpoint, _ in emptied}
        # A hashed or sticky request belongs to one endpoint: nothing can stand in for it.
        stand_in = config.algorithm not in (CONSISTENT_HASHING, STICKY_SESSIONS)
        regulars: list[Endpoint] = []
        spares: list[Endpoint] = []
        holdable: list[Endpoint] = []
        for number, endpoint in enumerate(endpoints.values()):
            if not endpoint.failover:
                holdable.append(endpoint)
            if endpoint.weight > 0 and endpoint not in leaving:
                if not endpoint.failover:
                    regulars.append(endpoint)
                elif stand_in:
                    spares.append(endpoint)
            if number % STEP == STEP - 1:
                yield
        yield
        policies = self._policies if config.algorithm == self._algorithm else self._policies_of(config.algorithm)
        if policies.sessions is not None:
            yield from policies.sessions.know(holdable, self._secret)
        yield from self._failover.reconcile_steps(spares, policies.failover)
        yield
        yield from self._regular.reconcile_steps(regulars, policies.regular)
        self._policies = policies
        self._follow_config(config)
        for endpoint, address in emptied:
            endpoint.weight = address.weight
        self._endpoints = endpoints
        for key in self._told:  # verdicts that came meanwhile
            told = endpoints.get(key)
            if told is not None and told.available == (key in self._down):
                told.available = not told.available
                self._regular.availability_changed(told)
                self._failover.availability_changed(told)
        self._told.clear()
        self._judge()
        # From here on all is as it should be; what follows are farewells and greetings.
        for number, endpoint in enumerate(fresh if before else ()):
            if not endpoint.retired and self._endpoints.get(endpoint.key) is endpoint:
                self._slow_start.begin(endpoint)
            if number % STEP == STEP - 1:
                yield
        before = {}
        while gone:
            for endpoint in gone[-STEP:]:
                self._retire(endpoint)
            del gone[-STEP:]
            yield
        yield from let_go(kept, fresh, regulars, spares, holdable)

    def pick(self, tried: Sequence[Endpoint] = (), key: bytes = b"") -> Endpoint:
        """Choose the endpoint of the next attempt; raises NoEndpoint.

        An endpoint in `tried` (the attempts of this request, in order) is chosen again only when all available ones
        have been tried as often. `key` is the request's hash input, or the value of its session's cookie.
        """
        if not self._usable:
            return self._last_holder(tried, key)
        endpoint = self._policy.pick(self._group.excluded(tried) if tried else (), key)
        if endpoint is None:
            raise NoEndpoint(Reason.ALL_UNAVAILABLE)
        if self._slow_start:
            return self._warmed(endpoint, tried, key)
        return endpoint

    def take(self, endpoint: Endpoint) -> None:
        """Count an attempt that begins on the endpoint."""
        endpoint.in_flight += 1
        for loads in self._loads:
            loads.load_changed(endpoint)

    def release(self, endpoint: Endpoint) -> None:
        """Count the end of an attempt begun with `take`, once."""
        assert endpoint.in_flight > 0, "an attempt is released once"
        endpoint.in_flight -= 1
        for loads in self._loads:
            loads.load_changed(endpoint)

    def observe(self, endpoint: Endpoint, seconds: float, *, failed: bool = False) -> None:
        """Report how long an attempt took that ended by itself; only needed while `measures`."""
        for times in self._times:
            times.observed(endpoint, seconds, failed=failed)

    def saw(self, endpoint: Endpoint, sighting: Sighting, status: int = 0) -> None:
        """Report how an attempt ended, for the passive checks; only needed while `watches`."""
        passive = self._passive
        if passive is not None and self._report is not None and passive.counts(sighting, status):
            self._report(endpoint, sighting, status)

    def session_of(self, endpoint: Endpoint) -> bytes:
        """The value of the cookie that names the endpoint, for sticky sessions."""
        return self._sessions.value_of(endpoint) if self._sessions is not None else b""

    def set_available(self, key: str, *, available: bool) -> bool:
        """Follow a verdict on the endpoint with that key; False when there is none such, now."""
        if available:
            self._down.discard(key)
        else:
            self._down.add(key)
        self._told.add(key)
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            return False
        if endpoint.available != available:
            endpoint.available = available
            if available:
                self._slow_start.begin(endpoint)
            else:
                self._slow_start.end(endpoint)
            self._regular.availability_changed(endpoint)
            self._failover.availability_changed(endpoint)
            self._judge()
        return True

    def follow_verdicts(self) -> None:
        """Bring availability up to date with verdicts that came while nobody could tell this upstream."""
        for key, endpoint in self._endpoints.items():
            if endpoint.available == (key in self._down):
                self.set_available(key, available=not endpoint.available)

    def use_secret(self, secret: bytes) -> None:
        """Name endpoints to sticky clients by another secret from now on."""
        self._secret = secret
        if self._sessions is not None:
            at_once(self._sessions.know([each for each in self._endpoints.values() if not each.failover], secret))

    def retire(self) -> None:
        """Let go of everything: the upstream is gone from the config."""
        for endpoint in self._endpoints.values():
            self._retire(endpoint)
        self._endpoints = {}
        for group in (self._regular, self._failover):
            at_once(group.reconcile_steps((), group.policy))
            group.weigh()
        if self._sessions is not None:
            at_once(self._sessions.know((), self._secret))
        self._judge()

    def _follow_config(self, config: UpstreamConfig) -> None:
        self._threshold = config.healthchecks.threshold
        self._passive = PassiveFilter.of(config.healthchecks) if self._report is not None else None
        self.watches = self._passive is not None
        self.hashing = config if config.algorithm == CONSISTENT_HASHING else None
        self.sticky = config if config.algorithm == STICKY_SESSIONS else None
        # A hashed request that went elsewhere for a while would miss what its home keeps for it.
        self._slow_start.over_s = 0.0 if self.hashing else config.slow_start_s
        self._algorithm = config.algorithm
        self._loads = self._policies.loads
        self._times = self._policies.times
        self._sessions = self._policies.sessions
        self.measures = bool(self._times)
        self.plain = not (self.hashing or self.sticky or self.measures or self.watches)

    def _policies_of(self, algorithm: str) -> _Policies:
        rng = self._rng
        if algorithm == CONSISTENT_HASHING:
            return _Policies(ConsistentHashing(), ConsistentHashing())
        if algorithm == LEAST_CONNECTIONS:
            loads = LeastConnections(rng), LeastConnections(rng)
            return _Policies(*loads, loads=loads)
        if algorithm == LATENCY:
            times = Latency(self._clock, rng), Latency(self._clock, rng)
            return _Policies(*times, times=times)
        if algorithm == STICKY_SESSIONS:
            sessions = StickySessions(rng)
            return _Policies(sessions, RoundRobin(rng), sessions=sessions)
        return _Policies(RoundRobin(rng), RoundRobin(rng))

    def _last_holder(self, tried: Sequence[Endpoint], key: bytes) -> Endpoint:
        """With no weight left at all, those who hold a cookie are still served: they are being drained."""
        if self._sessions is not None and not self._regular.total_weight:
            endpoint = self._sessions.holder(tried, key)
            if endpoint is not None:
                return endpoint
        raise NoEndpoint(Reason.ALL_UNAVAILABLE if self.total_weight else Reason.NO_TARGETS)

    def _warmed(self, endpoint: Endpoint, tried: Sequence[Endpoint], key: bytes) -> Endpoint:
        """The endpoint, or another while it is not warm enough for this request."""
        if self._sessions is not None and self._sessions.holder((), key) is endpoint:
            return endpoint
        passed: list[Endpoint] = []
        while not self._slow_start.admits(endpoint):
            passed.append(endpoint)
            other = self._policy.pick({*self._group.excluded(tried), *passed}, key)
            if other is None:
                return passed[0]
            endpoint = other
        return endpoint

    def _resolved_from(self, target: TargetConfig) -> Iterator[tuple[str, Endpoint]]:
        written = f"{target.host}:{target.port}/"
        return ((key, endpoint) for key, endpoint in self._endpoints.items() if key.startswith(written))

    def _adopt(self, address: Address) -> Endpoint:
        endpoint = self._endpoints.get(address.key)
        if endpoint is None or endpoint.host != address.host:  # another name goes upstream, on other connections
            endpoint = Endpoint(
                key=address.key,
                ip=address.ip,
                port=address.port,
                host=address.host,
                weight=address.weight,
                upstream=self.id,
            )
            endpoint.available = address.key not in self._down
        return endpoint

    def _retire(self, endpoint: Endpoint) -> None:
        endpoint.retired = True
        endpoint.available = False
        self._slow_start.end(endpoint)
        if self._on_retire is not None:
            self._on_retire(endpoint)

    def _judge(self) -> None:
        """Say which group is in use and whether it may be: after every change of weights or verdicts."""
        group = self._regular
        if not group.available_weight and self._failover.available_weight:
            group = self._failover
        self._group = group
        self._policy = group.policy
        self._usable = is_usable(group.available_weight, group.total_weight, self._threshold)
