"""`make demo`: the main job, shown on loopback in less than a minute.

One control plane, three nodes and four upstream servers; open-loop load through all three nodes; six switches between
blue and green by a plain PATCH; then the verbs: a switch in two phases, its undo, a canary that a bad release breaks
and that goes back by itself, and a switch that the preflight refuses because green is down; then the ledger. Exits
non-zero if the gateway lost a request, doubled one or had one answered out of order.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from pointsman.cli import switch_view
from pointsman.cli.signs import ASCII
from tests.support import canaries, ledger
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.processes import Fleet

NODES = 3

CHECKS = {
    "active": {
        "type": "tcp",
        "healthy": {"interval": 0.5, "successes": 1},
        "unhealthy": {"interval": 0.5, "tcp_failures": 1, "timeouts": 1},
    }
}


async def show_verbs(fleet: Fleet) -> list[ledger.Switch]:
    """A good switch, an undo, a canary that goes back by itself, and a refusal, under load."""
    checked = await fleet.admin("PATCH", "/upstreams/green", {"healthchecks": CHECKS}, {"Prefer": PREFER})
    assert checked.status == 200, checked.body
    service = {"service": "example-service"}
    done = []
    if (await fleet.admin("GET", "/services/example-service")).body["host"] != "blue":  # type: ignore[index]
        done.append(await ledger.switch_to(fleet, "blue"))
    await _until(fleet, ready=True)
    print("$ pointsman switch example-service --to green")
    good, view = await ledger.switch_by_verb(
        fleet, "/switches", {**service, "to": "green", "reason": "release 2.7.1"}, "green"
    )
    _show(await _until_at_rest(fleet, int(view["switch"])))
    print("$ pointsman switch undo example-service")
    back, view = await ledger.switch_by_verb(fleet, f"/switches/{view['switch']}/undo", {}, "blue")
    _show(view)
    await canaries.make(fleet, "green", ill=True)
    print("The next release of green is bad: it answers 500 to everything.")
    print("$ pointsman switch example-service --to green --canary 10,50,100 --every 20s --gate errors=1%")
    course = {"steps": [10, 50, 100], "every_s": 20, "gates": {"errors": "1%", "p99": None}, "min_requests": 20}
    canary, view = await ledger.canary_by_verb(
        fleet, {**service, "to": "green", "reason": "release 2.7.2", "canary": course}, "blue"
    )
    assert view["state"] == "undone", view
    _show(view)
    await canaries.make(fleet, "green", ill=False)
    for name in ("green-1", "green-2"):
        fleet.upstreams[name].destroy()
    print("Green's servers are killed.\n$ pointsman switch example-service --to green")
    await _until(fleet, ready=False)
    refused = await fleet.admin("POST", "/switches", {**service, "to": "green"}, {"Prefer": PREFER})
    assert isinstance(refused.body, dict)
    assert (refused.status, refused.body["code"]) == (409, "PREFLIGHT_REFUSED"), refused.body
    for finding in refused.body["refusals"][-1:]:
        print("\n".join(textwrap.wrap(f"refused, {finding['code']}: {finding['what']}", 96)))
    print(flush=True)
    return [*done, good, back, canary]


async def _until(fleet: Fleet, *, ready: bool) -> None:
    """Waits until the checks of all nodes say that green may, or may not, take the traffic."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            wish = {"service": "example-service", "to": "green"}
            plan = (await fleet.admin("POST", "/switches?dry_run=1", wish)).body
            assert isinstance(plan, dict)
            words = {word for target in plan["new_side"]["targets"] for word in target["seen"].values()}
            if words == {"healthy" if ready else "unhealthy"}:
                return
            await asyncio.sleep(0.05)


async def _until_at_rest(fleet: Fleet, number: int) -> Mapping[str, Any]:
    """Waits until the old side can be torn down, and each node has said who answered when."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            view = (await fleet.admin("GET", f"/switches/{number}")).body
            assert isinstance(view, dict)
            told = all(node["first_new_us_after_instant"] is not None for node in view["nodes"])
            if view["safe_to_tear_down"] and told:
                return view
            await asyncio.sleep(0.1)


def _show(view: Mapping[str, Any]) -> None:
    for line in switch_view.tree(dict(view), ASCII, width=96):
        print(line)
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=6)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second over all nodes")
    options = parser.parse_args()
    print(f"Starting one control plane, {NODES} nodes and four upstream servers on loopback ...", flush=True)
    print(f"Load: {options.rate:g} requests a second. Switching {options.switches} times.\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="pointsman-demo-") as folder:
        result = uvloop.run(
            ledger.run(
                Path(folder),
                nodes=NODES,
                workers=1,
                switches=options.switches,
                rate=options.rate,
                pause_s=1.0,
                more=show_verbs,
            )
        )
    names = [f"node-{number}" for number in range(1, NODES + 1)]
    print(ledger.switch_table(result, names), end="\n\n")
    print(ledger.report(result))
    if result.failures:
        sys.exit("\nFAILED: " + "; ".join(result.failures))
    print("\nNothing lost by the gateway, nothing doubled, nothing out of order.")


if __name__ == "__main__":
    main()
