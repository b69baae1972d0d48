"""nodes and status: what runs where."""

from __future__ import annotations

from typing import Annotated

import typer

from pointsman.cli.json_values import Json, JsonObject, as_object, as_objects, as_text
from pointsman.cli.output import Table
from pointsman.cli.session import session_of
from pointsman.cli.waiting import fleet_nodes, nodes_table
from pointsman.cli.watching import watch_table


def nodes(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing until interrupted.")] = False,
) -> None:
    """List the fleet: the version each node has proved to run, its state and when it was last heard of."""
    session = session_of(context)
    client = session.client()
    if watch:
        watch_table(session.output, lambda: nodes_table(fleet_nodes(client)), told_by=3, command="nodes")
        return
    found = fleet_nodes(client)
    data: list[Json] = list(found)
    names = [as_text(node.get("node_id")) for node in found]
    session.output.data({"data": data}, table=nodes_table(found), names=names)
    if not found:
        session.output.message("no node has connected yet; start one with `pointsman data-plane`")


def status(context: typer.Context) -> None:
    """Show how the control plane is: its version, its store, the newest version and how much of the fleet runs it."""
    session = session_of(context)
    client = session.client()
    root = as_object(client.get("/").body)
    state = as_object(client.get("/status").body)
    newest = as_objects(as_object(client.get("/versions", {"size": "1"}).body).get("data"))
    found = fleet_nodes(client)
    head = newest[0].get("version") if newest else 0
    by_state: dict[str, int] = {}
    for node in found:
        word = as_text(node.get("state"))
        by_state[word] = by_state.get(word, 0) + 1
    counts: JsonObject = dict(by_state)
    value: JsonObject = {
        "address": client.address,
        "kong_version": root.get("version"),
        "node_id": root.get("node_id"),
        "store_reachable": as_object(state.get("database")).get("reachable"),
        "version": head,
        "nodes": {"total": len(found), "by_state": counts},
    }
    fleet = ", ".join(f"{number} {word}" for word, number in sorted(by_state.items())) or "no nodes"
    rows = [
        ("control plane", client.address),
        ("speaks as Kong", as_text(root.get("version"))),
        ("store reachable", as_text(value["store_reachable"])),
        ("newest version", as_text(head)),
        ("fleet", fleet),
    ]
    session.output.data(value, table=Table(("WHAT", "IS"), rows), names=[client.address])
