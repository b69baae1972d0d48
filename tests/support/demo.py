"""`make demo`: the main job, shown on loopback in about half a minute.

One control plane, three nodes and four upstream servers; open-loop load through all three nodes; ten switches
between blue and green; then the ledger. Exits non-zero if a request was lost, doubled or answered out of order.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.support import ledger

NODES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second over all nodes")
    options = parser.parse_args()
    print(f"Starting one control plane, {NODES} nodes and four upstream servers on loopback ...", flush=True)
    print(f"Load: {options.rate:g} requests a second. Switching {options.switches} times.\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="pointsman-demo-") as folder:
        result = uvloop.run(
            ledger.run(Path(folder), nodes=NODES, workers=1, switches=options.switches, rate=options.rate, pause_s=1.0)
        )
    names = [f"node-{number}" for number in range(1, NODES + 1)]
    print(ledger.switch_table(result, names), end="\n\n")
    print(ledger.report(result))
    if result.failures:
        sys.exit("\nFAILED: " + "; ".join(result.failures))
    print("\nNothing lost, nothing doubled, nothing out of order.")


if __name__ == "__main__":
    main()
