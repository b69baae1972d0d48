"""token and whoami: who may use the Admin API."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

import typer

from pointsman.cli.client import segment
from pointsman.cli.errors import ExitCode, failure
from pointsman.cli.json_values import JsonObject, as_number, as_object, as_objects, as_text
from pointsman.cli.moment import UNITS_S
from pointsman.cli.output import Table, local_time
from pointsman.cli.session import session_of


def create(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help="Whose token it is; the history shows it as the author.")],
    role: Annotated[str, typer.Option("--role", help="viewer, operator, editor or admin.")],
    ttl: Annotated[str, typer.Option("--ttl", help="How long it is good: 90d, 12h, 30m; without it, for ever.")] = "",
) -> None:
    """Make a token. It is printed once, on stdout; only its hash is kept."""
    session = session_of(context)
    body: JsonObject = {"name": name, "role": role}
    if ttl:
        body["ttl_s"] = seconds(ttl)
    made = as_object(session.client().write_json("POST", "/identity/tokens", body).body)
    text = as_text(made.get("token"))
    session.output.data(made, table=Table(("TOKEN",), [(text,)]), names=[text])
    session.output.message(f"give it to {name} by a safe way; it can't be shown again")


def list_tokens(context: typer.Context) -> None:
    """List the tokens: whose, what they may do, until when, and when they were used last."""
    session = session_of(context)
    body = as_object(session.client().get("/identity/tokens").body)
    found = as_objects(body.get("data"))
    rows = [
        (
            as_text(token.get("id")),
            as_text(token.get("name")),
            as_text(token.get("role")),
            _state(token),
            local_time(token.get("created_at")),
            local_time(token.get("expires_at")),
            local_time(token.get("last_used_at")),
        )
        for token in found
    ]
    table = Table(("ID", "NAME", "ROLE", "STATE", "CREATED", "EXPIRES", "LAST USED"), rows)
    session.output.data(body, table=table, names=[as_text(token.get("id")) for token in found])
    if not found:
        session.output.message("there are no tokens; who reaches this Admin API needs none")


def revoke(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="Id or name of the token.")],
) -> None:
    """End a token at once; with several control planes, within a second on all of them."""
    session = session_of(context)
    session.client().request("DELETE", f"/identity/tokens/{segment(token)}")
    session.output.message(f"revoked {token}")


def whoami(context: typer.Context) -> None:
    """Show whose token this is and what it may do."""
    session = session_of(context)
    body = as_object(session.client().get("/identity/self").body)
    name = as_text(body.get("name")) or "(no token)"
    role = as_text(body.get("role"))
    session.output.data(body, table=Table(("NAME", "ROLE"), [(name, role)]), names=[name])


def _state(token: JsonObject) -> str:
    if token.get("revoked_at") is not None:
        return "revoked"
    expires_at = as_number(token.get("expires_at"))
    return "expired" if expires_at is not None and expires_at <= datetime.now().astimezone().timestamp() else "good"


def seconds(text: str) -> int:
    """What `--ttl` says. Raises CliError."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise failure(ExitCode.USAGE, f"'{text}' is not a time", where="--ttl", remedy="write it like 90d, 12h or 30m")
    return int(found.group(1)) * UNITS_S[found.group(2)]
