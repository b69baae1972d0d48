"""Keeps what lives as long as the process out of the garbage collector's way.

Modules, classes and what was loaded at start are a few hundred thousand objects. A full collection walks all of them,
which stalls an event loop for 70 ms and more, some seconds after the start and now and then after it. Workers go
further and switch automatic collection off (`data_plane/worker/memory.py`).
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """No automatic collection while a process starts: it makes a great many objects and drops hardly any.

    With 100,000 entities to load that is a third of the loading.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def settle() -> None:
    """Collect once, then exempt everything that is left. Call it when a process has started and waits for work."""
    gc.collect()
    gc.freeze()


def collect_rarely() -> None:
    """Let far more objects come and go between collections. For a process that makes many at once and few cycles.

    A page of a thousand entities is eight thousand objects and a large file millions. By Python's own thresholds each
    page begins a dozen collections and now and then a full one, which takes longer than the page itself. What cycles
    keep is at most some 50,000 objects more.
    """
    gc.set_threshold(50_000, 20, 50)
