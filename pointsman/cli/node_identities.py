"""join-token and node: who may be a node of this fleet."""

from __future__ import annotations

from typing import Annotated

import typer

from pointsman.cli import completion
from pointsman.cli.client import segment
from pointsman.cli.errors import ExitCode, failure
from pointsman.cli.json_values import JsonObject, as_object, as_objects, as_text
from pointsman.cli.output import Table, local_time
from pointsman.cli.session import session_of
from pointsman.cli.tokens import seconds

Node = Annotated[str, typer.Argument(metavar="NODE", help="Id of the node.", autocompletion=completion.NODES)]


def create(
    context: typer.Context,
    ttl: Annotated[str, typer.Option("--ttl", help="How long nodes may join with it: 30m, 1h, 2d.")] = "1h",
    uses: Annotated[int, typer.Option("--uses", help="How many nodes may join with it.", min=1)] = 1,
    labels: Annotated[str, typer.Option("--labels", help="Labels that these nodes get: zone=a,rack=7.")] = "",
) -> None:
    """Make a join token. It is printed once, on stdout; only its hash is kept."""
    session = session_of(context)
    named: JsonObject = {}
    for pair in filter(None, labels.split(",")):
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise failure(ExitCode.USAGE, f"'{pair}' is no label", where="--labels", remedy="write it like zone=a")
        named[name] = value
    body: JsonObject = {"ttl_s": seconds(ttl), "uses": uses, "labels": named}
    made = as_object(session.client().write_json("POST", "/fleet/join-tokens", body).body)
    text = as_text(made.get("token"))
    session.output.data(made, table=Table(("TOKEN",), [(text,)]), names=[text])
    session.output.message("start the node with it: POINTSMAN_JOIN=... pointsman data-plane; it can't be shown again")


def list_tokens(context: typer.Context) -> None:
    """List the join tokens: which are good, until when, and how many nodes joined with each."""
    session = session_of(context)
    body = as_object(session.client().get("/fleet/join-tokens").body)
    found = as_objects(body.get("data"))
    rows = []
    for token in found:
        used_by = token.get("used_by")
        used = len(used_by) if isinstance(used_by, list) else 0
        labels = ",".join(f"{name}={as_text(value)}" for name, value in as_object(token.get("labels")).items())
        rows.append(
            (
                as_text(token.get("id")),
                as_text(token.get("state")),
                f"{used}/{as_text(token.get('uses'))}",
                local_time(token.get("created_at")),
                local_time(token.get("expires_at")),
                labels,
            )
        )
    table = Table(("ID", "STATE", "USED", "CREATED", "EXPIRES", "LABELS"), rows)
    session.output.data(body, table=table, names=[as_text(token.get("id")) for token in found])
    if not found:
        session.output.message("there are no join tokens; make one with `pointsman join-token create`")


def revoke_token(context: typer.Context, token: Annotated[str, typer.Argument(help="Id of the token.")]) -> None:
    """End a join token at once. Nodes that joined with it stay."""
    session = session_of(context)
    session.client().request("DELETE", f"/fleet/join-tokens/{segment(token)}")
    session.output.message(f"revoked {token}")


def revoke(context: typer.Context, node: Node) -> None:
    """Shut a node out: its stream is closed, and it gets no certificate any more. It goes on serving what it has."""
    session = session_of(context)
    session.client().write_json("POST", f"/fleet/nodes/{segment(node)}/revoke", {})
    session.output.message(f"revoked {node}; it serves on what it has, so stop it too")


def approve(context: typer.Context, node: Node) -> None:
    """Let a node in again that was revoked. It is back within minutes, or at once when it is restarted."""
    session = session_of(context)
    session.client().write_json("POST", f"/fleet/nodes/{segment(node)}/approve", {})
    session.output.message(f"approved {node}")


def refused(context: typer.Context) -> None:
    """List whoever was not let in as a node, the last first, with the reason and what to do."""
    session = session_of(context)
    body = as_object(session.client().get("/fleet/refusals").body)
    found = as_objects(body.get("data"))
    rows = [
        (
            as_text(each.get("node_id")),
            as_text(each.get("hostname")),
            as_text(each.get("address")),
            as_text(each.get("reason")),
            as_text(each.get("times")),
            local_time(each.get("last_at")),
            as_text(each.get("message")),
        )
        for each in found
    ]
    table = Table(("ID", "NODE", "ADDRESS", "REASON", "TIMES", "LAST", "MESSAGE"), rows)
    session.output.data(body, table=table, names=[as_text(each.get("node_id")) for each in found])
    if not found:
        session.output.message("nobody was refused since this control plane started")
