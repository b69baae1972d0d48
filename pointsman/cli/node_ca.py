"""ca: the CA that nodes are known by, and changing it for a new one."""

from __future__ import annotations

import typer

from pointsman.cli.json_values import JsonObject, as_object, as_objects, as_text
from pointsman.cli.output import Table, local_time
from pointsman.cli.session import Session, session_of


def show(context: typer.Context) -> None:
    """Show the CA: its fingerprint, until when it is good, and which nodes a rotation waits for."""
    session = session_of(context)
    _shown(session, as_object(session.client().get("/fleet/ca").body))


def rotate(context: typer.Context) -> None:
    """Begin to change the CA for a new one. Nodes that are connected follow by themselves, within seconds."""
    session = session_of(context)
    _shown(session, as_object(session.client().write_json("POST", "/fleet/ca/rotate", {}).body))
    session.output.message("join tokens made before the new CA signs are no good afterwards; make new ones then")


def advance(context: typer.Context) -> None:
    """Take the rotation's next step now. Nodes that are missing will need a new join token."""
    session = session_of(context)
    _shown(session, as_object(session.client().write_json("POST", "/fleet/ca/advance", {}).body))


def _shown(session: Session, body: JsonObject) -> None:
    found, missing = as_objects(body.get("authorities")), as_objects(body.get("missing"))
    rows = [
        (
            as_text(each.get("place")),
            as_text(each.get("fingerprint")),
            local_time(each.get("since")),
            local_time(each.get("not_after")),
        )
        for each in found
    ]
    table = Table(("CA", "FINGERPRINT", "SINCE", "GOOD UNTIL"), rows)
    session.output.data(body, table=table, names=[as_text(each.get("fingerprint")) for each in found])
    session.output.message(f"the rotation is {as_text(body.get('state'))}")
    for node in missing:
        until = local_time(node.get("until"))
        session.output.message(f"it waits for node {as_text(node.get('node_id'))}, until {until} at most")
