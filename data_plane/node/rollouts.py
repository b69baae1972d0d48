"""This node's part in rollouts: prepare and vote, arm and activate, or let go.

    idle --prepare--> preparing --vote--> prepared --activate--> armed --T--> idle, and "activated" is told
                          `---- abort, a newer prepare, the end of the hold ----> idle, nothing has changed

Preparing changes nothing of what serves: the snapshot is staged in every worker, new names are resolved, the targets
that will get traffic are checked and connected to, and the clocks are compared. The vote says what all that came to.
From the decision on there is no way back on this node: what is armed becomes active at the instant, whatever happens to
the link. A node that was cut off before it heard of the decision takes the head when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.duration_pb2 import Duration

from data_plane.node.applying import Activated
from data_plane.node.diff import Diff
from data_plane.node.health import Outlook
from data_plane.node.messages import BadMessage, RolloutWord, delta_from_wire, ref_from_wire, ref_to_wire
from data_plane.node.outcomes import FAULTS_MAX, Refused
from data_plane.node.snapshot import EMPTY, Delta, NodeSnapshot, SnapshotRefused, apply_delta
from data_plane.node.workers import WarmedEndpoint
from pointsman.rules.plane_clock import SAMPLES_MAX, PlaneClock
from pointsman.snapshots import RAW_BYTES_MAX, Fault, Stage
from pointsman.wire.v1 import fleet_pb2

SAMPLES_WANTED = 4
EXCHANGE_EVERY_S = 0.004
FRESH_NS = 30_000_000_000
"""A clock that was compared this recently need not be compared again before a vote."""
ERROR_NS_GOOD = 2_000_000
"""A doubt about the control plane's clock with which no more exchanges are asked for: the skew can bear it."""
WARM_SHARE = 0.5
"""Of the time to vote that opening connections may take."""
WARM_S_MAX = 2.0
HOLD_S_MAX = 600.0
WATCH_S = 15.0
"""After an activation beats come faster for this long: the control plane sees the old side come to rest."""
WATCH_EVERY_S = 0.5
REMEMBERED_MAX = 16
FAILURES_MAX = 16
INLINE_BYTES_MAX = 64 * 1024
"""Raw bytes of a delta that is made on the loop: in well under a millisecond."""

_log = logging.getLogger(__name__)


class Stager(Protocol):
    """Who brings a snapshot into the workers in two halves; see `applying.py`."""

    @property
    def running(self) -> NodeSnapshot | None: ...
    async def prepare(self, snapshot: NodeSnapshot) -> Refused | None: ...
    async def warm(
        self, snapshot: NodeSnapshot, upstreams: Sequence[str], *, connections: int, timeout_s: float
    ) -> list[WarmedEndpoint]: ...
    def is_prepared(self, snapshot: NodeSnapshot) -> bool: ...
    def drop_prepared(self, snapshot: NodeSnapshot) -> None: ...
    async def activate(self, snapshot: NodeSnapshot, at_ns: int) -> Activated | Refused: ...


class Follower(Protocol):
    """Who keeps what rollouts make active, and says so; see `intake.py`."""

    def refusal(self, snapshot: NodeSnapshot) -> Refused | None:
        """Why this content must not become active on this node."""
        ...

    def arming(self, snapshot: NodeSnapshot) -> None:
        """It is about to become active."""
        ...

    async def activated(self, snapshot: NodeSnapshot, delta: Delta | None) -> None:
        """It is active. Returns when a kill of this process can't undo that any more."""
        ...

    def told(self, snapshot: NodeSnapshot, took_s: float) -> None:
        """The control plane heard of the activation."""
        ...


@dataclass(slots=True)
class _Open:
    """The rollout that this node prepares, has prepared or is armed for."""

    number: int
    round: int
    snapshot: NodeSnapshot | None = None
    delta: Delta | None = None
    armed: bool = False
    upstreams: list[fleet_pb2.UpstreamCheck] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    hold: asyncio.TimerHandle | None = None


class Rollouts:
    """See the module."""

    def __init__(
        self,
        node_id: str,
        stager: Stager,
        clock: PlaneClock,
        *,
        workers: int,
        outlook: Callable[[str, Diff], Outlook],
        snapshot_bytes_max: int = RAW_BYTES_MAX,
        follower: Callable[[], Follower],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._node_id = node_id
        self._stager = stager
        self._clock = clock
        self._workers = workers
        self._outlook = outlook
        self._snapshot_bytes_max = snapshot_bytes_max
        self._follower = follower
        self._now_ns = now_ns
        self._open: _Open | None = None
        self._done: OrderedDict[int, fleet_pb2.RolloutActivated] = OrderedDict()
        self._say_now: Callable[[fleet_pb2.NodeMessage], None] | None = None
        self._beat: Callable[[], None] = _nothing
        self._watching: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self, say: Callable[[fleet_pb2.NodeMessage], None], beat: Callable[[], None]) -> None:
        self._say_now, self._beat = say, beat
        for _ in range(SAMPLES_WANTED):
            beat()

    def disconnected(self) -> None:
        self._say_now, self._beat = None, _nothing

    def told(self, word: RolloutWord) -> None:
        match word:
            case fleet_pb2.RolloutPrepare():
                self._begin(word)
            case fleet_pb2.RolloutActivate():
                self._arm(word)
            case fleet_pb2.RolloutAbort():
                self._abort(word)

    async def stop(self) -> None:
        """End what is under way; an armed activation is left to the workers' end."""
        if self._open is not None:
            self._let_go(self._open)
        tasks = [task for task in (*self._tasks, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the first phase --------------------------------------------------------------------------------------------

    def _begin(self, prepare: fleet_pb2.RolloutPrepare) -> None:
        before = self._open
        if before is not None:
            if before.armed:
                _log.error("rollout %d is to be prepared while %d is armed", prepare.rollout, before.number)
                self._refuse(prepare, Fault("BUSY", message=f"rollout {before.number} is about to be activated"))
                return
            self._let_go(before, keep_staged=before.number == prepare.rollout)
        opened = self._open = _Open(prepare.rollout, prepare.round)
        if before is not None and before.number == prepare.rollout:
            opened.upstreams = before.upstreams
        opened.task = self._own(self._prepare(opened, prepare), f"rollout {prepare.rollout}")

    async def _prepare(self, opened: _Open, prepare: fleet_pb2.RolloutPrepare) -> None:
        began = time.monotonic()
        within_s = max(0.1, min(60.0, prepare.vote_within.ToTimedelta().total_seconds()))
        comparing = self._own(self._compare_clocks(within_s), "comparing clocks")
        faults: list[Fault] = []
        staged = False
        try:
            async with asyncio.timeout(within_s):
                snapshot, refused = await self._stage(prepare)
                if refused is None:
                    assert snapshot is not None
                    staged = True
                    opened.snapshot, opened.delta = snapshot, delta_from_wire(prepare.delta)
                    if prepare.warm:
                        opened.upstreams = await self._check(prepare, snapshot, within_s, faults)
                    await comparing
                else:
                    faults.extend(refused.faults or (Fault("REFUSED", message=f"refused at {refused.stage.value}"),))
        except TimeoutError:
            faults.append(Fault("TIMEOUT", message=f"not ready within {within_s:g} s"))
            staged = opened.snapshot is not None
        finally:
            comparing.cancel()
        refusing = not staged or any(fault.code in ("TIMEOUT", "NO_HEALTHY_TARGET", "NO_UPSTREAM") for fault in faults)
        error_ns = self._clock.error_ns(self._now_ns())
        if error_ns is None and not refusing:
            refusing = True
            faults.append(Fault("CLOCK_UNKNOWN", message="the control plane's clock could not be read"))
        kind = fleet_pb2.VOTE_KIND_READY
        if refusing:
            kind = fleet_pb2.VOTE_KIND_REFUSE
        elif faults:
            kind = fleet_pb2.VOTE_KIND_READY_WARN
        hold_s = max(1.0, min(HOLD_S_MAX, prepare.hold.ToTimedelta().total_seconds()))
        if staged:
            opened.hold = asyncio.get_running_loop().call_later(hold_s, self._hold_over, opened)
        took = Duration()
        took.FromNanoseconds(int((time.monotonic() - began) * 1e9))
        self._say(
            fleet_pb2.NodeMessage(
                vote=fleet_pb2.RolloutVote(
                    rollout=opened.number,
                    round=opened.round,
                    kind=kind,
                    took=took,
                    faults=[_wire_fault(fault) for fault in faults[:FAULTS_MAX]],
                    upstreams=opened.upstreams,
                    clock_error_us=0 if error_ns is None else max(1, error_ns // 1000),
                    workers=self._workers if staged else 0,
                )
            )
        )

    async def _stage(self, prepare: fleet_pb2.RolloutPrepare) -> tuple[NodeSnapshot | None, Refused | None]:
        running = self._stager.running or EMPTY
        try:
            delta = delta_from_wire(prepare.delta)
            if running.ref != delta.base:
                runs = running.ref if running is not EMPTY else "nothing"
                message = f"the rollout begins at {delta.base}, this node runs {runs}"
                return None, Refused(Stage.VERIFY, (Fault("OTHER_BASE", message=message),))
            if delta.raw_bytes <= INLINE_BYTES_MAX:
                snapshot = apply_delta(delta, running, raw_bytes_max=self._snapshot_bytes_max)
            else:
                snapshot = await asyncio.to_thread(apply_delta, delta, running, raw_bytes_max=self._snapshot_bytes_max)
        except SnapshotRefused as error:
            return None, error.refused
        except BadMessage as error:
            return None, Refused(Stage.DECODE, (Fault("BAD_MESSAGE", message=str(error)),))
        refused = self._follower().refusal(snapshot)
        return snapshot, refused or await self._stager.prepare(snapshot)

    async def _check(
        self, prepare: fleet_pb2.RolloutPrepare, snapshot: NodeSnapshot, within_s: float, faults: list[Fault]
    ) -> list[fleet_pb2.UpstreamCheck]:
        """Verdicts and connections of the upstreams that will get traffic; what is amiss goes to `faults`."""
        diff = Diff.between(self._stager.running, snapshot)
        outlooks: dict[str, Outlook] = {}
        for upstream_id in prepare.upstreams:
            try:
                outlooks[upstream_id] = self._outlook(upstream_id, diff)
            except KeyError:
                faults.append(Fault("NO_UPSTREAM", "upstreams", upstream_id, message="there will be no such upstream"))
        warmed: dict[tuple[str, str], WarmedEndpoint] = {}
        connections = self._share(prepare)
        time_s = min(WARM_S_MAX, within_s * WARM_SHARE)
        if connections and outlooks:
            told = await self._stager.warm(snapshot, list(outlooks), connections=connections, timeout_s=time_s)
            for each in told:
                key = (each.upstream, each.key)
                before = warmed.get(key)
                idle = each.idle + (before.idle if before is not None else 0)
                error = each.error or (before.error if before is not None else "")
                warmed[key] = WarmedEndpoint(each.upstream, each.key, idle, error)
        checks = []
        for upstream_id, outlook in outlooks.items():
            if not connections:
                await self._probe(upstream_id, outlook, warmed, time_s)
            checks.append(_judge(upstream_id, outlook, warmed, faults))
        return checks

    def _share(self, prepare: fleet_pb2.RolloutPrepare) -> int:
        """Connections that each worker of this node opens to each target: its share of the fleet's."""
        nodes = max(1, prepare.nodes)
        total = prepare.connections_per_target
        share = total // (nodes * max(1, self._workers))
        if share:
            return share
        # Fewer than one a worker: as many nodes connect as there are connections, always the same ones for a rollout.
        digest = hashlib.sha256(f"{self._node_id} {prepare.rollout}".encode()).digest()
        lot = int.from_bytes(digest[:4], "big") / 2**32
        return 1 if lot < total / (nodes * max(1, self._workers)) else 0

    async def _probe(
        self, upstream_id: str, outlook: Outlook, warmed: dict[tuple[str, str], WarmedEndpoint], time_s: float
    ) -> None:
        """Where this node opens no connections it tries those addresses at least of which nothing is known."""

        async def one(key: str, ip: str, port: int) -> None:
            error = ""
            try:
                async with asyncio.timeout(time_s):
                    _, writer = await asyncio.open_connection(ip, port)
                writer.close()
            except TimeoutError:
                error = f"no connection within {time_s:g} s"
            except OSError as failed:
                error = str(failed) or type(failed).__name__
            warmed[upstream_id, key] = WarmedEndpoint(upstream_id, key, 0, error)

        known = (fleet_pb2.HEALTH_STATE_HEALTHY, fleet_pb2.HEALTH_STATE_UNHEALTHY)
        await asyncio.gather(
            *(
                one(address.key, address.ip, address.port)
                for address in outlook.addresses
                if outlook.states.get(address.key) not in known
            )
        )

    async def _compare_clocks(self, within_s: float) -> None:
        """Enough exchanges for a good estimate, unless there were enough a moment ago."""
        age_ns = self._clock.newest_age_ns(self._now_ns())
        fresh = self._clock.samples >= SAMPLES_WANTED and age_ns is not None and age_ns < FRESH_NS
        if fresh and self._sure():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s / 2):
                began_ns = self._now_ns()
                asked = 0
                while (
                    asked < SAMPLES_WANTED
                    or not self._compared_since(began_ns)
                    or (asked < SAMPLES_MAX and not self._sure())
                ):
                    asked += 1
                    self._beat()
                    await asyncio.sleep(EXCHANGE_EVERY_S)

    def _sure(self) -> bool:
        error_ns = self._clock.error_ns(self._now_ns())
        return error_ns is not None and error_ns <= ERROR_NS_GOOD

    def _compared_since(self, began_ns: int) -> bool:
        now_ns = self._now_ns()
        age_ns = self._clock.newest_age_ns(now_ns)
        return age_ns is not None and now_ns - age_ns > began_ns

    def _refuse(self, prepare: fleet_pb2.RolloutPrepare, fault: Fault) -> None:
        vote = fleet_pb2.RolloutVote(
            rollout=prepare.rollout, round=prepare.round, kind=fleet_pb2.VOTE_KIND_REFUSE, faults=[_wire_fault(fault)]
        )
        self._say(fleet_pb2.NodeMessage(vote=vote))

    # --- the second phase -------------------------------------------------------------------------------------------

    def _arm(self, activate: fleet_pb2.RolloutActivate) -> None:
        done = self._done.get(activate.rollout)
        if done is not None:
            self._say(fleet_pb2.NodeMessage(rollout_activated=done))  # said again: the first may have got lost
            return
        opened = self._open
        if opened is None or opened.number != activate.rollout or opened.snapshot is None:
            fault = Fault("NOT_PREPARED", message="this node has not prepared the rollout, or let go of it")
            self._tell_failed(activate.rollout, fault)
            return
        if opened.armed:
            return
        snapshot = opened.snapshot
        if snapshot.ref != ref_from_wire(activate.snapshot):
            fault = Fault("OTHER_SNAPSHOT", message=f"this node has prepared {snapshot.ref}")
            self._tell_failed(activate.rollout, fault)
            return
        now_ns = self._now_ns()
        at_ns = self._clock.to_monotonic(activate.at_plane_ns, now_ns)
        if at_ns is None:
            # The conversation is a new one. What was decided must come to pass; when is told with the lateness.
            at_ns = now_ns
        opened.armed = True
        self._follower().arming(snapshot)
        if opened.hold is not None:
            opened.hold.cancel()
        opened.task = self._own(self._activate(opened, snapshot, max(at_ns, 1)), f"activation of {opened.number}")

    async def _activate(self, opened: _Open, snapshot: NodeSnapshot, at_ns: int) -> None:
        outcome = await self._stager.activate(snapshot, at_ns)
        if self._open is opened:
            self._open = None
        if isinstance(outcome, Refused):
            fault = outcome.faults[0] if outcome.faults else Fault("REFUSED", message=outcome.stage.value)
            self._tell_failed(opened.number, fault)
            return
        await self._follower().activated(snapshot, opened.delta)
        now_ns = self._now_ns()
        error_ns = self._clock.error_ns(now_ns)
        told = fleet_pb2.RolloutActivated(
            rollout=opened.number,
            snapshot=ref_to_wire(snapshot.ref),
            at_plane_ns=self._clock.to_plane(outcome.last_swap_ns, now_ns) or 0,
            late_us=outcome.late_us,
            ahead_us=outcome.ahead_us,
            clock_error_us=0 if error_ns is None else max(1, error_ns // 1000),
        )
        self._done[opened.number] = told
        while len(self._done) > REMEMBERED_MAX:
            self._done.popitem(last=False)
        self._say(fleet_pb2.NodeMessage(rollout_activated=told))
        self._follower().told(snapshot, max(0.0, (outcome.last_swap_ns - at_ns) / 1e9))
        if self._watching is not None:
            self._watching.cancel()
        self._watching = asyncio.create_task(self._watch(), name="after a rollout")

    async def _watch(self) -> None:
        for _ in range(int(WATCH_S / WATCH_EVERY_S)):
            await asyncio.sleep(WATCH_EVERY_S)
            self._beat()

    def _tell_failed(self, number: int, fault: Fault) -> None:
        told = fleet_pb2.RolloutActivated(rollout=number, fault=_wire_fault(fault))
        self._say(fleet_pb2.NodeMessage(rollout_activated=told))

    # --- letting go -------------------------------------------------------------------------------------------------

    def _abort(self, abort: fleet_pb2.RolloutAbort) -> None:
        opened = self._open
        if opened is None or opened.number != abort.rollout:
            return
        if opened.armed:
            _log.error("rollout %d was decided and can't be aborted: %s", abort.rollout, abort.reason)
            return
        _log.info("rollout %d is aborted: %s", abort.rollout, abort.reason)
        self._let_go(opened)

    def _hold_over(self, opened: _Open) -> None:
        if self._open is opened and not opened.armed:
            _log.warning("rollout %d was prepared and never decided; it is let go", opened.number)
            self._let_go(opened)

    def _let_go(self, opened: _Open, *, keep_staged: bool = False) -> None:
        if opened.armed:
            return
        if self._open is opened:
            self._open = None
        if opened.task is not None:
            opened.task.cancel()
        if opened.hold is not None:
            opened.hold.cancel()
        if opened.snapshot is not None and not keep_staged:
            self._stager.drop_prepared(opened.snapshot)

    def _say(self, message: fleet_pb2.NodeMessage) -> None:
        if self._say_now is not None:
            self._say_now(message)

    def _own(self, steps: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(steps, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s ended by a mistake of ours", task.get_name(), exc_info=error)


def _judge(
    upstream_id: str,
    outlook: Outlook,
    warmed: dict[tuple[str, str], WarmedEndpoint],
    faults: list[Fault],
) -> fleet_pb2.UpstreamCheck:
    """One upstream: its verdicts, and where there is none, whether it could be connected to."""
    healthy: set[str] = set()
    all_targets = set(outlook.unresolved)
    failures: list[fleet_pb2.TargetCheck] = []
    connections = 0
    for address in outlook.addresses:
        all_targets.add(address.target_id)
        found = warmed.get((upstream_id, address.key))
        connections += found.idle if found is not None else 0
        state = outlook.states.get(address.key)
        error = ""
        if state == fleet_pb2.HEALTH_STATE_UNHEALTHY:
            error = outlook.reasons.get(address.key) or "unhealthy"
        elif found is not None and found.error and not found.idle:
            error = found.error
        if not error:
            healthy.add(address.target_id)
        else:
            where = f"[{address.ip}]:{address.port}" if ":" in address.ip else f"{address.ip}:{address.port}"
            failures.append(fleet_pb2.TargetCheck(target=address.target_id, address=where, error=error[:255]))
    for target_id, host in outlook.unresolved.items():
        failures.append(fleet_pb2.TargetCheck(target=target_id, address=host, error="the name has no address"))
    if not healthy:
        code, text = "NO_HEALTHY_TARGET", f"none of its {len(all_targets)} targets can take traffic"
    elif len(healthy) < len(all_targets):
        code, text = "UNHEALTHY_TARGETS", f"{len(all_targets) - len(healthy)} of {len(all_targets)} targets can't"
    else:
        code, text = "", ""
    if code:
        detail = f"; {failures[0].address}: {failures[0].error}" if failures else ""
        faults.append(Fault(code, "upstreams", upstream_id, outlook.name, "targets", text + detail))
    return fleet_pb2.UpstreamCheck(
        upstream=upstream_id,
        targets=len(all_targets),
        healthy=len(healthy),
        connections=connections,
        failures=failures[:FAILURES_MAX],
    )


def _wire_fault(fault: Fault) -> fleet_pb2.Fault:
    return fleet_pb2.Fault(
        code=fault.code,
        collection=fault.collection,
        entity_id=fault.entity_id,
        entity_name=fault.entity_name,
        field=fault.field,
        message=fault.message[:1024],
    )


def _nothing() -> None:
    """Nobody to beat to."""
