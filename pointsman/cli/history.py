"""history: the versions, who made them, when and why."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from pointsman.cli.json_values import Json, JsonObject, as_number, as_object, as_objects, as_text
from pointsman.cli.output import Table
from pointsman.cli.session import session_of

SIZE = 20


def history(
    context: typer.Context,
    size: Annotated[int, typer.Option("--size", min=1, max=1000, help="How many versions, newest first.")] = SIZE,
) -> None:
    """List the newest versions: when, who, from where, how many changes and the reason given."""
    session = session_of(context)
    body = as_object(session.client().get("/versions", {"size": str(size)}).body)
    versions = as_objects(body.get("data"))
    rows = [
        (
            as_text(version.get("version")),
            _when(version.get("committed_at")),
            as_text(version.get("author")) or "-",
            as_text(version.get("source")),
            as_text(version.get("change_count")),
            as_text(version.get("reason")),
        )
        for version in versions
    ]
    data: list[Json] = list(versions)
    value: JsonObject = {"data": data, "next": body.get("next")}
    table = Table(("VERSION", "WHEN", "WHO", "SOURCE", "CHANGES", "REASON"), rows)
    session.output.data(value, table=table, names=[as_text(version.get("version")) for version in versions])
    if not versions:
        session.output.message("nothing has been written yet")


def _when(value: Json) -> str:
    """A time of the wire, in the operator's own zone."""
    number = as_number(value)
    return datetime.fromtimestamp(number).astimezone().strftime("%Y-%m-%d %H:%M:%S") if number is not None else ""
