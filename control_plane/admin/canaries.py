"""What `POST /switches` takes as `canary`, and the verbs of a canary that is open.

    "canary": {"steps": [5, 25, 50, 100], "every_s": 30, "sticky": {"on": "header", "name": "x-user"},
               "gates": {"errors": "1%", "connect": "1%", "p99": "2x"}, "min_requests": 50, "window_s": 60,
               "pass_after_s": null}

`every_s` null = each step stands until it is promoted. A gate is a share beyond that of the old side, or for a latency
a factor of the old side's or a time (`"250ms"`); null takes it out. `pass_after_s` lets a step with too few requests to
judge go on after that time; null = it waits for them. `POST /switches/{n}/promote` takes `to_step` or `all`, `hold`
nothing, `abort` a reason; each answers with the canary, or with `Prefer: wait=SECONDS` when nothing more happens by
itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from control_plane.entities.errors import SchemaViolation
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.switching.canary import Canary, Course, course_shares
from control_plane.switching.gates import Limits

STEPS_MAX = 50
EVERY_S_MAX = 30 * 24 * 3600.0
WINDOW_S_MIN, WINDOW_S_MAX = 1.0, 3600.0
MIN_REQUESTS_MAX = 1_000_000
STICKY_ON = ("header", "cookie", "ip")
_FIELDS = ("steps", "every_s", "sticky", "gates", "min_requests", "window_s", "pass_after_s")
_QUANTILE = re.compile(r"p(\d{2}(?:\.\d{1,2})?)\Z")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%\Z")
_FACTOR = re.compile(r"(\d+(?:\.\d+)?) ?x\Z")
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s)\Z")


def at_rest(canary: Canary) -> bool:
    """Whether nothing more happens until an operator, or a gate, says so."""
    return canary.phase.final or canary.waits_for_operator


@dataclass(frozen=True, slots=True)
class Asking:
    """A canary as it was asked for."""

    course: Course
    sticky: EntityBody | None


def asked_for(told: JsonValue) -> Asking:
    """The canary of a body. Raises SchemaViolation, which names the field."""
    if not isinstance(told, dict):
        raise SchemaViolation({"canary": "expected a record with the steps"})
    for name in sorted(told):
        if name not in _FIELDS:
            raise SchemaViolation({"canary": {name: f"unknown field; there are {', '.join(_FIELDS)}"}})
    limits = _limits(told.get("gates", {}))
    least = told.get("min_requests", limits.min_requests)
    if isinstance(least, bool) or not isinstance(least, int) or not 1 <= least <= MIN_REQUESTS_MAX:
        raise _wrong("min_requests", f"expected a whole number from 1 to {MIN_REQUESTS_MAX}")
    return Asking(
        Course(
            _shares(told.get("steps")),
            _seconds(told, "every_s", 0.1, EVERY_S_MAX),
            replace(limits, min_requests=least),
            _seconds(told, "window_s", WINDOW_S_MIN, WINDOW_S_MAX) or Course((10_000,)).window_s,
            _seconds(told, "pass_after_s", 0.1, EVERY_S_MAX),
        ),
        _sticky(told.get("sticky")),
    )


def promoting(body: EntityBody, by: str, now: float) -> Callable[[Canary], None]:
    """What promotes a canary as the body says. Raises SchemaViolation."""
    to_step, everything = body.get("to_step"), body.get("all", False)
    if not isinstance(everything, bool):
        raise SchemaViolation({"all": "expected true or false"})
    if to_step is not None and (everything or isinstance(to_step, bool) or not isinstance(to_step, int)):
        raise SchemaViolation({"to_step": "expected the number of a step, the first one is 1; or give `all`"})

    def promote(canary: Canary) -> None:
        to = canary.last if everything else None if to_step is None else to_step - 1
        canary.promote(by, now, to=to)

    return promote


def _shares(told: JsonValue) -> tuple[int, ...]:
    if not isinstance(told, list) or not told or len(told) > STEPS_MAX:
        raise _wrong("steps", f"expected a list of 1 to {STEPS_MAX} percentages, ascending: [5, 25, 50, 100]")
    percents = [float(each) for each in told if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(percents) != len(told):
        raise _wrong("steps", "expected percentages: [5, 25, 50, 100]")
    try:
        return course_shares(percents)
    except ValueError as error:
        raise _wrong("steps", str(error)) from None


def _seconds(told: EntityBody, name: str, low: float, high: float) -> float | None:
    value = told.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _wrong(name, f"expected null or seconds from {low:g} to {high:g}")
    return float(value)


def _sticky(told: JsonValue) -> EntityBody | None:
    """What keeps a client on its side; the settings of the service check the name."""
    if told is None:
        return None
    if not isinstance(told, dict) or told.get("on") not in STICKY_ON or not told.keys() <= {"on", "name"}:
        raise _wrong("sticky", f"expected null or a record: on = one of {', '.join(STICKY_ON)}; name")
    name = told.get("name")
    if (told["on"] == "ip") is not (name is None) or not isinstance(name, str | None):
        raise _wrong("sticky", "a header or a cookie has a name, an ip has none")
    return {"on": told["on"], "name": name}


def _limits(told: JsonValue) -> Limits:
    if told is None:
        return Limits(errors=None, connect=None, slower=None)
    if not isinstance(told, dict):
        raise _wrong("gates", 'expected a record, {"errors": "1%", "connect": "1%", "p99": "2x"}, or null for none')
    limits = Limits()
    quantiles = [name for name in told if _QUANTILE.match(name)]
    if len(quantiles) > 1:
        raise _wrong("gates", f"one latency can be watched: {' or '.join(quantiles)}")
    for name, value in told.items():
        if name == "errors":
            limits = replace(limits, errors=_percentage(name, value))
        elif name == "connect":
            limits = replace(limits, connect=_percentage(name, value))
        elif name in quantiles:
            limits = _latency(limits, name, value)
        else:
            raise _wrong("gates", f"there is no gate '{name}'; there are errors, connect and p50 to p99.99")
    return limits


def _percentage(name: str, value: JsonValue) -> float | None:
    if value is None:
        return None
    found = _PERCENT.match(value) if isinstance(value, str) else None
    if found is None or float(found[1]) > 100:
        raise _wrong("gates", f"{name}: expected a percentage, '1%', or null")
    return float(found[1]) / 100


def _latency(limits: Limits, name: str, value: JsonValue) -> Limits:
    matched = _QUANTILE.match(name)
    assert matched is not None
    quantile = float(matched[1]) / 100
    text = value if isinstance(value, str) else ""
    if value is None:
        return replace(limits, slower=None, latency_s=None)
    if (factor := _FACTOR.match(text)) and float(factor[1]) >= 1:
        return replace(limits, quantile=quantile, slower=float(factor[1]), latency_s=None)
    if time := _TIME.match(text):
        seconds = float(time[1]) / (1000 if time[2] == "ms" else 1)
        return replace(limits, quantile=quantile, slower=None, latency_s=seconds)
    raise _wrong("gates", f"{name}: expected a factor of the old side's, '1.5x', a time, '250ms', or null")


def _wrong(field: str, what: str) -> SchemaViolation:
    return SchemaViolation({"canary": {field: what}})
