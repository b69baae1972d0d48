"""A canary as a state machine, without clock or I/O: which step, how long, what moves it on, and how it goes back.

    shifting(1) --written--> watching(1) --time and gates, or promote--> shifting(2) ... --written, 100 %--> settling
        |                        |                                                                                |
        | refused                | gate, abort, undo                                              confirmed | partial
        `--> aborted             `--> undoing --written--> returning --> undone | aborted

`shifting` and `undoing` are wishes: somebody has to write what `wish` says, as one rollout, and tell `written` in the
same transaction; so the stored state and what the nodes are told can't differ, whoever is killed when. All else is
waiting. A canary that is held does not go on by itself, but its gates go on watching: a hold is no protection of a bad
release.

Two rules: the share only grows until the canary goes back, and from then on it only goes back. Times are seconds since
1970, because they outlive the process; a step that a clock set back makes longer is still watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from control_plane.switching.gates import NOT_ASKED, Limits, Outcome, Verdict

SHARE_MAX = 10_000
"""All requests; shares are in ten-thousandths."""
ATTEMPTS_MAX = 3
"""How often a step is tried before the canary goes back."""
RETRY_S = 2.0


class Phase(StrEnum):
    """The values are the store's and the operator's."""

    SHIFTING = "shifting"  # the next step is to be written, and is not
    WATCHING = "watching"  # the step is in force
    SETTLING = "settling"  # all requests go to the new side; the nodes' word is awaited
    UNDOING = "undoing"  # it is to go back, and that is not written
    RETURNING = "returning"  # all requests go to the old side; the nodes' word is awaited
    CONFIRMED = "confirmed"
    PARTIAL = "partial"
    ABORTED = "aborted"  # by an operator, or nothing had moved
    UNDONE = "undone"  # by a gate, or an operator's undo

    @property
    def final(self) -> bool:
        return self in (Phase.CONFIRMED, Phase.PARTIAL, Phase.ABORTED, Phase.UNDONE)

    @property
    def decided(self) -> bool:
        """Whether all requests go to the new side, for good as far as the canary is concerned."""
        return self in (Phase.SETTLING, Phase.CONFIRMED, Phase.PARTIAL)

    @property
    def back(self) -> bool:
        """Whether it is on its way back, or was."""
        return self in (Phase.UNDOING, Phase.RETURNING, Phase.ABORTED, Phase.UNDONE)


@dataclass(frozen=True, slots=True)
class Course:
    """What an operator asks for: `shares` ascending, the last one all requests."""

    shares: tuple[int, ...]
    every_s: float | None = None
    """How long a step stands before the next; None = until an operator promotes it."""
    limits: Limits = field(default_factory=Limits)
    window_s: float = 60.0
    """The longest time that figures are summed over."""
    pass_after_s: float | None = None
    """A step with too few requests goes on after this time; None = it waits for them."""

    def __post_init__(self) -> None:
        assert self.shares
        assert self.shares[-1] == SHARE_MAX
        assert all(0 < a < b for a, b in pairwise(self.shares))


class Left(StrEnum):
    """How a step ended."""

    PASSED = "passed"  # its time was over and its gates were good
    UNJUDGED = "unjudged"  # its time was over, with too few requests to tell
    PROMOTED = "promoted"  # by an operator
    SKIPPED = "skipped"  # a later one was promoted
    BROKEN = "broken"  # by a gate
    ABANDONED = "abandoned"  # by an operator, or because the next one could not be


@dataclass(slots=True)
class Step:
    """One step and what became of it; `verdict` as it was when the step ended."""

    share: int
    rollout: int | None = None
    version: int | None = None
    began_at: float | None = None
    ended_at: float | None = None
    left: Left | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Shift:
    """Write that this step's share goes to the new side; of the last step, that the service points there."""

    step: int
    share: int

    @property
    def whole(self) -> bool:
        return self.share == SHARE_MAX


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Write that no request goes to the new side."""


Wish = Shift | TakeBack


class NotNow(Exception):
    """What an operator asks for can't be done in this state. `code` is stable, the text says why."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(what)
        self.code = code


@dataclass(slots=True)
class Canary:
    """Events change the state; `wish` is what has to be written. After the end every event is without effect."""

    course: Course
    steps: list[Step]
    phase: Phase = Phase.SHIFTING
    at: int = -1
    """The step in force; -1 = none."""
    to: int = 0
    """While shifting: the step that is to come."""
    held: bool = False
    held_by: str = ""
    goal: int = 0
    """An operator has promoted it to this step: until then neither time nor gates are waited for."""
    attempts: int = 0
    problem: str = ""
    """Why the last attempt to write was in vain."""
    retry_at: float = 0.0
    reason: str = ""
    by: str = ""
    verdict: Verdict = NOT_ASKED
    """The last one of the step in force."""
    breach: Verdict | None = None
    breach_at: float | None = None
    undone: bool = False
    """Whether it ends as undone, not as aborted."""
    back_rollout: int | None = None
    back_version: int | None = None
    ended_at: float | None = None

    @classmethod
    def of(cls, course: Course) -> Canary:
        return cls(course, [Step(share) for share in course.shares])

    @property
    def last(self) -> int:
        return len(self.steps) - 1

    @property
    def share(self) -> int:
        """What the new side gets, by what is written."""
        if self.phase in (Phase.RETURNING, Phase.ABORTED, Phase.UNDONE) or self.at < 0:
            return 0
        return self.steps[self.at].share

    @property
    def waits_for_operator(self) -> bool:
        """Whether nothing but an operator, or a gate, moves it on."""
        return self.phase is Phase.WATCHING and (self.held or self.course.every_s is None)

    @property
    def due_at(self) -> float | None:
        """When the step in force has stood long enough."""
        if self.phase is not Phase.WATCHING or self.waits_for_operator or self.course.every_s is None:
            return None
        return (self.steps[self.at].began_at or 0.0) + self.course.every_s

    def wish(self, now: float) -> Wish | None:
        """What is to be written now."""
        if now < self.retry_at:
            return None
        if self.phase is Phase.SHIFTING:
            return Shift(self.to, self.steps[self.to].share)
        return TakeBack() if self.phase is Phase.UNDOING else None

    # --- what becomes of a wish -------------------------------------------------------------------------------------

    def written(self, rollout: int | None, version: int, now: float) -> None:
        """The wish is in the store as a version; `rollout` None = as a plain write, because no rollout could be."""
        self.attempts, self.problem, self.retry_at = 0, "", 0.0
        if self.phase is Phase.UNDOING:
            self.phase, self.back_rollout, self.back_version = Phase.RETURNING, rollout, version
            return
        assert self.phase is Phase.SHIFTING
        for step in self.steps[self.at + 1 : self.to]:
            step.left = Left.SKIPPED
        self.at = self.to
        step = self.steps[self.at]
        step.rollout, step.version, step.began_at = rollout, version, now
        self.verdict = NOT_ASKED
        if self.at == self.last:
            self.phase = Phase.SETTLING
        elif self.goal > self.at:
            self._leave(Left.PROMOTED, now)
            self._go(self.goal)
        else:
            self.phase = Phase.WATCHING

    def failed(self, why: str, now: float) -> None:
        """The rollout of the wish was aborted; nothing is written."""
        if self.phase not in (Phase.SHIFTING, Phase.UNDOING):
            return
        self.attempts += 1
        self.problem = why
        if self.phase is Phase.UNDOING:
            return  # at once again, as a plain write: going back does not depend on anybody's vote
        if self.at < 0:
            self.reason = why
            self._end(Phase.ABORTED, now)
        elif self.attempts >= ATTEMPTS_MAX:
            self._turn_back(f"step {self.to + 1} failed {self.attempts} times: {why}", "", now, Left.ABANDONED)
            self.undone = True
        else:
            self.retry_at = now + RETRY_S

    def settled(self, whole: bool, why: str, now: float) -> None:
        """The nodes have said that they run what was written; not `whole` = some have not."""
        if self.phase is Phase.SETTLING:
            self.reason = why
            self.steps[self.at].ended_at = now
            self._end(Phase.CONFIRMED if whole else Phase.PARTIAL, now)
        elif self.phase is Phase.RETURNING:
            self._end(Phase.UNDONE if self.undone else Phase.ABORTED, now)

    # --- time and gates ---------------------------------------------------------------------------------------------

    def judged(self, verdict: Verdict, now: float) -> None:
        """Time has passed, and the gates say this of the step in force."""
        if self.at < 0 or self.phase not in (Phase.WATCHING, Phase.SHIFTING):
            return
        self.verdict = verdict
        if verdict.outcome is Outcome.BROKEN:
            worst = verdict.worst
            assert worst is not None
            self.breach, self.breach_at, self.undone = verdict, now, True
            self._turn_back(f"gate {worst.gate}: {worst.text()}", "", now, Left.BROKEN)
            return
        due = self.due_at
        if due is None or now < due:
            return
        if verdict.outcome is Outcome.GOOD:
            self._leave(Left.PASSED, now)
            self._go(self.at + 1)
        elif verdict.outcome is Outcome.TOO_FEW and self._may_pass_unjudged(now):
            self._leave(Left.UNJUDGED, now)
            self._go(self.at + 1)

    # --- what operators ask -----------------------------------------------------------------------------------------

    def promote(self, by: str, now: float, *, to: int | None = None) -> None:
        """On to the next step, or to step `to` (0 is the first one), without waiting for time or gates; ends a hold.

        Raises NotNow.
        """
        self._check_open("promote")
        standing = self.at if self.phase is Phase.WATCHING else max(self.to, self.goal)
        goal = standing + 1 if to is None else to
        if not standing < goal <= self.last:
            if to is None:
                raise NotNow("LAST_STEP", "all requests are about to go to the new side already")
            raise NotNow("NO_SUCH_STEP", f"step {goal + 1} is none to come: there are {len(self.steps)}")
        self.held, self.held_by, self.goal = False, "", goal
        if self.phase is Phase.WATCHING:
            self._leave(Left.PROMOTED, now)
            self._go(goal)

    def hold(self, by: str) -> None:
        """Stay on the step in force, or on the one that is being written. Raises NotNow."""
        self._check_open("hold")
        if self.phase is Phase.SHIFTING and self.to == self.last:
            raise NotNow("LAST_STEP", "all requests are about to go to the new side; undo it, if that must not be")
        self.held, self.held_by, self.goal = True, by, 0

    def abort(self, reason: str, by: str, now: float, *, undo: bool = False) -> None:
        """All requests back to the old side. Raises NotNow when they go to the new one for good, or are back."""
        if self.phase.decided:
            raise NotNow("TOO_LATE", "all requests go to the new side already; undo it")
        if self.phase.back:
            raise NotNow("GOING_BACK", f"it is {self.phase.value} already: {self.reason}")
        self.undone = undo
        self._turn_back(reason or ("undone" if undo else "aborted"), by, now, Left.ABANDONED)
        if self.at < 0:
            self._end(Phase.ABORTED, now)  # nothing has moved, and what is under way finds itself unwanted

    # --- within -----------------------------------------------------------------------------------------------------

    def _may_pass_unjudged(self, now: float) -> bool:
        after_s = self.course.pass_after_s
        return after_s is not None and now >= (self.steps[self.at].began_at or 0.0) + after_s

    def _check_open(self, verb: str) -> None:
        if self.phase.back:
            raise NotNow("GOING_BACK", f"can't {verb}: it is {self.phase.value}: {self.reason}")
        if self.phase.decided:
            raise NotNow("TOO_LATE", f"can't {verb}: all requests go to the new side already")

    def _go(self, step: int) -> None:
        self.phase, self.to = Phase.SHIFTING, step
        self.attempts, self.problem, self.retry_at = 0, "", 0.0

    def _leave(self, left: Left, now: float) -> None:
        step = self.steps[self.at]
        if step.left is None:  # once: a step that had passed when the next one could not be written has passed
            step.left, step.ended_at, step.verdict = left, now, self.verdict

    def _turn_back(self, reason: str, by: str, now: float, left: Left) -> None:
        if self.at >= 0:
            self._leave(left, now)
        self.phase, self.reason, self.by = Phase.UNDOING, reason, by
        self.attempts, self.problem, self.retry_at = 0, "", 0.0
        self.held, self.held_by, self.goal = False, "", 0

    def _end(self, phase: Phase, now: float) -> None:
        self.phase, self.ended_at = phase, now


def course_shares(percents: Sequence[float]) -> tuple[int, ...]:
    """Shares of percents, with all requests at the end. Raises ValueError, which says what is wrong."""
    shares = [round(percent * 100) for percent in percents]
    if not shares:
        raise ValueError("expected at least one step")
    if any(not 0 < share <= SHARE_MAX for share in shares):
        raise ValueError("a step is a percentage from 0.01 to 100")
    if any(a >= b for a, b in pairwise(shares)):
        raise ValueError("each step must be larger than the one before")
    if shares[-1] != SHARE_MAX:
        shares.append(SHARE_MAX)
    return tuple(shares)
