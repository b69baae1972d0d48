"""Who is ill, decided once for the whole node: what was seen comes in, what is thought of it goes to the workers.

    probes, workers' observations, operators' words, the fleet's hints --> this --> flips to all workers, the report

The state machine is `data_plane/health`; here it is joined to the configuration. An endpoint is known by its upstream's
id and its own key, which no edit of weights, checks or ids changes, so its verdict survives all of them; renaming the
upstream keeps it too. Before a new config is active anywhere, the workers are told of the endpoints in it that are
down; that endpoints of the former config are forgotten, they are told when it is active everywhere.

What takes precedence: an operator's word while it lasts, then the verdict. A hint of the fleet is counted as if a probe
had come to that end, so that a node's own traffic can still contradict it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from data_plane.balancer.addresses import Address
from data_plane.health import Event, Source, Verdicts, checking_enabled
from data_plane.model import ManualHealth, ProbeSampling
from data_plane.node.diff import Diff
from data_plane.node.pool_index import Pool, PoolIndex
from data_plane.node.probe_requests import Result
from data_plane.node.probes import ProbePlan
from data_plane.resolve.answers import Answer
from pointsman.rules.upstream_health import UNSTEADY
from pointsman.wire.v1 import fleet_pb2
from pointsman.wire.v1 import worker_pb2 as wire

VERDICTS_PER_MESSAGE = 2000
COUNT_MAX = 255
"""Equal sightings in a row beyond this change nothing: no threshold is higher."""
PURGE_EVERY_S = 30.0
HINT_TRUST_S = 10.0
"""A verdict of this node's own traffic stands for this long against a hint that says otherwise."""
LEASE_S = 15.0

MANUAL = "manual"

_log = logging.getLogger(__name__)

TargetKey = tuple[str, str]
"""Upstream id and target id."""


@dataclass(slots=True)
class Standing:
    """What is said of one endpoint: a state as the wire numbers it, since when, and what brought it there."""

    state: int
    since: int
    reason: str
    at: float  # `since` by the clock that only grows


@dataclass(frozen=True, slots=True)
class Outlook:
    """An upstream as it will be: its addresses, the targets without one (id to host), and verdicts by address' key."""

    name: str
    addresses: Sequence[Address]
    unresolved: Mapping[str, str]
    states: Mapping[str, int]
    reasons: Mapping[str, str]


class NodeHealth:
    """All verdicts of a node. `broadcast` sends a message to every worker.

    `on_target` is told of each target whose report changed, `on_plan` of each upstream that is to be probed another way
    (None = no longer). `wall` gives seconds since 1970.
    """

    def __init__(
        self,
        node_id: str,
        *,
        answers: Callable[[str], Answer | None],
        broadcast: Callable[[bytes], None],
        on_target: Callable[[TargetKey], None] = lambda key: None,
        on_plan: Callable[[str, ProbePlan | None], None] = lambda upstream, plan: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.lease_s = LEASE_S
        self._node_id = node_id
        self._answers = answers
        self._broadcast = broadcast
        self._on_target = on_target
        self._on_plan = on_plan
        self._clock = clock
        self._wall = wall
        self._index = PoolIndex()
        self._verdicts = Verdicts()
        self._names: dict[str, str] = {}  # by upstream: the name its verdicts are kept under
        self._plans: dict[str, ProbePlan] = {}
        self._down: dict[str, set[str]] = {}  # what the workers know, by upstream
        self._held: list[tuple[str, str]] = []  # endpoints to be forgotten when the config is active
        self._standings: dict[str, dict[str, Standing]] = {}
        self._worded: dict[str, tuple[ManualHealth, ...]] = {}  # words in force, by upstream
        self._probers: frozenset[str] = frozenset()
        self._hinted_at: dict[TargetKey, float] = {}
        self._purged_at = clock()

    # --- the configuration ------------------------------------------------------------------------------------------

    def deciding(self, diff: Diff) -> None:
        """`diff` is about to become active in the workers."""
        touched = self._index.apply(diff)
        pools = [
            pool
            for upstream_id in touched
            if (pool := self._index.pools.get(upstream_id)) is not None and pool.config is not None
        ]
        # First who goes, so that another may take over the name and what is known under it.
        for upstream_id in set(touched) - {pool.id for pool in pools}:
            self._forget(upstream_id)
        self._rename(pools)
        for pool in pools:
            pool.resolve(self._answers)
            self._settle(pool)
        for key in self._index.take_targets_gone():
            self._on_target(key)
        self._flush(touched, hold=True)

    def active(self) -> None:
        """The config of the last `deciding` is active in all workers, or was taken back."""
        held, self._held = self._held, []
        flips: list[tuple[str, str, bool]] = []
        for upstream_id, key in held:
            if not self._known(upstream_id, key):
                flips += self._flip(upstream_id, key)
        self._tell(flips)

    def names_changed(self, names: Iterable[str]) -> None:
        """Some names resolve to something else."""
        touched = {upstream_id for name in names for upstream_id in self._index.using(name)}
        for upstream_id in touched:
            pool = self._index.pools[upstream_id]
            if pool.config is not None:
                pool.resolve(self._answers)
                self._settle(pool)
        self._flush(touched, hold=False)

    def whole(self) -> list[bytes]:
        """What a new worker has to know before it serves."""
        down = [(upstream_id, key, False) for upstream_id, keys in self._down.items() for key in sorted(keys)]
        return _messages(down, whole=True)

    # --- what was seen ----------------------------------------------------------------------------------------------

    def observed(self, observations: wire.Observations) -> None:
        """What a worker saw of its traffic."""
        flips: list[tuple[str, str, bool]] = []
        for seen in observations.observations:
            upstream_id, key = seen.endpoint.upstream, seen.endpoint.key
            if not self._known(upstream_id, key):
                continue
            kind = seen.kind
            if kind == wire.OBSERVATION_STATUS:
                result: Result = seen.status
            elif kind == wire.OBSERVATION_TCP_FAILURE:
                result = Event.TCP
            elif kind == wire.OBSERVATION_TIMEOUT:
                result = Event.TIMEOUT
            else:
                continue
            for _ in range(min(seen.count, COUNT_MAX)):
                if self._count(upstream_id, key, Source.PASSIVE, result):
                    flips += self._stand(upstream_id, key, _reason(Source.PASSIVE, result))
                    break
        self._tell(flips)

    def probed(self, upstream_id: str, key: str, result: Result) -> None:
        """What a probe found."""
        if self._known(upstream_id, key) and self._count(upstream_id, key, Source.ACTIVE, result):
            self._tell(self._stand(upstream_id, key, _reason(Source.ACTIVE, result)))

    def to_probe(self, upstream_id: str, available: bool) -> Sequence[Address]:
        """The endpoints of an upstream that this node probes now, of those that are available or of the others."""
        pool = self._index.pools.get(upstream_id)
        name = self._names.get(upstream_id)
        if pool is None or name is None:
            return ()
        keys = self._verdicts.to_probe(name, available=available)
        addresses = [pool.addresses[key] for key in keys if key in pool.addresses]
        if self._leaves_probing(pool):
            fresh = self._clock() - 2 * self.lease_s
            addresses = [
                address
                for address in addresses
                if self._hinted_at.get((upstream_id, address.target_id), float("-inf")) < fresh
            ]
        return addresses

    def hinted(self, health: fleet_pb2.FleetHealth) -> None:
        """What the probing nodes see, for those that leave it to them."""
        self._probers = frozenset(health.probers)
        if not self._probers or self._node_id in self._probers:
            self._hinted_at.clear()
            return
        now = self._clock()
        flips: list[tuple[str, str, bool]] = []
        for target in health.targets:
            key = (target.upstream, target.target)
            pool = self._index.pools.get(target.upstream)
            if target.removed or pool is None or target.target not in pool.targets:
                self._hinted_at.pop(key, None)
                continue
            self._hinted_at[key] = now
            if self._leaves_probing(pool):
                for address in target.addresses:
                    flips += self._take_hint(pool, target.target, address, now)
        self._tell(flips)

    # --- the passing of time ----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Lift the words whose time is over, and let go of what was kept long enough. Call it about once a second."""
        wall = self._wall()
        for upstream_id, words in list(self._worded.items()):
            left = tuple(word for word in words if not 0 < word.until <= wall)
            if left != words:
                self._set_words(upstream_id, left)
                self._stand_all(upstream_id)
                self._flush((upstream_id,), hold=False)
        now = self._clock()
        if now - self._purged_at >= PURGE_EVERY_S:
            self._purged_at = now
            self._verdicts.purge(now=now)
            stale = now - 4 * self.lease_s
            self._hinted_at = {key: at for key, at in self._hinted_at.items() if at > stale}

    # --- what is reported -------------------------------------------------------------------------------------------

    def targets(self) -> list[TargetKey]:
        """All targets of the configuration."""
        return [
            (upstream_id, target_id)
            for upstream_id, pool in self._index.pools.items()
            if pool.config is not None
            for target_id in pool.targets
        ]

    def row(self, key: TargetKey) -> fleet_pb2.TargetHealth | None:
        """What is to be said of a target; None when the configuration has it no longer."""
        upstream_id, target_id = key
        pool = self._index.pools.get(upstream_id)
        target = pool.targets.get(target_id) if pool is not None and pool.config is not None else None
        if pool is None or target is None:
            return None
        row = fleet_pb2.TargetHealth(upstream=upstream_id, target=target_id)
        answer = self._answers(target.host)
        standings = self._standings.get(upstream_id, {})
        mine = [address for address in pool.addresses.values() if address.target_id == target_id]
        for address in sorted(mine, key=lambda address: (address.ip, address.port)):
            standing = standings[address.key]
            row.addresses.add(
                ip=address.ip,
                port=address.port,
                weight=address.weight,
                state=fleet_pb2.HealthState.ValueType(standing.state),
                since=standing.since,
                reason=standing.reason,
            )
        if answer is not None:
            row.record_type = _record_type(answer)
            row.error = answer.error
        elif not mine:
            row.error = "not resolved yet"
        return row

    def target_of(self, upstream_id: str, key: str) -> str | None:
        """The id of the target that an endpoint belongs to."""
        pool = self._index.pools.get(upstream_id)
        address = pool.addresses.get(key) if pool is not None else None
        return address.target_id if address is not None else None

    def outlook(self, upstream_id: str, diff: Diff) -> Outlook:
        """What is known of the targets that an upstream will have when `diff` is active; nothing is changed by asking.

        Raises KeyError when there will be no such upstream.
        """
        now = self._index.pools.get(upstream_id)
        pool = Pool(upstream_id)
        if now is not None:
            pool.config, pool.settings = now.config, now.settings
            pool.targets, pool.addresses = dict(now.targets), dict(now.addresses)
        pool.follow(diff)
        if pool.config is None:
            raise KeyError(upstream_id)
        pool.resolve(self._answers)
        standings = self._standings.get(upstream_id, {})
        addresses = [address for address in pool.addresses.values() if address.weight > 0]
        resolved = {address.target_id for address in addresses}
        unresolved = {
            target.id: target.host
            for target in pool.targets.values()
            if target.weight > 0 and target.id not in resolved
        }
        states = {key: standing.state for key, standing in standings.items()}
        reasons = {key: standing.reason for key, standing in standings.items()}
        return Outlook(pool.config.name, addresses, unresolved, states, reasons)

    # --- within -----------------------------------------------------------------------------------------------------

    def _known(self, upstream_id: str, key: str) -> bool:
        pool = self._index.pools.get(upstream_id)
        return pool is not None and pool.config is not None and key in pool.addresses

    def _rename(self, pools: Iterable[Pool]) -> None:
        renamed: dict[str, str] = {}
        for pool in pools:
            before = self._names.get(pool.id)
            if pool.config is not None and before is not None and before != pool.config.name:
                renamed[before] = self._names[pool.id] = pool.config.name
        self._verdicts.rename(renamed)

    def _hand_over(self, upstream_id: str, name: str, keys: Iterable[str]) -> None:
        """What an operator called ill leaves the config: that is what is known of it, should it come back."""
        standings = self._standings.get(upstream_id, {})
        for key in keys:
            standing = standings[key]
            if standing.reason == MANUAL and standing.state == fleet_pb2.HEALTH_STATE_UNHEALTHY:
                self._verdicts.put(name, key, available=False)

    def _forget(self, upstream_id: str) -> None:
        name = self._names.pop(upstream_id, None)
        if name is not None:
            self._hand_over(upstream_id, name, list(self._standings.get(upstream_id, ())))
            self._verdicts.forget(name, now=self._clock())
        self._worded.pop(upstream_id, None)
        if self._plans.pop(upstream_id, None) is not None:
            self._on_plan(upstream_id, None)
        self._standings.pop(upstream_id, None)

    def _settle(self, pool: Pool) -> None:
        """Follow what the configuration and the names say about one upstream now."""
        config = pool.config
        assert config is not None
        self._names[pool.id] = config.name
        keys = [key for key, address in pool.addresses.items() if address.weight > 0]
        self._hand_over(pool.id, config.name, self._standings.get(pool.id, {}).keys() - pool.addresses.keys())
        self._verdicts.reconcile(config.name, config.healthchecks, keys, now=self._clock())
        wall = self._wall()
        words = pool.settings.manual_health if pool.settings is not None else ()
        lasting = tuple(word for word in words if not 0 < word.until <= wall)
        fresh = set(lasting) - set(self._worded.get(pool.id, ()))
        self._set_words(pool.id, lasting)
        for key, address in pool.addresses.items() if fresh else ():
            word = self._word(pool.id, address)
            if word is not None and word.healthy and word in fresh:
                # As in Kong, the checks begin anew from here. With passive checks only it is the way back: when the
                # word is over, nothing else would ever find the endpoint healthy.
                self._verdicts.put(config.name, key, available=True)
        self._stand_all(pool.id)
        plan = ProbePlan(config.healthchecks.active, config.host_header)
        wanted = plan if plan.active and checking_enabled(config.healthchecks) and keys else None
        if self._plans.get(pool.id) != wanted:
            if wanted is None:
                self._plans.pop(pool.id, None)
            else:
                self._plans[pool.id] = wanted
            self._on_plan(pool.id, wanted)

    def _set_words(self, upstream_id: str, words: tuple[ManualHealth, ...]) -> None:
        if words:
            self._worded[upstream_id] = words
        else:
            self._worded.pop(upstream_id, None)

    def _word(self, upstream_id: str, address: Address) -> ManualHealth | None:
        """The operator's word on an address: one that names it counts before one on its target."""
        found = None
        for word in self._worded.get(upstream_id, ()):
            if word.target != address.target_id:
                continue
            if not word.ip:
                found = found or word
            elif _same_ip(word.ip, address.ip) and word.port in (0, address.port):
                return word
        return found

    def _count(self, upstream_id: str, key: str, source: Source, result: Result) -> bool:
        """Count what was seen; True when it changed the verdict."""
        name = self._names[upstream_id]
        if isinstance(result, Event):
            return self._verdicts.observe(name, key, source, result) is not None
        return self._verdicts.observe_status(name, key, source, result) is not None

    def _stand_all(self, upstream_id: str) -> None:
        """Bring all standings of an upstream up to date, after the configuration or the names changed."""
        pool = self._index.pools[upstream_id]
        standings = self._standings.setdefault(upstream_id, {})
        for key in standings.keys() - pool.addresses.keys():
            del standings[key]
        for key in pool.addresses:
            self._update(upstream_id, key, "")
        for target_id in pool.targets:
            self._on_target((upstream_id, target_id))

    def _stand(self, upstream_id: str, key: str, reason: str) -> list[tuple[str, str, bool]]:
        """Follow one verdict; returns the flip for the workers, if there is one."""
        address = self._index.pools[upstream_id].addresses[key]
        if not self._update(upstream_id, key, reason):
            return []
        self._on_target((upstream_id, address.target_id))
        _log.info(
            "%s of upstream %s is %s: %s",
            key,
            self._names[upstream_id],
            fleet_pb2.HealthState.Name(self._standings[upstream_id][key].state).removeprefix("HEALTH_STATE_").lower(),
            reason,
        )
        return self._flip(upstream_id, key)

    def _update(self, upstream_id: str, key: str, reason: str) -> bool:
        """Write one endpoint's standing; True when it changed. `reason` is what changed the verdict, if that did."""
        pool = self._index.pools[upstream_id]
        address = pool.addresses[key]
        standings = self._standings.setdefault(upstream_id, {})
        word = self._word(upstream_id, address)
        verdict = self._verdicts.verdict(self._names[upstream_id], key)
        before = standings.get(key)
        if word is not None:
            state = fleet_pb2.HEALTH_STATE_HEALTHY if word.healthy else fleet_pb2.HEALTH_STATE_UNHEALTHY
            reason = MANUAL
        elif verdict.state is None:
            state, reason = fleet_pb2.HEALTH_STATE_OFF, ""
        else:
            state = fleet_pb2.HEALTH_STATE_HEALTHY if verdict.available else fleet_pb2.HEALTH_STATE_UNHEALTHY
            if not reason and before is not None and before.state == state and before.reason != MANUAL:
                reason = before.reason
            elif not reason and not verdict.available:
                reason = "as before"  # it was known before it was gone from the config, or before the operator's word
        if before is not None and before.state == state and before.reason == reason:
            return False
        standings[key] = Standing(state, int(self._wall()), reason, self._clock())
        return True

    def _available(self, upstream_id: str, key: str) -> bool:
        standing = self._standings.get(upstream_id, {}).get(key)
        return standing is None or standing.state != fleet_pb2.HEALTH_STATE_UNHEALTHY

    def _flip(self, upstream_id: str, key: str) -> list[tuple[str, str, bool]]:
        down = self._down.setdefault(upstream_id, set())
        available = self._available(upstream_id, key)
        if available == (key not in down):
            return []
        if available:
            down.discard(key)
            if not down:
                del self._down[upstream_id]
        else:
            down.add(key)
        return [(upstream_id, key, available)]

    def _flush(self, touched: Iterable[str], *, hold: bool) -> None:
        """Tell the workers what differs from what they know; `hold` = about endpoints that are gone, later."""
        flips: list[tuple[str, str, bool]] = []
        for upstream_id in touched:
            pool = self._index.pools.get(upstream_id)
            keys = set(pool.addresses) if pool is not None and pool.config is not None else set()
            gone = self._down.get(upstream_id, set()) - keys
            if hold:
                self._held += ((upstream_id, key) for key in gone)
            else:
                keys |= gone
            for key in keys:
                flips += self._flip(upstream_id, key)
        self._tell(flips)

    def _tell(self, flips: Sequence[tuple[str, str, bool]]) -> None:
        for message in _messages(flips, whole=False) if flips else ():
            self._broadcast(message)

    def _leaves_probing(self, pool: Pool) -> bool:
        """Whether others probe this upstream for us, as long as we hear of it."""
        sampling = pool.settings.probe_sampling if pool.settings is not None else ProbeSampling.AUTO
        return bool(self._probers) and self._node_id not in self._probers and sampling is not ProbeSampling.OFF

    def _take_hint(
        self, pool: Pool, target_id: str, hint: fleet_pb2.AddressHealth, now: float
    ) -> list[tuple[str, str, bool]]:
        if hint.state not in (fleet_pb2.HEALTH_STATE_HEALTHY, fleet_pb2.HEALTH_STATE_UNHEALTHY):
            return []
        available = hint.state == fleet_pb2.HEALTH_STATE_HEALTHY
        flips: list[tuple[str, str, bool]] = []
        for key, address in pool.addresses.items():
            if address.target_id != target_id or address.port != hint.port or not _same_ip(hint.ip, address.ip):
                continue
            standing = self._standings[pool.id][key]
            own = standing.reason.startswith(Source.PASSIVE.value)
            if available and own and now - standing.at < HINT_TRUST_S:
                continue
            if self._verdicts.put(self._names[pool.id], key, available=available) is not None:
                flips += self._stand(pool.id, key, f"fleet: {hint.reason or 'probed by other nodes'}")
        return flips


def _messages(flips: Sequence[tuple[str, str, bool]], *, whole: bool) -> list[bytes]:
    """The flips for the workers; a whole table that does not fit one message goes on with changes."""
    messages = []
    for start in range(0, max(len(flips), 1), VERDICTS_PER_MESSAGE):
        message = wire.ToWorker(availability=wire.Availability(whole=whole and start == 0))
        for upstream_id, key, available in flips[start : start + VERDICTS_PER_MESSAGE]:
            verdict = message.availability.verdicts.add(available=available)
            verdict.endpoint.upstream = upstream_id
            verdict.endpoint.key = key
        messages.append(message.SerializeToString())
    return messages


def _reason(source: Source, result: Result) -> str:
    if not isinstance(result, Event):
        return f"{source.value} status {result}"
    words = {Event.SUCCESS: "success", Event.HTTP: "http failure", Event.TCP: "tcp failure", Event.TIMEOUT: "timeout"}
    return f"{source.value} {words[result]}"


def _record_type(answer: Answer) -> str:
    if not answer.records:
        return ""
    if answer.unsteady:
        return UNSTEADY
    first = answer.records[0]
    if first.name or first.weight:
        return "SRV"
    return "AAAA" if ":" in first.ip else "A"


def _same_ip(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return ip_address(one.strip("[]")) == ip_address(other)
    except ValueError:
        return False
