"""context: control planes by name (`contexts.py`)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from pointsman.cli.contexts import Contexts, Target, contexts_path, read_contexts, write_contexts
from pointsman.cli.errors import ExitCode, failure
from pointsman.cli.json_values import Json, JsonObject
from pointsman.cli.output import Table
from pointsman.cli.session import session_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The context's name.")]


def list_contexts(context: typer.Context) -> None:
    """List the contexts; the one in use has a star. Tokens are not shown."""
    session = session_of(context)
    found = read_contexts(contexts_path(os.environ))
    rows = [
        (
            "*" if name == found.used else "",
            name,
            target.address,
            "yes" if target.token else "no",
            target.ca_file,
            "yes" if target.read_only else "no",
        )
        for name, target in sorted(found.by_name.items())
    ]
    shown: list[Json] = [
        {
            "name": name,
            "used": name == found.used,
            "addr": target.address,
            "has_token": bool(target.token),
            "ca": target.ca_file or None,
            "read_only": target.read_only,
        }
        for name, target in sorted(found.by_name.items())
    ]
    value: JsonObject = {"data": shown}
    session.output.data(
        value,
        table=Table(("USED", "NAME", "ADDRESS", "TOKEN", "CA", "READ ONLY"), rows),
        names=sorted(found.by_name),
    )
    if not rows:
        session.output.message("there are no contexts; make one with `pointsman context set NAME --addr URL`")


def set_context(context: typer.Context, name: Name) -> None:
    """Keep the address, token and CA that are given (--addr, --token, --ca, --read-only) under a name.

    What is not given stays as it was. The first context is used from then on.
    """
    if not _NAME.match(name):
        raise failure(
            ExitCode.USAGE, f"'{name}' is not a name for a context", remedy="use letters, digits, '.', '_' and '-'"
        )
    session = session_of(context)
    path = contexts_path(os.environ)
    found = read_contexts(path)
    before, given = found.by_name.get(name), session.given
    address = given.address or (before.address if before else "")
    if not address:
        raise failure(ExitCode.USAGE, "a context needs an address", remedy="give it by --addr http://host:port")
    moved = before is not None and before.address != address
    kept = before if before is not None and not moved else Target(address)
    made = Target(
        address, given.token or kept.token, _absolute(given.ca_file) or kept.ca_file, given.read_only or kept.read_only
    )
    write_contexts(path, Contexts(found.used or name, {**found.by_name, name: made}))
    session.output.message(f"context '{name}' is {made.address}, kept in {path}")
    if before is not None and moved and before.token and not given.token:
        session.output.message("its token was for the former address and is gone; give the new one's by --token")


def use_context(context: typer.Context, name: Name) -> None:
    """Use a context from now on, where a command does not name another by --context or --addr."""
    path = contexts_path(os.environ)
    found = read_contexts(path)
    target = found.named(name)
    write_contexts(path, Contexts(name, found.by_name))
    session_of(context).output.message(f"using '{name}', {target.address}")


def delete_context(context: typer.Context, name: Name) -> None:
    """Forget a context and its token."""
    path = contexts_path(os.environ)
    found = read_contexts(path)
    found.named(name)
    left = {other: target for other, target in found.by_name.items() if other != name}
    write_contexts(path, Contexts("" if found.used == name else found.used, left))
    session_of(context).output.message(f"context '{name}' is forgotten")


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
