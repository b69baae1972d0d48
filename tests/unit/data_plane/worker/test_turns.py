"""Goal: a worker asks for short turns and changes nothing else. Method: a thread of its own, and the kernel's word."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from data_plane.worker.turns import TURN_NS, ask_for_short_turns
from tests.support.patience import PATIENCE_S

T = TypeVar("T")


def in_a_thread(work: Callable[[], T]) -> T:
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(PATIENCE_S)
    (result,) = found
    return result


def turn_ns() -> int | None:
    """How long this thread's turns are; None where the kernel does not tell."""
    try:
        lines = Path(f"/proc/self/task/{threading.get_native_id()}/sched").read_text().splitlines()
    except FileNotFoundError:
        return None
    return next((int(float(line.split(":")[1])) for line in lines if line.startswith("se.slice")), None)


def test_turns_are_short_from_then_on() -> None:
    def asked() -> tuple[int | None, bool, int | None]:
        return turn_ns(), ask_for_short_turns(), turn_ns()

    before, taken, after = in_a_thread(asked)
    if before is None or not taken or after == before:
        pytest.skip("this kernel gives no turns of one's own")
    assert after == TURN_NS


def test_the_nice_value_stays() -> None:
    def asked() -> tuple[int, int]:
        os.setpriority(os.PRIO_PROCESS, 0, 3)
        ask_for_short_turns()
        return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)

    assert in_a_thread(asked) == (3, os.SCHED_OTHER)


def test_a_policy_that_somebody_chose_stays() -> None:
    def asked() -> tuple[bool, int]:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return ask_for_short_turns(), os.sched_getscheduler(0)

    assert in_a_thread(asked) == (False, os.SCHED_BATCH)


def test_an_unknown_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    assert not ask_for_short_turns()
