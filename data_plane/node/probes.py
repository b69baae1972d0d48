"""When which endpoint is probed: a schedule for each upstream, bounded for each and for all of them together.

An upstream has two rounds, one over the endpoints that are available and one over the others, each at its own interval.
Rounds begin at random places of their interval and drift apart by a tenth, so that a thousand upstreams don't probe in
the same moment. A round that is due while the one before it is still under way is left out. Who is probed is asked at
the beginning of each round (`Ask`), so nothing here knows about verdicts.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_plane.balancer.addresses import Address
from data_plane.model import ActiveCheck
from data_plane.node.probe_engine import Errand, ProbeEngine
from data_plane.node.probe_requests import Result, grpc_request, http_request, read_serving, read_status

PROBES_AT_ONCE_MAX = 512
"""Over all upstreams; further ones wait for their turn."""
TICK_S = 0.02
JITTER = 0.1
INTERVAL_MIN_S = 0.01

Ask = Callable[[str, bool], Sequence[Address]]
"""Upstream and whether available ones are wanted -> the addresses to probe now."""
Tell = Callable[[str, str, Result], None]
"""Upstream, endpoint's key, what the probe found."""


class TlsContexts:
    """The ways in which probes speak TLS, made when first needed. Without `ca_file` the system's roots are trusted."""

    def __init__(self, ca_file: str | None = None) -> None:
        self._ca_file = ca_file
        self._made: dict[tuple[bool, bool], ssl.SSLContext] = {}

    def get(self, *, verify: bool, http2: bool) -> ssl.SSLContext:
        context = self._made.get((verify, http2))
        if context is None:
            context = ssl.create_default_context(cafile=self._ca_file)
            if not verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["h2"] if http2 else ["http/1.1"])
            self._made[verify, http2] = context
        return context


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """How the endpoints of an upstream are probed."""

    check: ActiveCheck
    host_header: str = ""

    @property
    def active(self) -> bool:
        return bool(self.check.healthy.interval_s or self.check.unhealthy.interval_s)

    def errand(self, address: Address, contexts: TlsContexts) -> Errand:
        """The probe of one address. Host and server name follow Kong: no port in either."""
        check = self.check
        name = self.host_header or address.host
        host = f"[{name}]" if ":" in name and not name.startswith("[") and name.count(":") > 1 else name
        secure = check.type in ("https", "grpcs")
        grpc = check.type in ("grpc", "grpcs")
        tls = contexts.get(verify=check.https_verify_certificate, http2=grpc) if secure else None
        if check.type == "tcp":
            request, read = b"", None
        elif grpc:
            request, read = grpc_request(host, check.headers, tls=secure), read_serving
        else:
            request, read = http_request(host, check.http_path, check.headers), read_status
        server_name = check.https_sni or name.strip("[]") if secure else ""
        return Errand(address.ip, address.port, check.timeout_s or 1.0, request, read, tls, server_name)


class _Round:
    """One pass over an upstream's endpoints."""

    __slots__ = ("available", "open", "schedule", "waiting")

    def __init__(self, schedule: _Schedule, addresses: Sequence[Address], *, available: bool) -> None:
        self.schedule = schedule
        self.available = available
        self.waiting = deque(addresses)
        self.open = 0


class _Schedule:
    """One upstream's."""

    __slots__ = ("errands", "open", "plan", "rounds", "upstream")

    def __init__(self, upstream: str, plan: ProbePlan) -> None:
        self.upstream = upstream
        self.plan = plan
        self.open = 0
        self.rounds: dict[bool, _Round] = {}
        self.errands: dict[Address, Errand] = {}

    def interval_s(self, *, available: bool) -> float:
        check = self.plan.check
        return check.healthy.interval_s if available else check.unhealthy.interval_s


class Prober:
    """All active checks of a node."""

    def __init__(
        self,
        ask: Ask,
        tell: Tell,
        *,
        engine: ProbeEngine,
        contexts: TlsContexts | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._ask = ask
        self._tell = tell
        self._engine = engine
        self._contexts = contexts or TlsContexts()
        self._rng = rng or random.SystemRandom()
        self._loop = asyncio.get_running_loop()
        self._schedules: dict[str, _Schedule] = {}
        self._due: list[tuple[float, int, _Schedule, bool]] = []
        self._order = itertools.count()
        self._ready: deque[_Round] = deque()
        self._open = 0
        self._ticked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.sent = 0

    def follow(self, upstream: str, plan: ProbePlan | None) -> None:
        """Probe an upstream by this plan from now on; None, or one without an interval, ends it."""
        known = self._schedules.get(upstream)
        if plan is None or not plan.active:
            self._schedules.pop(upstream, None)
            return
        if known is not None:
            same = all(
                known.interval_s(available=available) == _Schedule("", plan).interval_s(available=available)
                for available in (True, False)
            )
            known.errands.clear()
            known.plan = plan
            if same:
                return
        schedule = self._schedules[upstream] = _Schedule(upstream, plan)
        for available in (True, False):
            interval_s = schedule.interval_s(available=available)
            if interval_s > 0:
                self._push(schedule, available=available, after_s=interval_s * self._rng.uniform(0.5, 1.0))
        self._wait()

    def stop(self) -> None:
        """End all of it."""
        self._schedules.clear()
        self._due.clear()
        self._ready.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._engine.close()

    def _push(self, schedule: _Schedule, *, available: bool, after_s: float) -> None:
        due = self._loop.time() + max(after_s, INTERVAL_MIN_S)
        heapq.heappush(self._due, (due, next(self._order), schedule, available))

    def _wait(self) -> None:
        """Come back when the next round is due, but not more often than each tick."""
        if not self._due:
            return
        at = max(self._due[0][0], self._ticked_at + TICK_S)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._ticked_at = self._loop.time()
        due = self._due
        while due and due[0][0] <= now:
            _, _, schedule, available = heapq.heappop(due)
            if self._schedules.get(schedule.upstream) is not schedule:
                continue  # ended, or begun anew with other intervals
            self._begin(schedule, available=available)
            interval_s = schedule.interval_s(available=available)
            self._push(schedule, available=available, after_s=interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER))
        self._wait()
        self._fill()

    def _begin(self, schedule: _Schedule, *, available: bool) -> None:
        if available in schedule.rounds:
            return
        addresses = self._ask(schedule.upstream, available)
        if addresses:
            schedule.rounds[available] = begun = _Round(schedule, addresses, available=available)
            self._ready.append(begun)

    def _fill(self) -> None:
        """Start what may be started: rounds take turns, one probe each, within both bounds."""
        ready = self._ready
        while ready and self._open < PROBES_AT_ONCE_MAX:
            begun = ready.popleft()
            schedule = begun.schedule
            if self._schedules.get(schedule.upstream) is not schedule:
                continue
            if schedule.open >= max(schedule.plan.check.concurrency, 1):
                continue  # comes back when one of its own ends
            self._send(begun, begun.waiting.popleft())
            if begun.waiting:
                ready.append(begun)

    def _send(self, begun: _Round, address: Address) -> None:
        schedule = begun.schedule
        errand = schedule.errands.get(address)
        if errand is None:
            if len(schedule.errands) > 2 * len(begun.waiting) + 1024:
                schedule.errands.clear()  # addresses come and go with DNS
            errand = schedule.errands[address] = schedule.plan.errand(address, self._contexts)
        self._open += 1
        schedule.open += 1
        begun.open += 1
        self.sent += 1
        self._engine.start(errand, lambda result: self._ended(begun, address, result))

    def _ended(self, begun: _Round, address: Address, result: Result | None) -> None:
        schedule = begun.schedule
        self._open -= 1
        schedule.open -= 1
        begun.open -= 1
        if not begun.open and not begun.waiting:
            schedule.rounds.pop(begun.available, None)
        if self._schedules.get(schedule.upstream) is not schedule:
            self._fill()
            return
        if result is not None:
            self._tell(schedule.upstream, address.key, result)
        for other in schedule.rounds.values():
            if other.waiting and other not in self._ready:
                self._ready.append(other)
        if self._ready:
            self._fill()
