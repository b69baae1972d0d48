"""Configuration as files: sync, apply, diff, dump."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from pointsman.cli.client import AdminClient, Answer
from pointsman.cli.errors import CliError, Ended, ExitCode, Fault, RefusedRequest, failure
from pointsman.cli.json_values import JsonObject, as_number, as_object, as_objects, as_text
from pointsman.cli.output import Format, Output, Table
from pointsman.cli.session import session_of
from pointsman.cli.sources import Joined, masked, process_environment, read_sources
from pointsman.cli.waiting import outcome_of, report

Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE", help="Files, directories of files, or - for stdin.", show_default=False),
]
MoreFiles = Annotated[
    list[str] | None,
    typer.Option("--file", "-f", "--state", "-s", metavar="FILE", help="The same as an option; repeatable."),
]
SelectTags = Annotated[
    list[str] | None,
    typer.Option("--select-tag", metavar="TAG", help="Only entities with this tag are concerned; repeatable."),
]
Wait = Annotated[
    int | None,
    typer.Option("--wait", metavar="SECONDS", min=0, help="Wait until every live node runs the new version."),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.")]
_POSITION = re.compile(r"[0-9]{1,18}(-[0-9a-f]{8})?")


def _position(text: str) -> str:
    if text and not _POSITION.fullmatch(text):
        raise typer.BadParameter("expected a version like 7, or what diff tells as compared_with, like 7-1f2e3d4c")
    return text


ExpectVersion = Annotated[
    str,
    typer.Option(
        "--expect-version",
        metavar="VERSION",
        callback=_position,
        help="Refuse if others have written since this version, which diff tells; nobody's work is overwritten.",
    ),
]


def sync(
    context: typer.Context,
    files: Files = None,
    file: MoreFiles = None,
    select_tag: SelectTags = None,
    wait: Wait = None,
    reason: Reason = "",
    expect_version: ExpectVersion = "",
) -> None:
    """Make the gateway equal to the files: create, update, and delete what they do not name."""
    joined = _read(files, file)
    _write(context, "sync", joined, select_tag=select_tag, wait=wait, reason=reason, expected=expect_version)


def apply(
    context: typer.Context,
    files: Files = None,
    file: MoreFiles = None,
    select_tag: SelectTags = None,
    wait: Wait = None,
    reason: Reason = "",
    expect_version: ExpectVersion = "",
) -> None:
    """Merge the files into the gateway: only the properties given change, nothing is deleted."""
    joined = _read(files, file)
    _write(context, "apply", joined, select_tag=select_tag, wait=wait, reason=reason, expected=expect_version)


def diff(
    context: typer.Context,
    files: Files = None,
    file: MoreFiles = None,
    select_tag: SelectTags = None,
    as_apply: Annotated[bool, typer.Option("--apply", help="Show what `apply` would do, not `sync`.")] = False,
    non_zero_exit_code: Annotated[
        bool, typer.Option("--non-zero-exit-code", help="Exit with 2 if there are differences.")
    ] = False,
) -> None:
    """Show what sync would change; changes nothing."""
    session = session_of(context)
    query = {"mode": "apply" if as_apply else "sync", **_tags_query(select_tag)}
    joined = _read(files, file)
    answer = _send(session.client(), "diff", joined, query)
    summary = as_object(masked(answer.body, joined.filled_in))
    _print_summary(session.output, summary)
    changes = sum(int(as_number(summary.get(name)) or 0) for name in ("created", "updated", "deleted"))
    compared = as_number(summary.get("version"))
    against = f", compared with version {compared:.0f}" if compared is not None else ""
    session.output.message(_counts(summary, "to create", "to update", "to delete") + against)
    if changes and non_zero_exit_code:
        raise Ended(ExitCode.DIFFERENCES)


def validate(
    context: typer.Context, files: Files = None, file: MoreFiles = None, select_tag: SelectTags = None
) -> None:
    """Check files against all rules, and against what is in the gateway, as sync would; changes nothing."""
    session = session_of(context)
    joined = _read(files, file)
    answer = _send(session.client(), "sync", joined, {"dry_run": "1", **_tags_query(select_tag)})
    summary = as_object(answer.body)
    names = [source.name for source in joined.sources]
    session.output.data(
        {"valid": True, "files": list(names)},
        table=Table(("FILE", "STATE"), [(name, "valid") for name in names]),
        names=names,
    )
    session.output.message("a sync would leave: " + _counts(summary, "created", "updated", "deleted"))


def dump(
    context: typer.Context,
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="Where to write; - is stdout.")] = "-",
    *,
    select_tag: SelectTags = None,
    with_id: Annotated[bool, typer.Option("--with-id", help="Write ids of named entities too.")] = False,
    with_keys: Annotated[bool, typer.Option("--with-keys", help="Write the private keys of certificates.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Overwrite the file if it is there.")] = False,
) -> None:
    """Write the gateway's configuration as a file that sync reads back."""
    session = session_of(context)
    target = Path(file)
    if file != "-" and target.exists() and not yes:
        raise failure(ExitCode.CONFLICT, "the file exists", where=file, remedy="give --yes to overwrite it")
    form = "json" if session.output.format is Format.JSON or target.suffix == ".json" else "yaml"
    query = {"format": form, **_tags_query(select_tag), **({"with_ids": "true"} if with_id else {})}
    if with_keys:
        query["with_keys"] = "true"
    text = session.client().get("/config/dump", query).text
    if file == "-":
        session.output.text(text)
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise failure(ExitCode.ERROR, f"can't write the file: {error.strerror}", where=file) from error
    session.output.message(f"written to {file}")


def _read(arguments: list[str] | None, options: list[str] | None) -> Joined:
    """The files named as arguments, as decK has it today, then those by `-f`, or `-s` as it had. Raises CliError."""
    names = [*(arguments or ()), *(options or ())]
    if not names:
        raise typer.BadParameter("name at least one file, a directory of files, or - for stdin", param_hint="FILE")
    return read_sources(names, process_environment())


def _write(
    context: typer.Context,
    verb: str,
    joined: Joined,
    *,
    select_tag: list[str] | None,
    wait: int | None,
    reason: str,
    expected: str,
) -> None:
    session = session_of(context)
    started = time.monotonic()
    answer = _send(
        session.client(), verb, joined, _tags_query(select_tag), wait_s=wait, reason=reason, expected=expected
    )
    took_s = time.monotonic() - started
    summary = as_object(masked(answer.body, joined.filled_in))
    _print_summary(session.output, summary)
    version = f"version {answer.version}: " if answer.version is not None else ""
    session.output.message(version + _counts(summary, "created", "updated", "deleted"))
    if wait is not None:
        exit_code = report(session.output, outcome_of(answer), took_s)
        if exit_code is not ExitCode.DONE:
            raise Ended(exit_code)


def _send(
    client: AdminClient,
    verb: str,
    joined: Joined,
    query: dict[str, str],
    *,
    wait_s: int | None = None,
    reason: str = "",
    expected: str = "",
) -> Answer:
    try:
        return client.request(
            "POST",
            f"/config/{verb}",
            query=query,
            content=joined.text.encode(),
            content_type=joined.content_type,
            wait_s=wait_s,
            reason=reason,
            expected=expected,
        )
    except RefusedRequest as error:
        raise _with_places(error, joined) from error


def _with_places(error: RefusedRequest, joined: Joined) -> CliError:
    """A refused file's problems, each with the file and line it is at."""
    body = as_object(error.body)
    problems = as_objects(body.get("problems"))
    if not problems:
        return error
    faults = [_fault(problem, joined) for problem in problems]
    omitted = as_number(body.get("problems_omitted"))
    if omitted:
        faults.append(Fault(f"{omitted:.0f} more problems are not listed", "", "correct these first"))
    return CliError(error.exit_code, faults)


def _fault(problem: JsonObject, joined: Joined) -> Fault:
    line = as_number(problem.get("line"))
    entity = as_text(problem.get("entity_type"))
    if name := as_text(problem.get("entity_name")):
        entity = f"{entity} '{name}'"
    field = as_text(problem.get("field"))
    parts = (
        joined.place(int(line)) if line is not None else joined.sources[0].name if len(joined.sources) == 1 else "",
        as_text(problem.get("path")),
        entity,
        f"field {field}" if field else "",
    )
    return Fault(
        as_text(problem.get("message")), ", ".join(part for part in parts if part), as_text(problem.get("remedy"))
    )


def _tags_query(select_tag: list[str] | None) -> dict[str, str]:
    return {"select_tags": ",".join(select_tag)} if select_tag else {}


def _print_summary(output: Output, summary: JsonObject) -> None:
    changes = as_objects(summary.get("changes"))
    rows = []
    for change in changes:
        done = {"create": "created", "update": "updated", "delete": "deleted"}
        operation = as_text(change.get("operation"))
        parent = as_object(change.get("parent"))
        below = ", ".join(f"{kind} {name}" for kind, name in parent.items())
        row = (
            done.get(operation, operation),
            as_text(change.get("entity_type")),
            as_text(change.get("name")) or as_text(change.get("id")),
            below,
        )
        fields = as_objects(change.get("fields"))
        shown = [
            f"{as_text(field.get('field'))}: {_value(field, 'before')} -> {_value(field, 'after')}" for field in fields
        ]
        rows.append((*row, shown[0] if shown else ""))
        rows += [("", "", "", "", line) for line in shown[1:]]
    names = [as_text(change.get("name")) or as_text(change.get("id")) for change in changes]
    output.data(summary, table=Table(("CHANGE", "TYPE", "NAME", "OF", "FIELDS"), rows), names=names)
    omitted = as_number(summary.get("omitted"))
    if omitted:
        output.message(f"... and {omitted:.0f} more changes")


def _value(field: JsonObject, side: str) -> str:
    value = field.get(side)
    return "(none)" if value is None else as_text(value) or "(empty)"


def _counts(summary: JsonObject, created: str, updated: str, deleted: str) -> str:
    number = {
        name: f"{as_number(summary.get(name)) or 0:.0f}" for name in ("created", "updated", "deleted", "unchanged")
    }
    return (
        f"{number['created']} {created}, {number['updated']} {updated}, {number['deleted']} {deleted}, "
        f"{number['unchanged']} unchanged"
    )
