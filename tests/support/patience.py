"""How long tests wait for something that must come to pass.

One patience for all, and a long one: on a machine whose cores are taken a process may not run for seconds, and that is
no fault of what is tested. Nothing waits for it in vain but a test that fails, so its length costs nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

PATIENCE_S = float(os.environ.get("POINTSMAN_TEST_PATIENCE_S", "120"))
"""The limit of one wait; pytest's own limit for a whole test is longer."""
PREFER = "wait=60"
"""What a test says by `Prefer` to get the answer that comes at the end, if that comes within its patience at all."""


async def last_callers() -> None:
    """Connections that were accepted while their server was closed come to its handler a few turns of the loop later;
    after this the handler has ended them, and their transports are closed."""
    for _ in range(10):
        await asyncio.sleep(0.001)


async def until(condition: Callable[[], bool], what: str = "", *, patience_s: float = PATIENCE_S) -> None:
    """Waits for `condition` by looking at it again and again."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what or condition}"
        await asyncio.sleep(0.002)
