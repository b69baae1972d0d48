"""top: what the sides of services serve now, as the nodes count it, kept up to date on a terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pointsman.cli.client import AdminClient
from pointsman.cli.errors import ExitCode, RefusedRequest, failure
from pointsman.cli.json_values import Json, JsonObject, as_number, as_object, as_objects, as_text
from pointsman.cli.output import Format, Table
from pointsman.cli.session import session_of
from pointsman.cli.watching import watch_table

COLUMNS = ("SERVICE", "ROLE", "ASKED", "SEEN", "REQ/S", "ERR%", "P50", "P99", "OPEN", "COPIES")


def top(
    context: typer.Context,
    service: Annotated[str, typer.Argument(metavar="[SERVICE]", help="Name or id; without it, the busiest.")] = "",
    *,
    nodes: Annotated[bool, typer.Option("--nodes", help="A row for each node, too.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Show it once, on a terminal too.")] = False,
) -> None:
    """Show requests a second, errors and latencies of each side of services over the last ten seconds.

    On a terminal it is kept up to date until interrupted; elsewhere, and with -o json, it is shown once. Shares are in
    percent. A side whose role is `left` serves nothing new: its OPEN requests are what is left of it. COPIES are those
    sent to a mirror, and after the slash those that it did not answer.
    """
    session = session_of(context)
    client = session.client()
    found = _traffic(client, service)
    output = session.output
    if output.format is Format.TABLE and sys.stdout.isatty() and not once:
        watch_table(output, lambda: table(_traffic(client, service), nodes=nodes), told_by=len(COLUMNS), command="top")
        return
    services = as_objects(found.get("data"))
    output.data(found, table=table(found, nodes=nodes), names=[as_text(each.get("name")) for each in services])
    if not services:
        output.message("no traffic: the nodes have counted no request since they started")
    if omitted := as_number(found.get("omitted")):
        output.message(f"{omitted:g} more services are not shown; name one to see it")


def table(found: JsonObject, *, nodes: bool) -> Table:
    """A row a service, below it one a side, and below that one a node."""
    rows: list[tuple[str, ...]] = []
    for service in as_objects(found.get("data")):
        rows.append((as_text(service.get("name")), *[""] * (len(COLUMNS) - 1)))
        for side in as_objects(service.get("sides")):
            mirror = as_object(side.get("mirror"))
            copies = f"{as_text(mirror.get('sent'))}/{as_text(mirror.get('failed'))}" if mirror else ""
            shares = _percent(side.get("share_asked")), _percent(side.get("share_seen"))
            name, role = f"  {as_text(side.get('name'))}", as_text(side.get("role"))
            rows.append((name, role, *shares, *_figures(side), copies))
            rows += [
                (f"    {as_text(node.get('hostname'))}", "", "", "", *_figures(node), "")
                for node in (as_objects(side.get("nodes")) if nodes else ())
            ]
    return Table(COLUMNS, rows)


def _figures(figures: JsonObject) -> tuple[str, ...]:
    latency = as_object(figures.get("latency_ms"))
    rate = as_number(figures.get("requests_per_s"))
    return (
        "" if rate is None else f"{rate:.1f}",
        _percent(figures.get("error_ratio")),
        _milliseconds(latency.get("p50")),
        _milliseconds(latency.get("p99")),
        as_text(figures.get("open")),
    )


def _percent(value: Json) -> str:
    ratio = as_number(value)
    return "" if ratio is None else f"{ratio * 100:.2f}".rstrip("0").rstrip(".")


def _milliseconds(value: Json) -> str:
    ms = as_number(value)
    if ms is None:
        return ""
    return f"{ms:.1f}ms" if ms < 100 else f"{ms:.0f}ms" if ms < 10_000 else f"{ms / 1000:.0f}s"


def _traffic(client: AdminClient, service: str) -> JsonObject:
    try:
        return as_object(client.get("/fleet/traffic", {"service": service} if service else {}).body)
    except RefusedRequest as error:
        if error.status != 404 or not service:
            raise
        raise failure(
            ExitCode.NOT_FOUND,
            f"no service '{service}'",
            where="SERVICE",
            remedy="see what there is: pointsman service list",
        ) from error
