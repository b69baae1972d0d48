"""Carries switches out: reads what the plan is made of, refuses or begins a rollout, undoes, and finds them again.

The check before a switch sees what nodes have reported. It is not the last word: each node looks again while it
prepares, and may refuse. What it can't do is surprise anybody, because what it found is kept with the switch.

An undo goes back to the side before, of the last switch of its services, if nothing else has moved them since. It asks
nobody about the health of what was serving a moment ago, and does not wait for nodes that are slow: as many as can go
back at one instant, the others follow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from control_plane.entities.types import EntityBody
from control_plane.fleet.health import TargetVerdict
from control_plane.fleet.rollout import Policy, State
from control_plane.fleet.rollouts import Entry, Rollouts
from control_plane.store import editor
from control_plane.store.contract import Origin, Store, Transaction
from control_plane.switching import canary_record
from control_plane.switching.acts import Act, Verb, act_of, proof_of, view_of
from control_plane.switching.canaries import Canaries
from control_plane.switching.canary import Canary, Course, Phase
from control_plane.switching.canary_record import Asked
from control_plane.switching.moving import HEALTH_CODES, UNDO_POLICY, check_host, send_all
from control_plane.switching.preflight import Code, Finding, Gates, Move, Plan, Side, target_view
from control_plane.switching.refusals import Missing, Refusal
from control_plane.switching.rehearsal import rehearsed
from control_plane.switching.schedule import NOTHING_CAME_OF_IT, Claim, Schedule

SERVICES_MAX = 64
"""Services in one switch."""
ACTS_MAX = 10_000
"""Switches that undo and the history know; older ones are found by their number."""
PAGE = 100
TURN_S = 5.0
"""What a rehearsal waits for its turn beside the time to vote."""
UNREPORTED_S = 2.0
"""What a plan waits for nodes' first word on a target."""
LOOK_EVERY_S = 0.05
_CAME_TO_NOTHING = (State.ABORTED.value, Phase.UNDONE.value, *NOTHING_CAME_OF_IT)


class Fleet(Protocol):
    """What is asked of the fleet."""

    def live_nodes(self) -> Mapping[str, str]:
        """The host name of each node that is live now, by id."""

    def nodes_elsewhere(self) -> Mapping[str, str]:
        """Nodes at other control planes: a text that names each, by id."""

    def returning(self) -> Sequence[str]:
        """Host names of nodes that are on their way back after a start of the control plane."""

    def verdict(self, upstream: str, target: str) -> TargetVerdict | None:
        """What the live nodes say of a target."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asks for."""

    services: tuple[str, ...]
    to: str
    gates: Gates = field(default_factory=Gates)
    policy: Policy = field(default_factory=Policy)
    force: bool = False


class PreflightRefused(Refusal):
    """The plan has refusals that force does not pass over, or was not asked to."""

    def __init__(self, drawn: Plan, findings: Sequence[Finding]) -> None:
        super().__init__("PREFLIGHT_REFUSED", findings[0].what, findings[0].remedy)
        self.plan = drawn
        self.findings = findings


class Switches:
    """The verbs."""

    def __init__(self, store: Store, rollouts: Rollouts, fleet: Fleet, canaries: Canaries, schedule: Schedule) -> None:
        self._store = store
        self._rollouts = rollouts
        self._fleet = fleet
        self.canaries = canaries
        self.schedule = schedule
        self._acts: dict[int, Act] = {}  # by number, ascending
        self._undoing: dict[int, list[int]] = {}
        self._seen = 0

    async def plan(self, wish: Wish) -> Plan:
        """What a switch would do and what speaks against it. Raises Missing and Refusal.

        Nodes that are on their way back after a start of ours are waited for, and for a moment a node's first word on
        a target: what is not known yet would speak against a side that has done nothing.
        """
        deadline = time.monotonic() + UNREPORTED_S
        while True:
            drawn = await self._draw(wish)
            unsaid = drawn.unreported and time.monotonic() < deadline
            if not unsaid and not self._fleet.returning():
                return drawn
            await asyncio.sleep(LOOK_EVERY_S)

    async def _draw(self, wish: Wish) -> Plan:
        found = await self._store.read(lambda tx: _look_up(tx, wish))
        nodes = self._fleet.live_nodes()

        def side(of: EntityBody) -> Side:
            targets = (
                target_view(target, self._fleet.verdict(str(of["id"]), str(target["id"])), nodes)
                for target in found.targets[str(of["id"])]
            )
            return Side(str(of["id"]), str(of["name"]), tuple(targets))

        old = tuple(side(each) for each in found.old)
        elsewhere = tuple(sorted(self._fleet.nodes_elsewhere().values()))
        return Plan(
            found.moves,
            side(found.new),
            old,
            nodes,
            wish.gates,
            found.head,
            found.side_held_by,
            elsewhere=elsewhere,
        )

    async def rehearse(self, wish: Wish, origin: Origin, *, now: float) -> Plan:
        """The plan with what each node answers when it is asked to prepare it; nothing changes.

        Nobody is asked when no node is live or a rollout holds a service. Raises as `plan`, and what `Rollouts.create`
        raises.
        """
        drawn = await self.plan(wish)
        if not drawn.nodes or any(move.held_by is not None for move in drawn.moves):
            return drawn
        policy = _policy(wish)

        def move(tx: Transaction) -> None:
            for each in drawn.moves:
                send_all(tx, each, now=now)

        entry = await self._rollouts.create(move, origin, policy, rehearsal=True)
        number = entry.facts.number
        try:
            async with asyncio.timeout(policy.vote_by_s + TURN_S):
                await entry.ended.wait()
        except TimeoutError:
            self._rollouts.abort(number, "other rollouts had the turn for too long", "")
        names = {target.id: target.target for target in drawn.new.targets}
        return replace(drawn, rehearsed=rehearsed(number, entry.machine, names))

    async def begin(self, wish: Wish, origin: Origin, *, now: float, claim: Claim | None = None) -> Entry:
        """Checks and begins, under the number that `claim` gives.

        Raises PreflightRefused, Missing, Refusal, and what `Rollouts.create` raises.
        """
        drawn, forced = await self._checked(wish)
        policy = _policy(wish)
        act = Act(Verb.SWITCH, drawn.moves, drawn.new.name, forced=forced, plan=drawn.to_json())

        def move(tx: Transaction) -> None:
            for each in drawn.moves:
                check_host(tx, each, each.source, "while the switch was checked")
                send_all(tx, each, now=now)

        return await self._rollouts.create(move, origin, policy, act=act.to_json(), claim=claim)

    async def begin_canary(
        self,
        wish: Wish,
        course: Course,
        sticky: EntityBody | None,
        origin: Origin,
        *,
        now: float,
        claim: Claim | None = None,
    ) -> int:
        """Checks and begins a canary; its number. Raises as `begin`, and what `Canaries.create` raises."""
        drawn, forced = await self._checked(wish)
        known = {side.name for side in drawn.old}
        for move in drawn.moves:
            if move.source not in known:
                what = f"service {move.service} points to {move.source or 'nothing'}, which is no upstream"
                raise Refusal("OLD_SIDE_NO_UPSTREAM", what, "a canary compares two upstreams; or switch at once")
        act = Act(Verb.CANARY, drawn.moves, drawn.new.name, forced=forced, plan=drawn.to_json())
        asked = Asked(0, act, origin, _policy(wish), sticky, now, drawn.base_version)
        return await self.canaries.create(asked, course, claim=claim)

    async def plan_for(self, wish: Wish, asked: EntityBody, at: float, origin: Origin) -> EntityBody:
        """Keeps a switch for later; its view. What is not there is refused now, all else at its time.

        Raises Missing and Refusal.
        """
        drawn = await self.plan(wish)
        act = Act(Verb.SWITCH, drawn.moves, drawn.new.name, plan=drawn.to_json())
        return view_of(await self.schedule.add(asked, act, _policy(wish), at, origin), act, undone_by=None)

    async def _checked(self, wish: Wish) -> tuple[Plan, bool]:
        """The plan, and whether it needed force. Raises PreflightRefused, Missing and Refusal."""
        drawn = await self.plan(wish)
        refusals = drawn.refusals()
        stopping = [each for each in refusals if not (wish.force and each.overridable)]
        if stopping:
            raise PreflightRefused(drawn, stopping)
        return drawn, wish.force and bool(refusals)

    async def undo(self, number: int, origin: Origin, *, policy: Policy = UNDO_POLICY, now: float) -> Entry:
        """Back to the side before. Raises Missing, Refusal, and what `Rollouts.create` raises."""
        await self._catch_up()
        view, act = await self._found(number)
        await self._check_undo(number, view, act)
        moves = tuple(Move(each.id, each.service, each.to, each.source) for each in act.moves)
        sides = sorted({each.to for each in moves})
        undoing = Act(Verb.UNDO, moves, ", ".join(sides), undoes=number)

        def move(tx: Transaction) -> None:
            for each in moves:
                check_host(tx, each, each.source, f"since switch {number}")
                send_all(tx, each, now=now)

        return await self._rollouts.create(move, origin, policy, act=undoing.to_json())

    async def view(self, number: int) -> EntityBody:
        """One switch. Raises Missing."""
        await self._catch_up()
        view, act = await self._found(number)
        if act.verb is Verb.CANARY:
            return {**view, "undone_by": await self._undone_by(number)}
        return view_of(view, act, undone_by=await self._undone_by(number))

    async def canary_view(self, asked: Asked, canary: Canary) -> EntityBody:
        """A canary with what its gates see now, and the nodes' proof of the last thing that was written."""
        view = canary_record.view_of(asked, canary, undone_by=None, live=self.canaries.live(asked.number))
        moves = asked.act.moves
        if canary.back_rollout is not None:
            moves = tuple(Move(move.id, move.service, move.to, move.source) for move in moves)
        rollout = canary.back_rollout or next((step.rollout for step in reversed(canary.steps) if step.rollout), None)
        shown = await self._rollouts.view(rollout) if rollout is not None else None
        return {**view, **proof_of(shown or {}, moves)}

    def view_now(self, entry: Entry) -> EntityBody:
        """A switch of this process as it stands, without asking the store."""
        view = entry.view()
        act = act_of(view)
        assert act is not None
        return view_of(view, act, undone_by=None)

    async def views(self, *, size: int, before: int | None, service: str = "") -> list[EntityBody]:
        """Switches, newest first, without their plans; `service` = only those that moved it."""
        await self._catch_up()
        numbers = [
            number
            for number in reversed(self._acts)
            if (before is None or number < before) and (not service or self._acts[number].touches(service))
        ]
        found = []
        for number in numbers[:size]:
            view, act = await self._found(number)
            undone_by = await self._undone_by(number)
            if act.verb is Verb.CANARY:
                found.append({**view, "undone_by": undone_by, "plan": None})
            else:
                found.append(view_of(view, replace(act, plan=None), undone_by=undone_by))
        return found

    # --- within -----------------------------------------------------------------------------------------------------

    async def _check_undo(self, number: int, view: EntityBody, act: Act) -> None:
        if act.verb is Verb.UNDO:
            what = f"switch {number} is an undo itself, of switch {act.undoes}"
            raise Refusal("IS_AN_UNDO", what, "name the side you want: pointsman switch SERVICE --to UPSTREAM")
        if view["version"] is None:
            if view["state"] in _CAME_TO_NOTHING:
                what = f"switch {number} is {view['state']}: all traffic is where it was"
                raise Refusal("NOTHING_TO_UNDO", what, "nothing to do")
            what = f"switch {number} is {view['state']}: nothing has changed yet"
            raise Refusal("NOT_DECIDED", what, f"end it: pointsman rollout abort {number}")
        if (by := await self._undone_by(number)) is not None:
            raise Refusal("UNDONE_ALREADY", f"switch {number} was undone by switch {by}", f"see switch {by}")
        for later in [each for each in self._acts if each > number]:
            moved = {move.id for move in self._acts[later].moves}
            for move in act.moves:
                if move.id in moved and await self._stands(later):
                    what = f"switch {later} has moved service {move.service} since switch {number}"
                    raise Refusal("NOT_THE_LAST", what, f"undo that one first: POST /switches/{later}/undo")

    async def _undone_by(self, number: int) -> int | None:
        for later in reversed(self._undoing.get(number, ())):
            if await self._stands(later):
                return later
        return None

    async def _stands(self, number: int) -> bool:
        """Whether a switch has moved anything, or may yet."""
        if (canary := await self.canaries.find(number)) is not None:
            return canary[1].phase.value not in _CAME_TO_NOTHING
        view = await self._rollouts.view(number)
        return view is not None and view["state"] not in _CAME_TO_NOTHING

    async def _found(self, number: int) -> tuple[EntityBody, Act]:
        if (canary := await self.canaries.find(number)) is not None:
            return await self.canary_view(*canary), canary[0].act
        view = await self._rollouts.view(number)
        act = act_of(view) if view is not None else None
        if view is None or act is None:
            raise Missing(
                "NO_SUCH_SWITCH", f"there is no switch {number}", "see what there is: pointsman switch history"
            )
        return view, act

    async def _catch_up(self) -> None:
        """Reads the acts that are new, newest first; also those of another control plane."""
        fresh: dict[int, Act | None] = {}
        before: int | None = None
        while len(fresh) < ACTS_MAX:

            def page(tx: Transaction, before: int | None = before) -> list[tuple[int, Act | None]]:
                records = tx.rollouts(size=PAGE, before=before)
                return [(each.number, act_of(each.body)) for each in records if each.number > self._seen]

            found = await self._store.read(page)
            fresh.update(found)
            if len(found) < PAGE:
                break
            before = found[-1][0]
        for number in sorted(fresh):
            act = fresh[number]
            if act is not None and number not in self._acts:
                self._acts[number] = replace(act, plan=None)  # the rollout has it
                if act.undoes is not None:
                    self._undoing.setdefault(act.undoes, []).append(number)
        self._seen = max(self._seen, *fresh, 0)
        while len(self._acts) > ACTS_MAX:
            oldest = next(iter(self._acts))
            del self._acts[oldest]
            self._undoing.pop(oldest, None)


def _policy(wish: Wish) -> Policy:
    """The rollout's, with the preflight's word on health in it."""
    if wish.force:
        return replace(wish.policy, min_healthy_percent=0.0, tolerate=wish.policy.tolerate | HEALTH_CODES)
    return replace(wish.policy, min_healthy_percent=wish.gates.min_healthy_percent)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the store knows of a wish; `targets` = the weighted ones of each side's upstream, by its id."""

    moves: tuple[Move, ...]
    new: EntityBody
    old: tuple[EntityBody, ...]
    targets: Mapping[str, Sequence[EntityBody]]
    head: int
    side_held_by: int | None


def _look_up(tx: Transaction, wish: Wish) -> _Found:
    services = [_service(tx, name) for name in dict.fromkeys(wish.services)]
    upstream = editor.lookup(tx, "upstreams", wish.to)
    if upstream is None:
        remedy = "see what there is: pointsman upstream list"
        raise Missing("NO_SUCH_UPSTREAM", f"there is no upstream '{wish.to}'", remedy)
    to = str(upstream["name"])
    held = tx.holders([("services", str(service["id"])) for service in services])
    moves = []
    for entity_id, service in {str(each["id"]): each for each in services}.items():
        source = str(service.get("host") or "")
        if source != to:
            name = str(service.get("name") or entity_id)
            enabled = service.get("enabled") is not False
            holder = held.get(("services", entity_id))
            record = tx.rollout(holder) if holder is not None else None
            by_canary = record is not None and record.is_canary
            moves.append(Move(entity_id, name, source, to, enabled, holder, by_canary))
    if not moves:
        named = ", ".join(str(service.get("name") or service["id"]) for service in services)
        raise Refusal("ALREADY_THERE", f"{named} points to {to} already", "there is nothing to do")
    sources = [tx.find("upstreams", {"name": source}) for source in dict.fromkeys(move.source for move in moves)]
    old = tuple(each for each in sources if each is not None)
    targets = {str(each["id"]): _targets(tx, str(each["id"])) for each in (upstream, *old)}
    side = [("targets", str(each["id"])) for each in targets[str(upstream["id"])]]
    holders = tx.holders([("upstreams", str(upstream["id"])), *side])
    return _Found(tuple(moves), upstream, old, targets, tx.head(), max(holders.values(), default=None))


def _service(tx: Transaction, name: str) -> EntityBody:
    found = editor.lookup(tx, "services", name)
    if found is None:
        raise Missing("NO_SUCH_SERVICE", f"there is no service '{name}'", "see what there is: pointsman service list")
    return found


def _targets(tx: Transaction, upstream: str) -> Sequence[EntityBody]:
    """The weighted targets of an upstream, as written."""
    found: list[EntityBody] = []
    after = ""
    while True:
        page = tx.page("targets", size=PAGE, after=after, parent=("upstream", upstream))
        found += (target for target in page if target.get("weight") != 0)
        if len(page) < PAGE:
            return sorted(found, key=lambda each: str(each["target"]))
        after = str(page[-1]["id"])


__all__ = ["SERVICES_MAX", "Code", "PreflightRefused", "Switches", "Wish"]
