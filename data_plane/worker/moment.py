"""Waking at a given CLOCK_MONOTONIC instant: never before it, and as little after it as the kernel allows.

The event loop's own timers have a resolution of a millisecond and may fire up to 1.2 ms early under uvloop, which would
let one worker of a fleet switch before the common instant. A timerfd is armed with the absolute time instead and is
one more readable descriptor to the loop.

A loop that is busy at the instant looks at its descriptors late. Whoever has read the clock anyway may therefore ask
`come`: the moment comes then and there if its time has come.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


def _create_timerfd() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    return descriptor


def _arm_timerfd(descriptor: int, at_ns: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    spec = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(at_ns, 1_000_000_000)))
    if int(libc.timerfd_settime(descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)) < 0:
        raise OSError(ctypes.get_errno(), "timerfd_settime")


class Moment:
    """One callback at one instant; `cancel` is safe at any time."""

    def __init__(self, at_ns: int, callback: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._at_ns = at_ns
        self._callback = callback
        self._descriptor = -1
        self._handle: asyncio.Handle | None = None
        if at_ns <= time.monotonic_ns():
            self._handle = self._loop.call_soon(self._fire)
            return
        self._descriptor = _create_timerfd()
        try:
            _arm_timerfd(self._descriptor, at_ns)
        except OSError:
            os.close(self._descriptor)
            raise
        self._loop.add_reader(self._descriptor, self._fire)

    def come(self) -> None:
        """Run the callback now if its instant has passed; after that it has run."""
        if time.monotonic_ns() >= self._at_ns:
            self._fire()

    def cancel(self) -> None:
        """Forget the callback unless it has run."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _fire(self) -> None:
        assert time.monotonic_ns() >= self._at_ns, "the kernel woke us before the instant"
        self.cancel()
        self._callback()
