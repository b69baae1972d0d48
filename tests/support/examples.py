"""How many random examples a property is tried with: a few in `make test`, many times as many in
`make prove ONLY=properties`, which sets the environment variable.
"""

from __future__ import annotations

import os

TIMES = int(os.environ.get("POINTSMAN_EXAMPLES_TIMES", "1"))


def examples(count: int) -> int:
    """For `max_examples`, where a few are `count`."""
    return count * TIMES
