"""Long work between the requests: generators run one after another in slices of a bounded time.

Everything a worker does besides serving (decoding entities, building tables, letting go of old ones) is a generator
that yields often, and goes through one queue here. The order of the queue is the order of the work, so a set of tables
is never begun before the one it builds on is complete.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator

SLICE_S = 0.001
"""Half of the 2 ms that a request may be held up: one step may run on past the end of its slice."""
IDLE_SLICE_S = 0.02
"""While nothing is served yet, only the channel waits for us."""

_STEPS_PER_LOOK = 2


class Slicer:
    """A queue of generators and the slices they run in."""

    def __init__(
        self,
        on_error: Callable[[BaseException], None],
        *,
        slice_s: float = IDLE_SLICE_S,
        clock: Callable[[], float] = time.perf_counter,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self.slice_s = slice_s
        self.longest_slice_s = 0.0
        self._on_error = on_error
        self._clock = clock
        self._call_soon = call_soon or asyncio.get_running_loop().call_soon
        self._queue: deque[Generator[None, None, None]] = deque()
        self._scheduled = False

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, work: Generator[None, None, None]) -> None:
        """Run `work` after all that was submitted before. Its exceptions go to `on_error`, and the queue goes on."""
        self._queue.append(work)
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._run)

    def _run(self) -> None:
        clock = self._clock
        began = clock()
        until = began + self.slice_s
        while self._queue:
            work = self._queue[0]
            try:
                while True:
                    # Reading the clock costs as much as a small step: look at it every few steps only.
                    for _ in range(_STEPS_PER_LOOK):
                        next(work)
                    if clock() >= until:
                        break
            except StopIteration:
                self._queue.popleft()
            except Exception as error:  # the owner decides what a failed piece of work means
                self._queue.popleft()
                self._on_error(error)
            if clock() >= until:
                break
        self.longest_slice_s = max(self.longest_slice_s, clock() - began)
        if self._queue:
            self._call_soon(self._run)
        else:
            self._scheduled = False
