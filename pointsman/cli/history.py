"""The past: which versions there were, what they changed, how to go back to one, and who did what."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pointsman.cli.errors import Ended, ExitCode, Fault
from pointsman.cli.files import ExpectVersion
from pointsman.cli.json_values import Json, JsonObject, as_number, as_object, as_objects, as_text
from pointsman.cli.output import Output, Table, local_time
from pointsman.cli.session import session_of
from pointsman.cli.waiting import outcome_of, report

SIZE = 20

_DONE = {"create": "created", "update": "updated", "delete": "deleted"}

Number = Annotated[int, typer.Argument(metavar="VERSION", min=0, help="The number of a version; 0 = nothing yet.")]
Size = Annotated[int, typer.Option("--size", min=1, max=1000, help="How many, newest first.")]


def history(context: typer.Context, size: Size = SIZE) -> None:
    """List the newest versions: when, who, from where, how many changes and the reason given."""
    session = session_of(context)
    body = as_object(session.client().get("/versions", {"size": str(size)}).body)
    versions = as_objects(body.get("data"))
    rows = [
        (
            as_text(version.get("version")),
            local_time(version.get("committed_at")),
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


def show(context: typer.Context, version: Number) -> None:
    """Show one version: who made it, when and why, and what it changed."""
    session = session_of(context)
    body = as_object(session.client().get(f"/versions/{version}").body)
    _print_changes(session.output, body)
    who = as_text(body.get("author")) or "-"
    reason = as_text(body.get("reason"))
    session.output.message(
        f"version {version}: {local_time(body.get('committed_at'))}, {who} by {as_text(body.get('source'))}"
        + (f', "{reason}"' if reason else "")
    )


def diff(
    context: typer.Context,
    version: Number,
    against: Annotated[
        int | None, typer.Argument(metavar="[AGAINST]", min=0, help="The other version; else the one before.")
    ] = None,
    non_zero_exit_code: Annotated[
        bool, typer.Option("--non-zero-exit-code", help="Exit with 2 if there are differences.")
    ] = False,
) -> None:
    """Show what is different in a version, compared with the one before it or any other."""
    session = session_of(context)
    query = {} if against is None else {"against": str(against)}
    body = as_object(session.client().get(f"/versions/{version}/diff", query).body)
    _print_changes(session.output, body)
    count = as_number(body.get("change_count")) or 0
    session.output.message(
        f"from version {as_text(body.get('against'))} to {version}: {_changes(count)}" if count else "no difference"
    )
    if count and non_zero_exit_code:
        raise Ended(ExitCode.DIFFERENCES)


def rollback(
    context: typer.Context,
    version: Number,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.")] = "",
    wait: Annotated[
        int | None,
        typer.Option("--wait", metavar="SECONDS", min=0, help="Wait until every live node runs the new version."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would change; change nothing.")] = False,
    expect_version: ExpectVersion = "",
) -> None:
    """Make the configuration what it was at a version. This is a new version: nothing of the history is lost."""
    session = session_of(context)
    started = time.monotonic()
    answer = session.client().request(
        "POST",
        f"/versions/{version}/rollback",
        query={"dry_run": "1"} if dry_run else None,
        wait_s=wait,
        reason=reason,
        expected=expect_version,
    )
    took_s = time.monotonic() - started
    body = as_object(answer.body)
    _print_changes(session.output, body)
    count = as_number(body.get("change_count")) or 0
    if dry_run:
        session.output.message(f"going back to version {version} would make {_changes(count)}")
        return
    if not count:
        session.output.message(f"the configuration is what it was at version {version} already")
        return
    session.output.message(f"version {answer.version}: as version {version} was, {_changes(count)}")
    if wait is not None:
        exit_code = report(session.output, outcome_of(answer), took_s)
        if exit_code is not ExitCode.DONE:
            raise Ended(exit_code)


def audit_list(context: typer.Context, size: Size = SIZE) -> None:
    """List the newest records of the audit trail: who did what, when, from where, and whether it was allowed."""
    session = session_of(context)
    body = as_object(session.client().get("/audit", {"size": str(size)}).body)
    records = as_objects(body.get("data"))
    rows = [
        (
            as_text(record.get("number")),
            local_time(record.get("at")),
            as_text(record.get("author")) or "-",
            as_text(record.get("address")),
            as_text(record.get("action")),
            as_text(record.get("outcome")),
            as_text(record.get("version")),
        )
        for record in records
    ]
    data: list[Json] = list(records)
    value: JsonObject = {"data": data, "next": body.get("next")}
    table = Table(("RECORD", "WHEN", "WHO", "FROM", "WHAT", "OUTCOME", "VERSION"), rows)
    session.output.data(value, table=table, names=[as_text(record.get("number")) for record in records])


def audit_verify(
    context: typer.Context,
    expect: Annotated[
        str, typer.Option("--expect", metavar="NUMBER:HASH", help="The newest record of an earlier verification.")
    ] = "",
) -> None:
    """Check that no record of the audit trail was altered, removed or put in. Exits with 1 if one was."""
    session = session_of(context)
    body = as_object(session.client().get("/audit/verify", {"expect": expect} if expect else {}).body)
    problems = as_objects(body.get("problems"))
    newest = as_text(body.get("newest"))
    table = Table(("RECORDS", "NEWEST"), [(as_text(body.get("records")), newest)])
    session.output.data(body, table=table, names=[newest])
    if problems:
        remedy = "compare the database with a backup; see docs/runbook.md, The audit trail"
        session.output.faults(
            ExitCode.ERROR, [Fault(as_text(problem.get("message")), "audit trail", remedy) for problem in problems]
        )
        raise Ended(ExitCode.ERROR)
    session.output.message("the audit trail is whole; note NEWEST elsewhere and give it as --expect next time")


def _print_changes(output: Output, body: JsonObject) -> None:
    changes = as_objects(body.get("changes"))
    rows = []
    for change in changes:
        operation = as_text(change.get("operation"))
        collection = as_text(change.get("collection")) or as_text(change.get("entity_type"))
        fields = [
            f"{as_text(field.get('field'))}: {_value(field, 'before')} -> {_value(field, 'after')}"
            for field in as_objects(change.get("fields"))
        ]
        name = as_text(change.get("name")) or as_text(change.get("id"))
        rows.append((_DONE.get(operation, operation), collection, name, fields[0] if fields else ""))
        rows += [("", "", "", line) for line in fields[1:]]
    names = [as_text(change.get("name")) or as_text(change.get("id")) for change in changes]
    output.data(body, table=Table(("DONE", "COLLECTION", "NAME", "FIELD"), rows), names=names)


def _changes(count: float) -> str:
    return "1 change" if count == 1 else f"{count:.0f} changes"


def _value(field: JsonObject, side: str) -> str:
    value = field.get(side)
    return "(none)" if value is None else as_text(value) or "(empty)"
