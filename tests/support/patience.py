"""How long tests wait for something that must come to pass.

One patience for all, and a long one: on a machine whose cores are taken a process may not run for seconds, and that is
no fault of what is tested. Nothing waits for it in vain but a test that fails, so its length costs nothing.
"""

from __future__ import annotations

import os

PATIENCE_S = float(os.environ.get("POINTSMAN_TEST_PATIENCE_S", "120"))
"""The limit of one wait; pytest's own limit for a whole test is longer."""
PREFER = "wait=60"
"""What a test says by `Prefer` to get the answer that comes at the end, if that comes within its patience at all."""
