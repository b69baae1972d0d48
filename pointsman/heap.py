"""Keeps what lives as long as the process out of the garbage collector's way.

Modules, classes and what was loaded at start are a few hundred thousand objects. A full collection walks all of them,
which stalls an event loop for 70 ms and more, some seconds after the start and now and then after it. Workers go
further and switch automatic collection off (`data_plane/worker/memory.py`).
"""

from __future__ import annotations

import gc


def settle() -> None:
    """Collect once, then exempt everything that is left. Call it when a process has started and waits for work."""
    gc.collect()
    gc.freeze()
