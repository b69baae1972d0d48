"""Every write of the Admin API goes through here: who asks and why, the commit, and the wait for the nodes.

Each answer carries `X-Pointsman-Version`, the version the store is at after the write. With `Prefer: wait=SECONDS` the
answer comes when all nodes that were live at the commit run that version or a later one, with the usual status. When
that can't be said the answer is 202, still with the write done, and this body:

    {"version": 7,
     "nodes": {"total": 3, "applied": 1, "rejected": ["<node id>"],
               "lagging": [{"node_id", "hostname", "state", "version", "reason", "stage", "faults"}, ...]},
     "waited_s": 10.0,
     "entity": {...}}

`lagging` lists each live node that does not run the version; `state` is `lagging`, `rejected` or `disconnected` and
`version` is what it runs. `rejected` repeats the ids of those that refused, which ends the wait at once. No live node
is also 202, with `total` 0: nobody has proved anything.

With `?dry_run=1` all is done but the commit: the answer is 200 with what the write would return and change, and there
is no version. `If-Match` (`preconditions.py`) and `Idempotency-Key` (`repeats.py`) are seen to inside the transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol, TypeVar, cast
from urllib.parse import unquote

from control_plane.admin.messages import Answer, Call, Current, Instead, Refused, Step, json_answer
from control_plane.admin.preconditions import check, etag_of_text, is_guarded
from control_plane.admin.preferences import wait_seconds, wants_rollout
from control_plane.admin.repeats import fingerprint, keep, kept_answer, request_key
from control_plane.declarative.changes import Summary, entity_change
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.health import TargetVerdict
from control_plane.fleet.nodes import NodeView
from control_plane.fleet.own_settings import Fence
from control_plane.fleet.rollout import Policy, State
from control_plane.fleet.rollouts import Rollouts, Unchanged
from control_plane.fleet.side_figures import SideRate
from control_plane.fleet.timing import Times
from control_plane.fleet.tracing import Question
from control_plane.fleet.waiting import NodeProgress, Outcome, WaitReport
from control_plane.identity.refusals import RefusedCaller
from control_plane.snapshot.consistency import check_changes
from control_plane.store.contract import Change, Origin, Store, Transaction, Written

T = TypeVar("T")


class Fleet(Protocol):
    """What the Admin API asks of the fleet; `control_plane.fleet.Fleet` keeps it."""

    @property
    def published(self) -> int:
        """The version that nodes are offered."""

    @property
    def rollouts(self) -> Rollouts | None:
        """Who brings changes to all nodes at one instant."""

    @property
    def gather_times(self) -> Times:
        """From the first commit that a snapshot brings to its publication."""

    async def trace(self, question: Question, *, node: str | None, timeout_s: float) -> tuple[str, str, EntityBody]:
        """Ask a live node what would become of a request: its id, its hostname and the answer."""

    def nodes(self) -> Sequence[NodeView]:
        """Every node known, by hostname and id."""

    def fences(self) -> Sequence[Fence]:
        """Services that a node without a control plane stops serving."""

    def data_planes(self) -> Sequence[EntityBody]:
        """Every node known, by id, as Kong shows them."""

    def live_nodes(self) -> Mapping[str, str]:
        """The host name of each node that is live now, by id."""

    def nodes_elsewhere(self) -> Mapping[str, str]:
        """Nodes at other control planes: a text that names each, by id."""

    def returning(self) -> Sequence[str]:
        """Host names of nodes that are on their way back after a start of the control plane."""

    def verdict(self, upstream: str, target: str) -> TargetVerdict | None:
        """What the live nodes say of a target; None when none of them knows it."""

    def side_rates(self) -> Sequence[SideRate]:
        """What the connected nodes count of the sides of services, now and in the last seconds."""

    def loads_age_s(self) -> float | None:
        """How old the oldest live node's count of open requests is; None when there is none."""

    def refusals(self) -> Mapping[str, int]:
        """How often somebody was not let in as a node, by reason."""

    def refused(self) -> Sequence[RefusedCaller]:
        """Whoever was not let in as a node, the last first."""

    async def wait_for(self, version: int, timeout_s: float) -> WaitReport:
        """Returns when all nodes live now run `version` or later, one refused it, or the time is over."""


class Writes:
    """Commits units of work and turns them into answers."""

    def __init__(self, store: Store, fleet: Fleet, *, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._fleet = fleet
        self.now = clock
        """Seconds since 1970; what `created_at` and `updated_at` are taken from."""
        self.times = Times()
        """Of the writes that were committed."""
        self._waits: set[asyncio.Task[WaitReport]] = set()

    async def entity(
        self,
        call: Call,
        work: Callable[[Transaction], EntityBody | None],
        *,
        status: int = 200,
        current: Current | None = None,
    ) -> Answer:
        """Commits `work` and answers with the entity it returns, or without a body where it returns None.

        `current` finds what the path leads to, for `If-Match`; without it the path has no entity tag.
        """
        if call.steps is not None:
            call.steps.append(Step(work, status, current))
            return Answer(status)
        return await self.perform(call, work, status=status, current=current, outcome=lambda entity: {"entity": entity})

    async def perform(
        self,
        call: Call,
        work: Callable[[Transaction], EntityBody | None],
        *,
        outcome: Callable[[EntityBody | None], EntityBody],
        source: str = "admin-api",
        status: int = 200,
        current: Current | None = None,
        tagged: bool = True,
        reason: str = "",
        whole: Callable[[Transaction], None] | None = None,
    ) -> Answer:
        """Commits `work`, which returns the answer's body, once it is allowed, and only once.

        `outcome` says how the body stands among other facts, in the answer to a wait or a dry run. `tagged` = the body
        is an entity, so the answer has its tag. `reason` is what the body gives as such; the header's comes first.
        `whole` looks at the whole configuration in place of `current` (`version_guard.py`).
        """
        if call.steps is not None:
            raise Refused(400, "this path can't be part of a batch; send it as a request of its own")
        rehearsing = flag(call, "dry_run")
        origin = origin_of(call, source, reason=reason)
        key = "" if rehearsing else request_key(call)
        sent = fingerprint(call, origin.author) if key else ""

        def guarded(tx: Transaction) -> _Done:
            if key and (kept := kept_answer(tx, key, sent, now=self.now())) is not None:
                return _Done(*kept, repeated=True)
            if whole is not None:
                whole(tx)
            elif is_guarded(call.headers):
                check(tx, call.headers, current)
            body = work(tx)
            if rehearsing:
                changes = tx.records.changes()
                check_changes(tx, changes)
                raise _Rehearsed(body, changes)
            if key:
                keep(tx, key, sent, status, body, now=self.now())
            return _Done(status, body)

        began = time.monotonic()
        rollouts = self._fleet.rollouts
        try:
            if rollouts is not None and not rehearsing and wants_rollout(call.headers.get("Prefer")):
                if key:
                    raise Refused(400, "Idempotency-Key and Prefer: rollout can't be combined; leave one of them out")
                written = await self._roll_out(rollouts, call, guarded, origin)
            else:
                if rollouts is not None:
                    await rollouts.gate()
                written = await self.store.write(guarded, replace(origin, request_key=key) if key else origin)
        except _Rehearsed as rehearsed:
            told = Summary(changes=[entity_change(change) for change in rehearsed.changes]).to_json()
            del told["unchanged"]
            return json_answer(200, {"dry_run": True, "status": status, **told, **outcome(rehearsed.body)})
        self.times.add(time.monotonic() - began)
        done = written.result
        answer = Answer(done.status) if done.body is None else json_answer(done.status, done.body)
        if tagged and done.body is not None:
            answer.headers["ETag"] = etag_of_text(answer.body)
        if done.repeated:
            answer.headers["Idempotency-Replayed"] = "true"
        version = written.version if done.version is None else done.version
        body = done.body if isinstance(done.body, dict) else None
        return await self.settle(call, answer, version, outcome(body))

    async def settle(self, call: Call, done: Answer, version: int, outcome: EntityBody) -> Answer:
        """`done`, or 202 with `outcome` in its body when the client asked to wait and the nodes are not there."""
        done.headers["X-Pointsman-Version"] = str(version)
        wait_s = wait_seconds(call.headers.get("Prefer"), wait_s_max=call.limits.wait_s_max)
        if call.rollout is not None:
            return await self._settle_rollout(call.rollout, done, version, outcome)
        if wait_s is None:
            return done
        report = await self._wait(version, wait_s)
        if not report.complete:
            done = json_answer(202, {**_report(report, version), **outcome}, done.headers)
        done.headers["Preference-Applied"] = f"wait={wait_s:g}"
        return done

    async def _roll_out(
        self, rollouts: Rollouts, call: Call, work: Callable[[Transaction], T], origin: Origin
    ) -> Written[T]:
        """The write as a rollout. Raises Instead when it does not come to a decision, or not while the client waits."""
        try:
            entry = await rollouts.create(work, origin, Policy())
        except Unchanged as unchanged:
            return Written(cast(T, unchanged.result), unchanged.head, ())
        number = entry.facts.number
        told: EntityBody = {"rollout": entry.view()}
        wait_s = wait_seconds(call.headers.get("Prefer"), wait_s_max=call.limits.wait_s_max)
        ended = asyncio.ensure_future(entry.ended.wait())
        try:
            await asyncio.wait({ended}, timeout=call.limits.wait_s_max if wait_s is None else wait_s)
        finally:
            ended.cancel()
        told["rollout"] = entry.view()
        headers = {"X-Pointsman-Rollout": str(number), "Preference-Applied": "rollout"}
        if entry.machine.state is State.ABORTED:
            text = f"rollout {number} was aborted, nothing has changed: {entry.machine.reason}"
            raise Instead(json_answer(409, {"message": text, **told}, headers))
        if entry.machine.version is None:
            raise Instead(json_answer(202, {"message": f"rollout {number} is on its way", **told}, headers))
        call.rollout = number
        return Written(cast(T, entry.result), entry.machine.version, entry.facts.changes)

    async def _settle_rollout(self, number: int, done: Answer, version: int, outcome: EntityBody) -> Answer:
        report = await self._fleet.wait_for(version, 0.0)
        if not report.complete:
            done = json_answer(202, {**_report(report, version), "rollout": number, **outcome}, done.headers)
        done.headers["X-Pointsman-Rollout"] = str(number)
        done.headers["Preference-Applied"] = "rollout"
        return done

    def end_waits(self) -> None:
        """Ends all waits for nodes; their writers are told how far the nodes are. For the stop of the process."""
        for wait in self._waits:
            wait.cancel()

    async def _wait(self, version: int, wait_s: float) -> WaitReport:
        wait = asyncio.create_task(self._fleet.wait_for(version, wait_s))
        self._waits.add(wait)
        wait.add_done_callback(self._waits.discard)
        await asyncio.wait({wait})
        return await self._fleet.wait_for(version, 0.0) if wait.cancelled() else wait.result()


@dataclass(frozen=True, slots=True)
class _Done:
    """What a unit of work came to. `version` is that of an answer given again; None = the write's own."""

    status: int
    body: JsonValue
    version: int | None = None
    repeated: bool = False


class _Rehearsed(Exception):
    """A dry run is over: raised so that the store undoes it."""

    def __init__(self, body: EntityBody | None, changes: Sequence[Change]) -> None:
        super().__init__("dry run")
        self.body = body
        self.changes = changes


def flag(call: Call, name: str) -> bool:
    """Whether a query argument is set. Raises Refused (400) for a value that is neither yes nor no."""
    text = call.argument(name)
    if text is None or text.lower() in ("0", "false", "no", "off"):
        return False
    if text.lower() in ("", "1", "true", "yes", "on"):
        return True
    raise Refused(400, f"{name} must be 1 or 0")


def _report(report: WaitReport, version: int) -> EntityBody:
    rejected: list[JsonValue] = [node.id for node in report.nodes if node.outcome is Outcome.REJECTED]
    return {
        "version": version,
        "nodes": {
            "total": report.total,
            "applied": report.count(Outcome.APPLIED),
            "rejected": rejected,
            "lagging": [_node(node) for node in report.nodes if node.outcome is not Outcome.APPLIED],
        },
        "waited_s": round(report.waited_s, 6),
    }


def _node(node: NodeProgress) -> EntityBody:
    return {
        "node_id": node.id,
        "hostname": node.hostname,
        "state": node.outcome.value,
        "version": node.version,
        "reason": node.reason,
        "stage": node.stage.value if node.stage is not None else None,
        "faults": [asdict(fault) for fault in node.faults],
    }


def origin_of(call: Call, source: str, *, reason: str = "") -> Origin:
    """Who sent a request, from where and why. Raises Refused (400) for texts that are too long."""
    header = "X-Pointsman-Reason"
    return Origin(
        author=call.principal.name or _told(call, "X-Pointsman-Author", call.limits.author_chars_max),
        source=source,
        address=call.remote,
        reason=_told(call, header, call.limits.reason_chars_max)
        or _printable("reason", reason, call.limits.reason_chars_max),
        action=f"{call.method} {call.template}",
    )


def _told(call: Call, header: str, chars_max: int) -> str:
    """A text for the history. Percent-encoded UTF-8, because headers can't carry more than ASCII safely."""
    raw = call.headers.get(header)
    return _printable(header, unquote(raw), chars_max) if raw else ""


def _printable(name: str, raw: str, chars_max: int) -> str:
    text = raw if raw.isprintable() else "".join(each if each.isprintable() else " " for each in raw)
    text = text.strip()
    if len(text) > chars_max:
        raise Refused(400, f"{name} is longer than {chars_max} characters; shorten it")
    return text
