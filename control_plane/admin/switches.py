"""`/switches`: services to another upstream, on every node at one instant, checked before and proved after.

`POST /switches` takes JSON, or a form with the plain fields,

    {"services": ["shop", "cart"], "to": "green", "reason": "release 2.7.1", "force": false,
     "policy": {"min_healthy_percent": 75, "min_healthy_targets": 1, "min_capacity_percent": 0, "vote_by_s": 5, ...}}

(`service` names a single one; `policy` takes what a rollout's does, too). With `?dry_run=1` the answer is the plan and
nothing else happens. Otherwise 202 at once, or with `Prefer: wait=SECONDS` how it ended: 200 confirmed by every node,
202 partial or still on its way, 409 aborted. 409 with the code PREFLIGHT_REFUSED names each thing that speaks against
it; `force` with a reason passes over what is about health and capacity. `POST /switches/{number}/undo` goes back. With
`canary` the traffic moves step by step, see `canaries.py`. With `at`, seconds since 1970 or a time with its zone, it is
checked and begun then; until then `POST /switches/{number}/abort` takes it back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from control_plane.admin import canaries
from control_plane.admin import switch_operations as about
from control_plane.admin.bodies import entity_body
from control_plane.admin.messages import Answer, Call, Refused, json_answer, not_found
from control_plane.admin.preferences import wait_seconds
from control_plane.admin.repeats import request_key
from control_plane.admin.rollouts import ended_within, policy_of, status_of
from control_plane.admin.table import PathTable
from control_plane.admin.writes import flag, origin_of
from control_plane.entities.errors import SchemaViolation
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.rollout import Policy
from control_plane.fleet.rollouts import Entry, TooLarge, Unchanged
from control_plane.store.contract import Origin
from control_plane.switching import canary_record
from control_plane.switching.canary import Canary, NotNow, Phase
from control_plane.switching.moving import UNDO_POLICY
from control_plane.switching.preflight import Gates, Plan
from control_plane.switching.refusals import Missing, Refusal
from control_plane.switching.schedule import AHEAD_S_MAX, Begin, Due
from control_plane.switching.switches import SERVICES_MAX, PreflightRefused, Switches, Wish

SIZE = 20
SIZE_MAX = 100
_ELSEWHERE = {
    "drain": "drain_deadline of /fleet/services/{service}/settings",
    "mirror": "PUT /fleet/services/{service}/mirror",
    "preview": "PUT /fleet/services/{service}/preview",
}
"""What is set apart from a switch: refused with its place, so that nobody believes that it counts here."""
_FIELDS = ("service", "services", "to", "reason", "policy", "force", "canary", "at")

Now = Callable[[], float]


def mount(table: PathTable, switches: Switches, now: Now) -> None:
    """Adds the paths."""
    handlers = _Handlers(switches, now)
    methods = {"GET": handlers.list_page, "POST": handlers.create}
    table.add("/switches", methods, about={"GET": about.LIST, "POST": about.CREATE})
    table.add("/switches/{switch}", {"GET": handlers.get}, about={"GET": about.GET})
    table.add("/switches/{switch}/undo", {"POST": handlers.undo}, about={"POST": about.UNDO})
    table.add("/switches/{switch}/promote", {"POST": handlers.promote}, about={"POST": about.PROMOTE})
    table.add("/switches/{switch}/hold", {"POST": handlers.hold}, about={"POST": about.HOLD})
    table.add("/switches/{switch}/abort", {"POST": handlers.abort}, about={"POST": about.ABORT})


def beginning(switches: Switches, now: Now) -> Begin:
    """How a switch that was planned for later is carried out: as the same request would be if it came now."""

    async def begin(due: Due) -> None:
        wish, _ = _wish(due.asked, len(due.origin.reason))
        if due.asked.get("canary") is not None:
            canary = canaries.asked_for(due.asked["canary"])
            await switches.begin_canary(wish, canary.course, canary.sticky, due.origin, now=now(), claim=due.claim)
        else:
            await switches.begin(wish, due.origin, now=now(), claim=due.claim)

    return begin


@dataclass(frozen=True, slots=True)
class _Handlers:
    switches: Switches
    now: Now

    async def list_page(self, call: Call, _path: tuple[str, ...]) -> Answer:
        """List switches, newest first."""
        size = _number(call.argument("size") or str(SIZE))
        if size is None or not 1 <= size <= SIZE_MAX:
            raise Refused(400, f"size must be a whole number from 1 to {SIZE_MAX}")
        before = call.argument("before")
        if before is not None and _number(before) is None:
            raise Refused(400, "before must be the number of a switch")
        found = await self.switches.views(
            size=size,
            before=None if before is None else _number(before),
            service=call.argument("service") or "",
        )
        data: list[JsonValue] = list(found)
        return json_answer(200, {"data": data})

    async def get(self, _call: Call, path: tuple[str, ...]) -> Answer:
        """Show one switch with what each node proved."""
        try:
            return json_answer(200, await self.switches.view(_of(path)))
        except Missing as missing:
            raise _refused(missing) from None

    async def create(self, call: Call, _path: tuple[str, ...]) -> Answer:
        """Plan (with `dry_run`) or begin a switch."""
        _alone(call)
        body = await entity_body(call, _typed)
        wish, reason = _wish(body, call.limits.reason_chars_max)
        origin = origin_of(call, "switch", reason=reason)
        if wish.force and not origin.reason:
            raise SchemaViolation({"reason": "required with force: it is what the history will say"})
        canary = canaries.asked_for(body["canary"]) if body.get("canary") is not None else None
        at = _time(body.get("at"), self.now()) if body.get("at") is not None else None
        try:
            if flag(call, "ask_nodes") and not flag(call, "dry_run"):
                raise Refused(400, "ask_nodes goes with dry_run=1: a switch asks its nodes in any case")
            if flag(call, "dry_run"):
                drawn = await self._planned(call, wish, origin)
                course = {} if canary is None else {"canary": canary_record.course_json(canary.course)}
                return json_answer(200, {"dry_run": True, **drawn.to_json(), **course})
            if at is not None:
                view = await self.switches.plan_for(wish, {**body, "at": None}, at, origin)
                return json_answer(202, view, {"Location": f"/switches/{view['switch']}"})
            if canary is not None:
                number = await self.switches.begin_canary(wish, canary.course, canary.sticky, origin, now=self.now())
                return await self._answer_canary(call, number, began=True)
            entry = await self.switches.begin(wish, origin, now=self.now())
        except Refusal as refusal:
            raise _refused(refusal) from None
        except Unchanged:
            raise Refused(409, "nothing would change", extra={"code": "ALREADY_THERE"}) from None
        except TooLarge as error:
            raise Refused(413, str(error)) from None
        return await self._answer(call, entry)

    async def _planned(self, call: Call, wish: Wish, origin: Origin) -> Plan:
        """The plan; with `ask_nodes` each node has been asked to prepare it."""
        if not flag(call, "ask_nodes"):
            return await self.switches.plan(wish)
        told = replace(origin, reason=origin.reason or f"what nodes would say to a switch to {wish.to}")
        return await self.switches.rehearse(wish, told, now=self.now())

    async def undo(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Go back to the side before."""
        _alone(call)
        number = _of(path)
        body = await entity_body(call, _typed) if await call.body() else {}
        _known(body, ("reason", "policy"))
        origin = origin_of(call, "switch", reason=_reason(body, call.limits.reason_chars_max))
        policy = _undo_policy(body.get("policy"))
        if await self._canary_is_open(number):
            return await self._turn_back(call, number, origin, undo=True)
        try:
            entry = await self.switches.undo(number, _undoing(origin, number), policy=policy, now=self.now())
        except Refusal as refusal:
            raise _refused(refusal) from None
        except Unchanged:
            raise Refused(409, "nothing would change", extra={"code": "ALREADY_THERE"}) from None
        return await self._answer(call, entry)

    async def promote(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Bring a canary to its next step, or a later one, without waiting for time or gates."""
        body = await self._word(call, ("reason", "to_step", "all"))
        origin = origin_of(call, "switch", reason=_reason(body, call.limits.reason_chars_max))
        event = canaries.promoting(body, _who(origin, call), self.now())
        return await self._tell(call, _of(path), event, origin, verb="promote")

    async def hold(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Keep a canary on its step until it is promoted; its gates go on watching."""
        body = await self._word(call, ("reason",))
        origin = origin_of(call, "switch", reason=_reason(body, call.limits.reason_chars_max))
        who = _who(origin, call)
        return await self._tell(call, _of(path), lambda canary: canary.hold(who), origin, verb="hold")

    async def abort(self, call: Call, path: tuple[str, ...]) -> Answer:
        """End a canary: all requests back to the old side. Or take back a switch that was to begin later."""
        body = await self._word(call, ("reason",))
        origin = origin_of(call, "switch", reason=_reason(body, call.limits.reason_chars_max))
        number = _of(path)
        if await self.switches.schedule.cancel(number, origin):
            return json_answer(200, await self.switches.view(number))
        return await self._turn_back(call, number, origin, undo=False)

    async def _word(self, call: Call, fields: tuple[str, ...]) -> EntityBody:
        _alone(call)
        body = await entity_body(call, _typed) if await call.body() else {}
        _known(body, fields)
        return body

    async def _canary_is_open(self, number: int) -> bool:
        found = await self.switches.canaries.find(number)
        return found is not None and not found[1].phase.final and not found[1].phase.decided

    async def _turn_back(self, call: Call, number: int, origin: Origin, *, undo: bool) -> Answer:
        who, now = _who(origin, call), self.now()

        def event(canary: Canary) -> None:
            canary.abort(origin.reason, who, now, undo=undo)

        return await self._tell(call, number, event, origin, verb="undo" if undo else "abort")

    async def _tell(
        self, call: Call, number: int, event: Callable[[Canary], None], origin: Origin, *, verb: str
    ) -> Answer:
        try:
            if await self.switches.canaries.find(number) is None:
                await self.switches.view(number)  # 404 where there is nothing at all
                what = f"switch {number} is no canary: it goes all at once"
                raise Refusal(
                    "NOT_A_CANARY", what, f"undo it, or before its decision: pointsman rollout abort {number}"
                )
            await self.switches.canaries.tell(number, event, origin, verb=verb)
        except NotNow as error:
            refusal = Refusal(error.code, f"switch {number}: {error}", f"see it: pointsman switch show {number}")
            raise _refused(refusal) from None
        except Refusal as refusal:
            raise _refused(refusal) from None
        return await self._answer_canary(call, number, began=False)

    async def _answer_canary(self, call: Call, number: int, *, began: bool) -> Answer:
        """The canary, with `Prefer: wait` once nothing more happens by itself. `began` = going back is no success."""
        wait_s = wait_seconds(call.headers.get("Prefer"), wait_s_max=call.limits.wait_s_max)
        headers = {"Location": f"/switches/{number}"}
        asked, canary = await self.switches.canaries.until(number, canaries.at_rest, wait_s or 0.0)
        if wait_s is not None:
            headers["Preference-Applied"] = f"wait={wait_s:g}"
        view = await self.switches.canary_view(asked, canary)
        if canary.steps[-1].version is not None:
            headers["X-Pointsman-Version"] = str(canary.steps[-1].version)
        if canary.phase.final and canary.phase.back:
            code = canary.phase.value.upper()
            if began:
                text = f"switch {number} was {canary.phase.value}, all traffic is where it was: {canary.reason}"
                return json_answer(409, {"message": text, "code": code, **view}, headers)
            return json_answer(200, view, headers)
        done = canary.phase is Phase.CONFIRMED or (not began and canaries.at_rest(canary))
        return json_answer(200 if done else 202, view, headers)

    async def _answer(self, call: Call, entry: Entry) -> Answer:
        number = entry.facts.number
        wait_s = wait_seconds(call.headers.get("Prefer"), wait_s_max=call.limits.wait_s_max)
        status = 202
        headers = {"Location": f"/switches/{number}", "X-Pointsman-Rollout": str(number)}
        if wait_s is not None:
            await ended_within(entry, wait_s)
            status = status_of(entry)
            headers["Preference-Applied"] = f"wait={wait_s:g}"
        view = self.switches.view_now(entry)
        if entry.machine.version is not None:
            headers["X-Pointsman-Version"] = str(entry.machine.version)
        if status == 409:
            text = f"switch {number} was aborted, nothing has changed: {entry.machine.reason}"
            view = {"message": text, "code": "ABORTED", **view}
        return json_answer(status, view, headers)


def _refused(refusal: Refusal) -> Refused:
    """A refusal as an answer: 404 for what is not there, 409 for the rest."""
    extra: EntityBody = {"code": refusal.code, "remedy": refusal.remedy}
    message = str(refusal)
    if isinstance(refusal, PreflightRefused):
        extra["refusals"] = [finding.to_json() for finding in refusal.findings]
        extra["plan"] = refusal.plan.to_json()
        more = len(refusal.findings) - 1
        message += f" (and {more} more)" if more else ""
    return Refused(404 if isinstance(refusal, Missing) else 409, message, extra=extra)


def _who(origin: Origin, call: Call) -> str:
    return origin.author or call.remote


def _alone(call: Call) -> None:
    if call.steps is not None:
        raise Refused(400, "this path can't be part of a batch; send it as a request of its own")
    if request_key(call):
        text = "Idempotency-Key has no effect on switches; leave it out: a switch that is done or on its way is refused"
        raise Refused(400, text)


def _wish(body: EntityBody, reason_chars_max: int) -> tuple[Wish, str]:
    """What is asked for, and why. Raises SchemaViolation, which names the field."""
    _known(body, _FIELDS)
    told = body.get("services", body.get("service"))
    if "service" in body and "services" in body:
        raise SchemaViolation({"service": "give either service or services"})
    services = [told] if isinstance(told, str) else told
    if not isinstance(services, list) or not services or not all(isinstance(each, str) and each for each in services):
        raise SchemaViolation({"services": "expected a list of names or ids of services"})
    if len(services) > SERVICES_MAX:
        raise SchemaViolation({"services": f"expected at most {SERVICES_MAX}"})
    to = body.get("to")
    if not isinstance(to, str) or not to:
        raise SchemaViolation({"to": "expected the name or id of an upstream"})
    force = body.get("force", False)
    if not isinstance(force, bool):
        raise SchemaViolation({"force": "expected true or false"})
    gates, policy = _policies(body.get("policy"))
    wish = Wish(tuple(str(each) for each in services), to, gates, policy, force)
    return wish, _reason(body, reason_chars_max)


def _time(told: JsonValue, now: float) -> float:
    """When a switch is to begin, in seconds since 1970. Raises SchemaViolation."""
    at: float | None = None
    if isinstance(told, int | float) and not isinstance(told, bool):
        at = float(told)
    elif isinstance(told, str):
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(told)
            at = moment.timestamp() if moment.tzinfo is not None else None
    if at is None:
        raise SchemaViolation({"at": "expected seconds since 1970, or a time with its zone like 2026-11-28T22:00:00Z"})
    if at < now - 1:
        raise SchemaViolation({"at": f"is {now - at:.0f} s ago by the control plane's clock; leave it out for now"})
    if at > now + AHEAD_S_MAX:
        raise SchemaViolation({"at": f"expected at most {AHEAD_S_MAX / 86_400:.0f} days from now"})
    return at


def _known(body: EntityBody, fields: tuple[str, ...]) -> None:
    for name in sorted(body):
        if name in _ELSEWHERE and name not in fields:
            raise SchemaViolation({name: f"no part of a switch; it is set by {_ELSEWHERE[name]}"})
        if name not in fields:
            raise SchemaViolation({name: f"unknown field; there are {', '.join(fields)}"})


def _reason(body: EntityBody, chars_max: int) -> str:
    reason = body.get("reason", "")
    if not isinstance(reason, str) or len(reason) > chars_max:
        raise SchemaViolation({"reason": f"expected a text of at most {chars_max}"})
    return reason


def _policies(told: JsonValue) -> tuple[Gates, Policy]:
    """The gates of the preflight, and the rest, which is the rollout's."""
    if not isinstance(told, dict):
        return Gates(), policy_of(told)
    rest = dict(told)
    targets = rest.pop("min_healthy_targets", 1)
    capacity = rest.pop("min_capacity_percent", 0.0)
    if isinstance(targets, bool) or not isinstance(targets, int) or not 0 <= targets <= 1000:
        raise SchemaViolation({"policy": {"min_healthy_targets": "expected a whole number from 0 to 1000"}})
    if isinstance(capacity, bool) or not isinstance(capacity, int | float) or not 0 <= capacity <= 10_000:
        raise SchemaViolation({"policy": {"min_capacity_percent": "expected a number from 0 to 10000"}})
    policy = policy_of(rest)
    return Gates(policy.min_healthy_percent, targets, float(capacity)), policy


def _undo_policy(told: JsonValue) -> Policy:
    """What is not said is as an undo wants it: back with as many nodes as can, whatever the side's health."""
    given = policy_of(told)
    if told is None or not isinstance(told, dict):
        return UNDO_POLICY
    return replace(UNDO_POLICY, **{name: getattr(given, name) for name in told})


def _undoing(origin: Origin, number: int) -> Origin:
    return origin if origin.reason else replace(origin, reason=f"undo of switch {number}")


def _typed(form: EntityBody) -> EntityBody:
    """A form's texts with types; JSON comes with its own."""
    force = form.get("force")
    if isinstance(force, str) and force.lower() in ("true", "false"):
        form["force"] = force.lower() == "true"
    return form


def _of(path: tuple[str, ...]) -> int:
    number = _number(path[0])
    if number is None:
        raise not_found()
    return number


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None
