"""trace: which route a request would get, why others lost, and what would go upstream. A live node answers."""

from __future__ import annotations

from typing import Annotated

import typer

from pointsman.cli.errors import Ended, ExitCode, RefusedRequest, failure
from pointsman.cli.json_values import Json, JsonObject, as_object, as_objects, as_text
from pointsman.cli.output import Format, Output, Table
from pointsman.cli.session import session_of


def trace(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help="The request's method.")],
    url: Annotated[str, typer.Argument(help="Its URL, as a client would write it.")],
    *,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="A header field, `name: value`; may be repeated.")
    ] = None,
    sni: Annotated[str, typer.Option("--sni", help="The TLS server name; an https URL's host when left out.")] = "",
    node: Annotated[str, typer.Option("--node", help="Id or host name of the node to ask; any when left out.")] = "",
) -> None:
    """Ask a live node what would become of a request: the route that wins, those that came close, what goes upstream.

    Nothing is sent to any upstream. Ends with 3 when no route matches.
    """
    question: JsonObject = {"method": method, "url": url}
    if header:
        question["headers"] = _headers(header)
    if sni:
        question["sni"] = sni
    if node:
        question["node"] = node
    session = session_of(context)
    try:
        answer = as_object(session.client().write_json("POST", "/fleet/trace", question).body)
    except RefusedRequest as refused:
        if refused.status in (503, 504):
            what = refused.faults[0].what
            raise failure(ExitCode.ERROR, what, remedy="see which nodes there are with `pointsman nodes`") from None
        raise
    route = as_object(answer.get("route"))
    name = as_text(route.get("name")) or as_text(route.get("id"))
    output = session.output
    if output.format is Format.TABLE:
        _show(output, answer, name)
    else:
        output.data(answer, table=Table((), ()), names=[name] if name else [])
    if not name:
        raise Ended(ExitCode.NOT_FOUND)


def _headers(lines: list[str]) -> JsonObject:
    headers: dict[str, list[Json]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise failure(ExitCode.USAGE, f"'{line}' is no header field", where="-H", remedy="write it as name:value")
        headers.setdefault(name.strip(), []).append(value.strip())
    return {name: values[0] if len(values) == 1 else values for name, values in headers.items()}


def _show(output: Output, answer: JsonObject, name: str) -> None:
    """What was decided, as lines; then the endpoints, then what came close."""
    node = as_object(answer.get("node"))
    route = as_object(answer.get("route"))
    service = as_object(route.get("service"))
    upstream = as_object(answer.get("upstream"))
    rows = [
        ("node", as_text(node.get("hostname"))),
        ("version", as_text(answer.get("version"))),
        ("path", as_text(answer.get("path"))),
        ("route", name or f"none of {as_text(answer.get('routes'))}"),
        ("service", as_text(service.get("name")) or as_text(service.get("id"))),
    ]
    if answer.get("matched_path"):
        rows.append(("stripped", as_text(answer.get("matched_path"))))
    if answer.get("captures"):
        rows.append(("captures", as_text(answer.get("captures"))))
    if answer.get("status") is not None:
        rows.append(("answer", f"{as_text(answer.get('status'))} {as_text(answer.get('message'))}".rstrip()))
    if upstream:
        rows += [
            ("sends", f"{as_text(upstream.get('method'))} {as_text(upstream.get('path'))}"),
            ("host", as_text(upstream.get("host")) or "see the endpoints"),
            ("by", as_text(upstream.get("protocol"))),
            ("upstream", as_text(upstream.get("name")) or "the service's own host"),
        ]
        if upstream.get("error"):
            rows.append(("problem", as_text(upstream.get("error"))))
    output.table(Table(("WHAT", "IS"), [row for row in rows if row[1]]))
    endpoints = as_objects(upstream.get("endpoints"))
    if endpoints:
        output.text("\n")
        output.table(_endpoints_table(endpoints))
    near = as_objects(answer.get("near"))
    if near:
        output.text("\n")
        output.table(_near_table(near))


def _endpoints_table(endpoints: list[JsonObject]) -> Table:
    rows = [
        (
            f"{as_text(endpoint.get('ip'))}:{as_text(endpoint.get('port'))}",
            as_text(endpoint.get("host_sent")),
            as_text(endpoint.get("weight")),
            as_text(endpoint.get("available")),
            as_text(endpoint.get("in_flight")),
        )
        for endpoint in endpoints
    ]
    return Table(("ENDPOINT", "HOST", "WEIGHT", "AVAILABLE", "IN FLIGHT"), rows)


def _near_table(near: list[JsonObject]) -> Table:
    rows: list[tuple[str, str]] = []
    for each in near:
        route = as_object(each.get("route"))
        name = as_text(route.get("name")) or as_text(route.get("id"))
        failures = as_objects(each.get("failures"))
        reasons = [
            f"{as_text(failure.get('field'))}: wants {as_text(failure.get('wants'))},"
            f" has {as_text(failure.get('has')) or 'nothing'}"
            for failure in failures
        ] or [f"matches too; {as_text(each.get('outranked'))}"]
        rows += [(name if not number else "", reason) for number, reason in enumerate(reasons)]
    return Table(("CAME CLOSE", "AND LOST BECAUSE"), rows)
