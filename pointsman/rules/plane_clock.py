"""A control plane's clock as somebody else estimates it: pure, fed with the four times of an exchange.

    we sent t1 ---> plane received t2, plane sent t3 ---> we received t4

We are a node, whose beats and their answers are such exchanges, or another control plane that coordinates a rollout.

The plane's clock was ahead of ours by ((t2 - t1) + (t3 - t4)) / 2, give or take half of the time that the exchange
spent on the way. Both are monotonic clocks, so nothing that anyone does to the time of day matters, and no NTP is
needed. The exchange that spent the least time on the way says most, so of the last few the one with the smallest error
counts, its error growing with its age, because two crystals drift apart. A new conversation may be with another
process, whose clock has another zero: the samples of the one before are forgotten.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

SAMPLES_MAX = 8
DRIFT_PPM_MAX = 200
"""By how much two hosts' monotonic clocks may run apart, NTP's slewing of each included, in millionths."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One exchange. `offset_ns` is what the plane's clock was ahead; the truth lies within half of `rtt_ns` of it."""

    offset_ns: int
    rtt_ns: int
    at_ns: int  # by our clock

    def error_ns(self, now_ns: int) -> int:
        """How far off the offset may be by now."""
        return self.rtt_ns // 2 + max(0, now_ns - self.at_ns) * DRIFT_PPM_MAX // 1_000_000


class PlaneClock:
    """All times are nanoseconds. `now_ns` is this host's CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)

    def reset(self) -> None:
        """Another conversation begins, perhaps with another process."""
        self._samples.clear()

    def sample(self, *, sent_ns: int, plane_received_ns: int, plane_sent_ns: int, received_ns: int) -> None:
        """Take in one exchange. One whose times can't be true is left out: it would poison the estimate."""
        inside_ns = plane_sent_ns - plane_received_ns
        rtt_ns = (received_ns - sent_ns) - inside_ns
        # On a quick way a plane whose clock runs fast has spent more time on it, by its own account, than it took.
        drift_ns = inside_ns * DRIFT_PPM_MAX // 1_000_000 + 1
        if received_ns < sent_ns or inside_ns < 0 or rtt_ns < -drift_ns:
            return
        offset_ns = ((plane_received_ns - sent_ns) + (plane_sent_ns - received_ns)) // 2
        self._samples.append(Sample(offset_ns, max(0, rtt_ns), received_ns))

    @property
    def samples(self) -> int:
        return len(self._samples)

    def newest_age_ns(self, now_ns: int) -> int | None:
        """How old the newest sample is; None without one."""
        return now_ns - self._samples[-1].at_ns if self._samples else None

    def error_ns(self, now_ns: int) -> int | None:
        """How far off the estimate may be; None while there is none."""
        best = self._best(now_ns)
        return None if best is None else best.error_ns(now_ns)

    def to_monotonic(self, plane_ns: int, now_ns: int) -> int | None:
        """When it is `plane_ns` for the control plane, by our clock; None while there is no estimate."""
        best = self._best(now_ns)
        return None if best is None else plane_ns - best.offset_ns

    def to_plane(self, monotonic_ns: int, now_ns: int) -> int | None:
        """What a time of ours is for the control plane; None while there is no estimate."""
        best = self._best(now_ns)
        return None if best is None else monotonic_ns + best.offset_ns

    def _best(self, now_ns: int) -> Sample | None:
        return min(self._samples, key=lambda sample: sample.error_ns(now_ns), default=None)
