"""A canary for eyes: the table of its steps, the tree that is redrawn while it goes on, and lines for a pipe. Pure.

Every fact here is in the Admin API's answer; `-o json` prints that.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pointsman.cli.errors import ExitCode
from pointsman.cli.json_values import Json, JsonObject, as_list, as_number, as_object, as_objects, as_text
from pointsman.cli.output import Table
from pointsman.cli.signs import Signs
from pointsman.cli.waiting import seconds

ENDED = ("confirmed", "partial", "aborted", "undone")
BAR_WIDTH = 24
NODES_SHOWN_MAX = 12
UNWATCHED_SHOWN_MAX = 5
WRAPPED_AT = 76
KEYS = "keys: p promote  h hold  a abort  u undo  q leave (it goes on)"
_GATES = {"errors": "errors", "connect": "failed connections", "latency": "latency"}


def is_canary(view: JsonObject) -> bool:
    """Whether a switch goes step by step."""
    return view.get("verb") == "canary"


def is_open(view: JsonObject) -> bool:
    """Whether an operator can still do something to it."""
    return view.get("state") in ("shifting", "watching", "held")


def headline(view: JsonObject, moved: str) -> str:
    """What was asked for, in one line; `moved` = what goes from where to where."""
    canary = as_object(view.get("canary"))
    steps = ", ".join(f"{as_number(step.get('percent')) or 0:g}" for step in as_objects(canary.get("steps")))
    every = as_number(canary.get("every_s"))
    pace = "by hand" if every is None else f"{every:g} s each"
    return f"{moved}, canary {as_text(view.get('switch'))}: {steps} %, {pace}"


def ending(view: JsonObject, *, short: bool = False) -> str:
    """How it stands or ended, in one line; `short` = without the reason."""
    state, to = as_text(view.get("state")), as_text(view.get("to"))
    why = as_text(view.get("ended_because"))
    told = f": {why}" if why and not short else ""
    match state:
        case "confirmed" | "partial":
            undone = f", undone by switch {as_text(view['undone_by'])}" if view.get("undone_by") is not None else ""
            return f"{state}: {to} serves all requests after {seconds(view.get('took_s'))}{told}{undone}"
        case "aborted" | "undone":
            return f"{state}, all requests go where they went before{told}"
        case "undoing" | "returning":
            return f"going back{told}"
        case _:
            return _standing(view, state, to)


def _standing(view: JsonObject, state: str, to: str) -> str:
    """Of one that is on its way forth."""
    canary = as_object(view.get("canary"))
    steps = as_objects(canary.get("steps"))
    share = f"{_percent(canary.get('share_percent'))} to {to}"
    if state == "shifting":
        going = as_number(canary.get("going_to")) or 0
        problem = as_text(canary.get("problem"))
        return f"going to step {going:g} of {len(steps)}, {share} now" + (f"; last time: {problem}" if problem else "")
    if state == "settling":
        return f"all requests go to {to}, the nodes' word on it is awaited"
    held = as_text(canary.get("held_by"))
    standing = f"held by {held}" if held else {"held": "held until it is promoted"}.get(state, state)
    return f"{standing}: step {as_text(canary.get('step'))} of {len(steps)}, {share}{_waits_for(canary)}"


def exit_code_of(view: JsonObject) -> ExitCode:
    """How it ended, for the shell: a gate in a pipeline. A step that stands until it is promoted is done for now."""
    match view.get("state"):
        case "confirmed" | "held":
            return ExitCode.DONE
        case "partial":
            return ExitCode.PARTIAL_FLEET
        case "aborted":
            return ExitCode.CONFLICT
        case "undone":
            return ExitCode.ROLLED_BACK
        case _:
            return ExitCode.TIMED_OUT


def steps_table(view: JsonObject) -> Table:
    """One line a step: its share, what became of it, and what both sides did meanwhile."""
    canary = as_object(view.get("canary"))
    rows: list[tuple[str, ...]] = []
    for at, step in enumerate(as_objects(canary.get("steps")), 1):
        sides = as_objects(as_object(step.get("verdict")).get("sides"))
        if at == as_number(canary.get("step")) and not sides:
            sides = as_objects(canary.get("sides"))
        sums = _Sums.of(sides)
        began, ended = as_number(step.get("began_at")), as_number(step.get("ended_at"))
        rows.append(
            (
                str(at),
                _percent(step.get("percent")),
                _step_state(view, step, at),
                seconds(ended - began) if began is not None and ended is not None else "",
                as_text(step.get("version")),
                *sums.cells(),
            )
        )
    columns = ("STEP", "SHARE", "STATE", "STOOD", "VERSION", "REQUESTS", "NEW", "ERRORS", "LATENCY")
    return Table(columns, rows)


def lines(view: JsonObject) -> list[str]:
    """What the table has no room for."""
    breach = as_object(as_object(view.get("canary")).get("breach"))
    at, back = as_number(breach.get("at")), as_number(breach.get("undone_at"))
    if at is None or back is None:
        return []
    return [f"all requests were back {seconds(back - at)} after the gate broke"]


def events(view: JsonObject, moved: str) -> Iterator[str]:
    """Everything that has happened so far, each as one line that never changes: a pipe gets those that are new."""
    canary = as_object(view.get("canary"))
    yield headline(view, moved)
    for at, step in enumerate(as_objects(canary.get("steps")), 1):
        if step.get("version") is None:
            continue
        share, version = _percent(step.get("percent")), as_text(step["version"])
        yield f"step {at}: {share} to {as_text(view.get('to'))}, version {version}"
        if step.get("left") is not None:
            sums = _Sums.of(as_objects(as_object(step.get("verdict")).get("sides")))
            yield f"step {at}: {as_text(step.get('left'))}{sums.told()}"
    now_at = as_text(canary.get("step"))
    if view.get("state") == "held":
        by = as_text(canary.get("held_by"))
        yield f"step {now_at}: held by {by}" if by else f"step {now_at}: stands until it is promoted"
    if view.get("state") == "watching" and canary.get("outcome") == "doubt":
        yield f"step {now_at}: in doubt, it stays until there is none"
    if problem := as_text(canary.get("problem")):
        yield f"step {as_text(canary.get('going_to'))} failed, tried again: {problem}"
    if view.get("state") in ENDED:
        yield ending(view, short=True)
        for line in textwrap.wrap(as_text(view.get("ended_because")), WRAPPED_AT):
            yield f"  {line}"


def tree(
    view: JsonObject, moved: str, signs: Signs, *, preflight: str, old_sides: Sequence[str], now: float, width: int
) -> list[str]:
    """The whole of a canary at one glance: its steps, its gates, each node's share and figures."""
    canary = as_object(view.get("canary"))
    state = as_text(view.get("state"))
    mark = {"confirmed": signs.good, "partial": signs.bad, "aborted": signs.bad, "undone": signs.bad}
    drawn = [headline(view, moved)]
    if reason := as_text(view.get("reason")):
        drawn.append(f'reason: "{reason}"')
    drawn.append(f"{mark.get(state, signs.busy)} {ending(view, short=True)}")
    drawn += [signs.bar + line for line in textwrap.wrap(as_text(view.get("ended_because")), width - len(signs.bar))]
    share = as_number(canary.get("share_percent")) or 0.0
    filled = round(BAR_WIDTH * share / 100)
    bar = signs.full * filled + signs.empty * (BAR_WIDTH - filled)
    due = as_number(canary.get("due_at"))
    next_in = f"  next step in {max(0.0, due - now):.0f} s" if due is not None and state == "watching" else ""
    drawn.append(f"{signs.branch}{preflight}")
    drawn.append(f"{signs.branch}{mark.get(state, signs.busy)} share      {bar} {_percent(share)}{next_in}")
    drawn.append(f"{signs.branch}{signs.idle} steps      " + "  ".join(_steps(view, signs)))
    drawn += [f"{signs.branch}{line}" for line in _gate_lines(canary, signs)]
    drawn += _seen_lines(canary, signs)
    at_rest = bool(view.get("safe_to_tear_down"))
    sign = signs.good if at_rest else signs.busy if old_sides else signs.idle
    drawn.append(f"{signs.last}{sign} old side   {'; '.join(old_sides) or '-'}")
    return drawn


@dataclass(frozen=True, slots=True)
class _Sums:
    """Both sides over all nodes and services."""

    old: int = 0
    new: int = 0
    old_errors: int = 0
    new_errors: int = 0
    old_latency_s: float | None = None
    new_latency_s: float | None = None

    @classmethod
    def of(cls, sides: Sequence[JsonObject], node: str = "") -> _Sums:
        """Of the rows of one node; of the sums when there is no name."""
        rows = [side for side in sides if as_text(side.get("node")) == node]
        new = [side for side in rows if side.get("side") == "new"]
        old = [side for side in rows if side.get("side") == "old"]
        return cls(
            _total(old, "requests"),
            _total(new, "requests"),
            _total(old, "errors_5xx"),
            _total(new, "errors_5xx"),
            _most(old, "latency_s"),
            _most(new, "latency_s"),
        )

    @property
    def share(self) -> str:
        return _percent(100 * self.new / (self.old + self.new), digits=1) if self.old + self.new else ""

    def cells(self) -> tuple[str, ...]:
        """For the table of steps."""
        return (
            str(self.old + self.new) if self.old + self.new else "",
            self.share,
            _ratio(self.new_errors, self.new),
            _ms(self.new_latency_s),
        )

    def told(self) -> str:
        """For a line."""
        if not self.old + self.new:
            return ""
        return f", {self.share} of {self.old + self.new} requests, errors {_ratio(self.new_errors, self.new) or '-'}"


def _step_state(view: JsonObject, step: JsonObject, at: int) -> str:
    canary = as_object(view.get("canary"))
    if step.get("left") is not None:
        return as_text(step.get("left"))
    if at == as_number(canary.get("going_to")):
        return "shifting"
    if at == as_number(canary.get("step")) and view.get("state") not in ("aborted", "undone"):
        return as_text(view.get("state"))
    return "-"


def _steps(view: JsonObject, signs: Signs) -> Iterator[str]:
    marks = {"passed": signs.good, "promoted": signs.good, "unjudged": signs.good, "confirmed": signs.good}
    marks |= {"broken": signs.bad, "abandoned": signs.bad, "partial": signs.bad, "-": signs.idle, "skipped": signs.idle}
    for at, step in enumerate(as_objects(as_object(view.get("canary")).get("steps")), 1):
        yield f"{_percent(step.get('percent'))} {marks.get(_step_state(view, step, at), signs.busy)}"


def _gate_lines(canary: JsonObject, signs: Signs) -> Iterator[str]:
    """The sums over all nodes, one line a gate, and each node that is beyond a limit."""
    marks = {"good": signs.good, "broken": signs.bad}
    figures = as_objects(canary.get("figures"))
    for figure in figures:
        node, outcome = as_text(figure.get("node")), as_text(figure.get("outcome"))
        if node and outcome not in ("doubt", "broken"):
            continue
        latency = figure.get("gate") == "latency"
        show = _ms if latency else _share
        limit = f"limit {show(figure.get('limit'))}{'' if latency else ' more'}"
        few = ", too few requests" if outcome == "too_few" else ", in doubt" if outcome == "doubt" else ""
        name = _GATES.get(as_text(figure.get("gate")), as_text(figure.get("gate")))
        where = f" on {node}" if node else ""
        told = f"{name}{where} {show(figure.get('value')) or '-'} (old {show(figure.get('other')) or '-'})"
        yield f"{marks.get(outcome, signs.busy)} gate       {told}, {limit}{few}"


def _seen_lines(canary: JsonObject, signs: Signs) -> list[str]:
    sides = as_objects(canary.get("sides"))
    total = _Sums.of(sides)
    seen = f"{total.share or '-'} seen over {total.old + total.new} requests"
    steps, at = as_objects(canary.get("steps")), int(as_number(canary.get("step")) or 0)
    asked = _percent(steps[at - 1].get("percent")) if 0 < at <= len(steps) else "0 %"
    drawn = [f"{signs.branch}{signs.idle} requests   {asked} asked, {seen}"]
    names = sorted({as_text(side.get("node")) for side in sides} - {""})
    shown, more = names[:NODES_SHOWN_MAX], len(names) - NODES_SHOWN_MAX
    width = max((len(name) for name in shown), default=0)
    for at, name in enumerate(shown):
        sums = _Sums.of(sides, name)
        branch = signs.last if at == len(shown) - 1 and more <= 0 else signs.branch
        errors, latency = _ratio(sums.new_errors, sums.new), _ms(sums.new_latency_s)
        facts = [name.ljust(width), f"new {sums.share or '-'} of {sums.old + sums.new}"]
        facts += [f"errors {errors}"] if errors else []
        facts += [f"latency {latency}"] if latency else []
        drawn.append(signs.bar + branch + "  ".join(facts))
    if more > 0:
        drawn.append(f"{signs.bar}{signs.last}and {more} more; `-o json` has all")
    if unseen := [as_text(name) for name in as_list(canary.get("not_watched"))]:
        others = f" and {len(unseen) - UNWATCHED_SHOWN_MAX} more" if len(unseen) > UNWATCHED_SHOWN_MAX else ""
        drawn.append(f"{signs.bar}not watched: {', '.join(unseen[:UNWATCHED_SHOWN_MAX])}{others}")
    return drawn


def _waits_for(canary: JsonObject) -> str:
    match canary.get("outcome"):
        case "too_few":
            return ", too few requests to judge it yet"
        case "doubt":
            return ", in doubt"
        case _:
            return ""


def _total(sides: Sequence[Mapping[str, Json]], name: str) -> int:
    return int(sum(as_number(side.get(name)) or 0 for side in sides))


def _most(sides: Sequence[Mapping[str, Json]], name: str) -> float | None:
    return max((value for side in sides if (value := as_number(side.get(name))) is not None), default=None)


def _percent(value: Json, *, digits: int | None = None) -> str:
    number = as_number(value) or 0.0
    return f"{number:g} %" if digits is None else f"{number:.{digits}f} %"


def _share(value: Json) -> str:
    number = as_number(value)
    return "" if number is None else f"{100 * number:.3g} %"


def _ratio(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %" if whole else ""


def _ms(value: Json) -> str:
    number = as_number(value)
    return "" if number is None else f"{number * 1000:.3g} ms"
