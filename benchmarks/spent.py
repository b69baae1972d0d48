"""What processes use of the processors, and how long they wait for one: sums over their threads, as the kernel counts.

CPU time is the same on a busy machine and on a quiet one; the time in the run queue says how busy it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Spent(NamedTuple):
    """Milliseconds on a processor, milliseconds ready to run but waiting for one, and how often one was taken."""

    cpu_ms: float
    waited_ms: float
    runs: int

    def since(self, before: Spent) -> Spent:
        """The difference to an earlier reading."""
        return Spent(self.cpu_ms - before.cpu_ms, self.waited_ms - before.waited_ms, self.runs - before.runs)


def spent(pids: Sequence[int]) -> Spent:
    """Of all threads of these processes, as of now; threads that have ended are not in it."""
    cpu_ns = waited_ns = runs = 0
    for pid in pids:
        for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                ran, waited, times = map(int, file.read_text().split())
            except FileNotFoundError:
                continue  # the thread has ended
            cpu_ns, waited_ns, runs = cpu_ns + ran, waited_ns + waited, runs + times
    return Spent(cpu_ns / 1e6, waited_ns / 1e6, runs)


def children(pid: int) -> list[int]:
    """Processes that a process has started, whichever of its threads did."""
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def each(
    spans: Mapping[str, tuple[Spent, Spent]], *, changes: int, beside: Mapping[str, Spent], ratio: float
) -> dict[str, dict[str, float]]:
    """Per change and role: used between two readings, less `ratio` times what `beside` was used without changes."""
    found = {}
    for role, (before, after) in spans.items():
        used, idle = after.since(before), beside[role]
        found[role] = {
            "cpu_ms": round((used.cpu_ms - idle.cpu_ms * ratio) / changes, 2),
            "waited_ms": round((used.waited_ms - idle.waited_ms * ratio) / changes, 2),
            "runs": round((used.runs - idle.runs * ratio) / changes, 1),
        }
    return found
