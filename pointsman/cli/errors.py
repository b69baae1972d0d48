"""How a command ends: its exit code and, when it failed, what, why, where and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from pointsman.cli.json_values import Json


class ExitCode(IntEnum):
    """What the shell sees. Scripts rely on these numbers; docs/cli.md lists them."""

    DONE = 0
    ERROR = 1
    DIFFERENCES = 2
    NOT_FOUND = 3
    CONFLICT = 4
    DENIED = 5
    TIMED_OUT = 6
    PARTIAL_FLEET = 7
    ROLLED_BACK = 8
    USAGE = 64
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `where` names the entity, its field or its place in a file."""

    what: str
    where: str = ""
    remedy: str = ""


class CliError(Exception):
    """A command that can't go on. `faults` has at least one element, the most telling first."""

    def __init__(self, exit_code: ExitCode, faults: Sequence[Fault]) -> None:
        assert faults
        super().__init__(faults[0].what)
        self.exit_code = exit_code
        self.faults = tuple(faults)


class RefusedRequest(CliError):
    """The Admin API answered 4xx or 5xx; `status` and `body` are its answer as it came."""

    def __init__(self, exit_code: ExitCode, faults: Sequence[Fault], *, status: int, body: Json) -> None:
        super().__init__(exit_code, faults)
        self.status = status
        self.body = body


def failure(exit_code: ExitCode, what: str, *, where: str = "", remedy: str = "") -> CliError:
    """An error with one fault."""
    return CliError(exit_code, [Fault(what, where, remedy)])


class Ended(Exception):
    """A command that did and printed all of its work, and has more than "done" to tell the shell."""

    def __init__(self, exit_code: ExitCode) -> None:
        super().__init__(exit_code.name)
        self.exit_code = exit_code
