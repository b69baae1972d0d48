"""The options of a canary, made into what the Admin API takes. It judges values; here only their form is read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pointsman.cli.errors import CliError, ExitCode, failure
from pointsman.cli.json_values import Json, JsonObject

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Wish:
    """The options as they were typed."""

    steps: str
    every: str
    sticky: str
    gates: tuple[str, ...]
    min_requests: int | None
    window: str
    pass_after: str

    @property
    def given(self) -> bool:
        """Whether any was."""
        texts = (self.steps, self.every, self.sticky, self.gates, self.window, self.pass_after)
        return any(texts) or self.min_requests is not None

    def body(self) -> JsonObject:
        """For `canary` of the body. Raises CliError, which names the option."""
        if not self.steps:
            raise _usage("--canary", "the other options of a canary need its steps", "--canary 5,25,50,100")
        body: JsonObject = {"steps": _steps(self.steps)}
        for name, option, text in (
            ("every_s", "--every", self.every),
            ("window_s", "--window", self.window),
            ("pass_after_s", "--pass-after", self.pass_after),
        ):
            if text:
                body[name] = _span(option, text)
        if self.sticky:
            body["sticky"] = _sticky(self.sticky)
        if self.gates:
            body["gates"] = _gates(self.gates)
        if self.min_requests is not None:
            body["min_requests"] = self.min_requests
        return body


def _steps(text: str) -> list[Json]:
    steps: list[Json] = []
    for part in text.split(","):
        try:
            number = float(part.strip().removesuffix("%"))
        except ValueError:
            raise _usage("--canary", f"'{part.strip()}' is no percentage", "--canary 5,25,50,100") from None
        steps.append(int(number) if number.is_integer() else number)
    return steps


def _span(option: str, text: str) -> float:
    matched = _SPAN.match(text.strip())
    if matched is None:
        raise _usage(option, f"'{text}' is no span of time", f"{option} 30s, or 500ms, 5m, 1h")
    return float(matched[1]) * _SECONDS[matched[2]]


def _sticky(text: str) -> JsonObject:
    on, _, name = text.partition(":")
    return {"on": on, "name": name or None}


def _gates(texts: tuple[str, ...]) -> Json:
    if texts == ("none",):
        return None
    gates: JsonObject = {}
    for text in texts:
        name, equals, limit = text.partition("=")
        if not equals or not limit:
            raise _usage("--gate", f"'{text}' is no gate", "--gate errors=1%, connect=1%, p99=2x, p99=250ms, p99=off")
        gates[name.strip()] = None if limit.strip() == "off" else limit.strip()
    return gates


def _usage(option: str, what: str, remedy: str) -> CliError:
    return failure(ExitCode.USAGE, what, where=option, remedy=remedy)
