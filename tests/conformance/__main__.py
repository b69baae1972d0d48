"""`python -m tests.conformance NAME FILE ...`: runs a file of vectors and prints what differs.

Each runner prints one line a failing case and, as its last line, `passed N of M`. It exits with 0 when all passed, 1
when some did not, and 64 when it was called wrongly.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

EXIT_USAGE = 64

RUNNERS: Mapping[str, str] = MappingProxyType(
    {
        "admin": "tests.conformance.admin:main",
        "balancer": "tests.conformance.balancer:main",
        "malformed": "tests.conformance.malformed:main",
        "proxy": "tests.conformance.proxy:main",
        "router": "tests.conformance.router:main",
        "upstream-malformed": "tests.conformance.upstream_malformed:main",
    }
)
"""Name -> module:function; the function takes the remaining arguments and returns the exit code."""


def main(arguments: Sequence[str]) -> int:
    """Dispatches to a runner, which is imported only when it is asked for."""
    if not arguments or arguments[0] not in RUNNERS:
        sys.stderr.write(f"usage: python -m tests.conformance {'|'.join(RUNNERS)} FILE [...]\n")
        return EXIT_USAGE
    module_name, _, function = RUNNERS[arguments[0]].partition(":")
    run = getattr(importlib.import_module(module_name), function)
    code = run(arguments[1:])
    assert isinstance(code, int)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
