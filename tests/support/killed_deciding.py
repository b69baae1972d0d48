"""`python -m tests.support.killed_deciding POINT ...`: a control plane that ends while it writes the first decision.

POINT is one of the places on a write's way (`control_plane/store/failpoints.py`), armed when a rollout is about to
be decided, so that no write before that ends the process. Everything else is the control plane as it is.
"""

from __future__ import annotations

import os
import sys

from control_plane.__main__ import main
from control_plane.fleet.rollouts import Entry, Rollouts
from control_plane.store import failpoints


def run(point: str, arguments: list[str]) -> int:
    """Returns the exit code of a control plane that decided nothing."""
    decide = Rollouts._decide

    async def armed(rollouts: Rollouts, entry: Entry) -> None:
        failpoints.arm(point, passes=0)
        await decide(rollouts, entry)

    Rollouts._decide = armed  # type: ignore[method-assign,assignment]  # the moment before the write has no other name
    return main(arguments, os.environ)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
