"""events: what happens in the fleet, line by line as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from pointsman.cli.client import AdminClient
from pointsman.cli.errors import CliError, ExitCode, RefusedRequest, failure
from pointsman.cli.json_values import JsonObject, as_object, as_objects, as_text
from pointsman.cli.output import Format, local_time
from pointsman.cli.session import session_of
from pointsman.cli.waiting import seconds, short_id

IDLE_S = 40.0
"""Longer than the control plane is ever silent."""
AGAIN_S = 1.0


def events(
    context: typer.Context,
    types: Annotated[
        str, typer.Option("--types", metavar="TYPES", help="Only these, by commas: version, node, rollout, switch.")
    ] = "",
    after: Annotated[
        str, typer.Option("--after", metavar="ID", help="Begin behind this event; 0 = with all that are kept.")
    ] = "",
    count: Annotated[int | None, typer.Option("--count", metavar="N", min=1, help="End after so many.")] = None,
) -> None:
    """Follow what happens: writes, nodes that come and go, rollouts and switches with each of their steps.

    Goes on until it is interrupted, also over restarts of the control plane. With -o json: one object a line.
    """
    session = session_of(context)
    output = session.output
    if output.format not in (Format.TABLE, Format.JSON):
        raise failure(
            ExitCode.USAGE, "events are lines", where="-o", remedy="`-o json` gives one object a line, `-o table` text"
        )
    for number, event in enumerate(_events(session.client(), types, after, tell=output.message), 1):
        data = as_object(event.get("data"))
        if output.format is Format.JSON:
            output.line(json.dumps(event, ensure_ascii=not output.utf8))
        else:
            kind = as_text(event.get("type"))
            output.line(f"{local_time(event.get('at'))}  {kind:<8}{_told(kind, data)}")
        if number == count:
            return


def _events(client: AdminClient, types: str, after: str, *, tell: Callable[[str], None]) -> Iterator[JsonObject]:
    """Comes back by itself when the control plane went away, behind what was seen last."""
    first = True
    while True:
        query = {name: value for name, value in (("types", types), ("after", after)) if value}
        try:
            for line in client.lines("/events", query, idle_s=IDLE_S):
                first = False
                if line.startswith("data:"):
                    event = as_object(json.loads(line[5:]))
                    after = as_text(event.get("id"))
                    yield event
        except RefusedRequest:
            raise
        except CliError:
            if first:
                raise
        if first:
            raise failure(ExitCode.ERROR, "the control plane ended the stream at once", where=client.address)
        tell("the stream of events is interrupted; trying again")
        time.sleep(AGAIN_S)


def _told(kind: str, data: JsonObject) -> str:
    """One event in words."""
    match kind:
        case "version":
            count = as_text(data.get("change_count"))
            return f"{as_text(data.get('version'))}: {count} changed{_why(data)}"
        case "node":
            text = f"{as_text(data.get('hostname'))} ({short_id(data)}) {as_text(data.get('state'))}"
            faults = data.get("faults")
            told = "; ".join(as_text(fault) for fault in faults) if isinstance(faults, list) else ""
            reason = told or as_text(data.get("reason"))
            return f"{text}: {reason}" if reason else text
        case "switch":
            moves = ", ".join(
                f"{as_text(move.get('name'))} {as_text(move.get('from'))} -> {as_text(move.get('to'))}"
                for move in as_objects(data.get("services"))
            )
            return f"{as_text(data.get('switch'))} {_state(data)}: {moves}{_why(data)}"
        case "rollout":
            return f"{as_text(data.get('rollout'))} {_state(data)}{_why(data)}"
        case _:
            missed = data.get("missed")
            return f"{as_text(missed) if missed is not None else 'some'} events are not kept any more"


def _state(data: JsonObject) -> str:
    parts = [as_text(data.get("state"))]
    if because := as_text(data.get("ended_because")):
        parts.append(f"({because})")
    if data.get("begins_at") is not None:
        parts.append(f"for {local_time(data.get('begins_at'))}")
    if data.get("took_s") is not None:
        parts.append(f"in {seconds(data.get('took_s'))}")
    if data.get("step") is not None:
        parts.append(f"step {as_text(data.get('step'))}, {as_text(data.get('share_percent'))} %")
    if data.get("broken_gate") is not None:
        parts.append(f"for {as_text(data.get('broken_gate'))}")
    if data.get("safe_to_tear_down") is True:
        parts.append("and the old side is at rest")
    return " ".join(parts)


def _why(data: JsonObject) -> str:
    author, reason = as_text(data.get("author")), as_text(data.get("reason"))
    return (f" by {author}" if author else "") + (f' "{reason}"' if reason else "")
