"""Places on a write's way at which a test can end the process, to prove what a crash there leaves behind.

Off unless a test arms one in its own process; nothing outside can. All names are here, so that the tests which go
through them are generated.
"""

from __future__ import annotations

import os
import signal

QUEUED = "queued"
UNIT_RAN = "unit-ran"
VERSION_TAKEN = "version-taken"
COMMITTING = "committing"
COMMITTED = "committed"
DELIVERING = "delivering"
TOLD = "told"
NAMES = (QUEUED, UNIT_RAN, VERSION_TAKEN, COMMITTING, COMMITTED, DELIVERING, TOLD)
"""In the order in which a write meets them."""

_armed: list[str] = []  # the name, as often as it is to be passed before the end


def arm(name: str, *, passes: int) -> None:
    """Ends this process without warning when `name` is reached after that many times."""
    assert name in NAMES
    _armed[:] = [name] * (passes + 1)


def reached(name: str) -> None:
    """A write is at this place."""
    if _armed and _armed[-1] == name:
        _armed.pop()
        if not _armed:
            os.kill(os.getpid(), signal.SIGKILL)
