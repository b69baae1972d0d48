"""A canary as JSON: what the store keeps, what is made of it again, and what the Admin API shows.

    body = {"act": ..., "author", "source", "why", "created_at", "policy", "sticky", "course": ..., "canary": ...}

It is kept among the rollouts, under a number of theirs, in a state of its own (`CANARY_STATE` and the phase).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.rollout import Policy, Reaction
from control_plane.fleet.rollout_view import policy_json
from control_plane.store.contract import CANARY_STATE, Origin, RolloutRecord
from control_plane.switching.acts import Act, act_of
from control_plane.switching.canary import Canary, Course, Left, Phase, Step
from control_plane.switching.gates import Figure, Limits, Outcome, Tally, Verdict

OPEN_STATES = tuple(CANARY_STATE + phase.value for phase in Phase if not phase.final)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for; it never changes. `sticky` is that of a service's `split`."""

    number: int
    act: Act
    origin: Origin
    policy: Policy
    sticky: EntityBody | None
    created_at: float
    base_version: int = 0


def record_of(asked: Asked, canary: Canary) -> RolloutRecord:
    """What the store keeps."""
    body: EntityBody = {
        "act": asked.act.to_json(),
        "author": asked.origin.author,
        "source": asked.origin.source,
        "why": asked.origin.reason,
        "created_at": asked.created_at,
        "base_version": asked.base_version,
        "policy": policy_json(asked.policy),
        "sticky": asked.sticky,
        "course": course_json(canary.course),
        "canary": _canary_json(canary),
    }
    return RolloutRecord(asked.number, CANARY_STATE + canary.phase.value, body)


def from_record(record: RolloutRecord) -> tuple[Asked, Canary]:
    """The canary as it was kept."""
    body = record.body
    act, sticky = act_of(body), body.get("sticky")
    assert act is not None
    asked = Asked(
        record.number,
        act,
        Origin(author=str(body["author"]), source=str(body["source"]), reason=str(body["why"])),
        _policy(body.get("policy")),
        sticky if isinstance(sticky, dict) else None,
        _number(body.get("created_at")) or 0.0,
        _whole(body.get("base_version")) or 0,
    )
    course, canary = body.get("course"), body.get("canary")
    assert isinstance(course, dict)
    assert isinstance(canary, dict)
    return asked, _canary(_course(course), canary)


def view_of(asked: Asked, canary: Canary, *, undone_by: int | None, live: Verdict | None = None) -> EntityBody:
    """The canary's own part of a switch's view; `live` = what the gates say this moment, where they are watched."""
    verdict = live or canary.verdict
    worst = canary.breach.worst if canary.breach is not None else None
    state = canary.phase.value
    if canary.phase is Phase.WATCHING and canary.waits_for_operator:
        state = "held"
    return {
        "switch": asked.number,
        "verb": asked.act.verb.value,
        "services": [move.to_json() for move in asked.act.moves],
        "to": asked.act.to,
        "state": state,
        "ended_because": canary.reason,
        "ended_by": canary.by,
        "reason": asked.origin.reason,
        "author": asked.origin.author,
        "forced": asked.act.forced,
        "undoes": None,
        "undone_by": undone_by,
        "created_at": asked.created_at,
        "ended_at": canary.ended_at,
        "took_s": None if canary.ended_at is None else round(canary.ended_at - asked.created_at, 6),
        "base_version": asked.base_version,
        "version": canary.steps[-1].version,
        "policy": policy_json(asked.policy),
        "plan": asked.act.plan,
        "canary": {
            "step": canary.at + 1,
            "steps": [_step_json(step) for step in canary.steps],
            "going_to": canary.to + 1 if canary.phase is Phase.SHIFTING else None,
            "share_percent": canary.share / 100,
            **course_json(canary.course),
            "sticky": asked.sticky,
            "held": canary.held,
            "held_by": canary.held_by,
            "due_at": canary.due_at,
            "problem": canary.problem,
            "outcome": verdict.outcome.value,
            "figures": [figure.to_json() for figure in verdict.figures],
            "sides": [tally.to_json() for tally in verdict.tallies],
            "not_watched": list(verdict.unwatched),
            "breach": None
            if worst is None
            else {**worst.to_json(), "what": worst.text(), "at": canary.breach_at, "undone_at": canary.ended_at},
            "back_rollout": canary.back_rollout,
            "back_version": canary.back_version,
        },
    }


# --- what is kept -----------------------------------------------------------------------------------------------


def course_json(course: Course) -> EntityBody:
    """A course as it is kept and shown."""
    return {
        "shares": list(course.shares),
        "every_s": course.every_s,
        "gates": course.limits.to_json(),
        "window_s": course.window_s,
        "pass_after_s": course.pass_after_s,
    }


def _course(told: EntityBody) -> Course:
    shares, gates = told.get("shares"), told.get("gates")
    assert isinstance(gates, dict)
    limits = Limits(
        errors=_number(gates.get("errors")),
        connect=_number(gates.get("connect")),
        quantile=_number(gates.get("quantile")) or 0.99,
        slower=_number(gates.get("slower")),
        latency_s=_number(gates.get("latency_s")),
        min_requests=_whole(gates.get("min_requests")) or 1,
    )
    return Course(
        tuple(share for share in _list(shares) if isinstance(share, int)),
        _number(told.get("every_s")),
        limits,
        _number(told.get("window_s")) or 60.0,
        _number(told.get("pass_after_s")),
    )


def _canary_json(canary: Canary) -> EntityBody:
    return {
        "steps": [_step_json(step) for step in canary.steps],
        "at": canary.at,
        "to": canary.to,
        "phase": canary.phase.value,
        "held": canary.held,
        "held_by": canary.held_by,
        "goal": canary.goal,
        "attempts": canary.attempts,
        "problem": canary.problem,
        "retry_at": canary.retry_at,
        "reason": canary.reason,
        "by": canary.by,
        "verdict": _verdict_json(canary.verdict),
        "breach": _verdict_json(canary.breach),
        "breach_at": canary.breach_at,
        "undone": canary.undone,
        "back_rollout": canary.back_rollout,
        "back_version": canary.back_version,
        "ended_at": canary.ended_at,
    }


def _canary(course: Course, told: EntityBody) -> Canary:
    return Canary(
        course,
        [_step(step) for step in _list(told.get("steps")) if isinstance(step, dict)],
        Phase(str(told["phase"])),
        at=_integer(told.get("at")),
        to=_integer(told.get("to")),
        held=bool(told.get("held")),
        held_by=str(told.get("held_by")),
        goal=_integer(told.get("goal")),
        attempts=_integer(told.get("attempts")),
        problem=str(told.get("problem")),
        retry_at=_number(told.get("retry_at")) or 0.0,
        reason=str(told.get("reason")),
        by=str(told.get("by")),
        verdict=_verdict(told.get("verdict")) or Verdict(Outcome.GOOD),
        breach=_verdict(told.get("breach")),
        breach_at=_number(told.get("breach_at")),
        undone=bool(told.get("undone")),
        back_rollout=_whole(told.get("back_rollout")),
        back_version=_whole(told.get("back_version")),
        ended_at=_number(told.get("ended_at")),
    )


def _step_json(step: Step) -> EntityBody:
    return {
        "share": step.share,
        "percent": step.share / 100,
        "rollout": step.rollout,
        "version": step.version,
        "began_at": step.began_at,
        "ended_at": step.ended_at,
        "left": None if step.left is None else step.left.value,
        "verdict": _verdict_json(step.verdict),
    }


def _step(told: EntityBody) -> Step:
    left = told.get("left")
    return Step(
        _integer(told.get("share")),
        _whole(told.get("rollout")),
        _whole(told.get("version")),
        _number(told.get("began_at")),
        _number(told.get("ended_at")),
        None if left is None else Left(str(left)),
        _verdict(told.get("verdict")),
    )


def _verdict_json(verdict: Verdict | None) -> EntityBody | None:
    if verdict is None:
        return None
    return {
        "outcome": verdict.outcome.value,
        "figures": [figure.to_json() for figure in verdict.figures],
        "sides": [tally.to_json() for tally in verdict.tallies],
        "not_watched": list(verdict.unwatched),
    }


def _verdict(told: JsonValue) -> Verdict | None:
    if not isinstance(told, dict):
        return None
    figures = tuple(Figure.from_json(each) for each in _list(told.get("figures")) if isinstance(each, dict))
    tallies = tuple(Tally.from_json(each) for each in _list(told.get("sides")) if isinstance(each, dict))
    unwatched = tuple(str(each) for each in _list(told.get("not_watched")))
    return Verdict(Outcome(str(told["outcome"])), figures, tallies, unwatched)


def _policy(told: JsonValue) -> Policy:
    assert isinstance(told, Mapping)
    default = Policy()
    tolerate = told.get("tolerate")
    return Policy(
        need_percent=_number(told.get("need_percent")) or default.need_percent,
        vote_by_s=_number(told.get("vote_by_s")) or default.vote_by_s,
        on_refuse=Reaction(str(told["on_refuse"])),
        on_slow=Reaction(str(told["on_slow"])),
        tolerate=frozenset(str(code) for code in _list(tolerate)),
        min_healthy_percent=_number(told.get("min_healthy_percent")) or 0.0,
        confirm_by_s=_number(told.get("confirm_by_s")) or default.confirm_by_s,
        hold_s=_number(told.get("hold_s")) or default.hold_s,
        connections_per_target=_integer(told.get("connections_per_target")),
    )


def _list(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, list) else ()


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: JsonValue) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _integer(value: JsonValue) -> int:
    found = _whole(value)
    assert found is not None
    return found
