from __future__ import annotations

from collections.abc import Callable, Generator

from data_plane.worker.slicing import Slicer


class Loop:
    """A loop and a clock that the work itself moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ready: list[Callable[[], None]] = []
        self.rounds = 0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def run(self) -> None:
        while self.ready:
            self.rounds += 1
            self.ready.pop(0)()


def make(loop: Loop, errors: list[BaseException]) -> Slicer:
    return Slicer(errors.append, slice_s=0.001, clock=lambda: loop.now, call_soon=loop.call_soon)


def work(loop: Loop, log: list[str], name: str, steps: int, step_s: float) -> Generator[None, None, None]:
    for step in range(steps):
        loop.now += step_s
        log.append(f"{name}{step}")
        yield


def test_work_runs_in_the_order_it_was_given_and_never_interleaved() -> None:
    loop, log, errors = Loop(), list[str](), list[BaseException]()
    slicer = make(loop, errors)
    slicer.submit(work(loop, log, "a", 3, 0.0004))
    slicer.submit(work(loop, log, "b", 2, 0.0004))
    loop.run()
    assert log == ["a0", "a1", "a2", "b0", "b1"]
    assert len(slicer) == 0


def test_no_slice_is_much_longer_than_allowed() -> None:
    loop, log, errors = Loop(), list[str](), list[BaseException]()
    slicer = make(loop, errors)
    slicer.submit(work(loop, log, "a", 1000, 0.00001))
    loop.run()
    assert len(log) == 1000
    assert loop.rounds == 10
    assert slicer.longest_slice_s < 0.0012


def test_a_failure_is_told_and_the_queue_goes_on() -> None:
    loop, log, errors = Loop(), list[str](), list[BaseException]()
    slicer = make(loop, errors)

    def fails() -> Generator[None, None, None]:
        yield
        raise RuntimeError("broken")

    slicer.submit(fails())
    slicer.submit(work(loop, log, "b", 1, 0.0))
    loop.run()
    assert [str(error) for error in errors] == ["broken"]
    assert log == ["b0"]


def test_work_given_by_work_runs_after_what_waits() -> None:
    loop, log, errors = Loop(), list[str](), list[BaseException]()
    slicer = make(loop, errors)

    def gives() -> Generator[None, None, None]:
        slicer.submit(work(loop, log, "c", 1, 0.0))
        yield

    slicer.submit(gives())
    slicer.submit(work(loop, log, "b", 1, 0.0))
    loop.run()
    assert log == ["b0", "c0"]
