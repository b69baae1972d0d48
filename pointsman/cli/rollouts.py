"""rollout: what was brought to all nodes at one instant, who voted how, and how each node did."""

from __future__ import annotations

from typing import Annotated

import typer

from pointsman.cli.client import AdminClient
from pointsman.cli.errors import Ended, ExitCode, RefusedRequest, failure
from pointsman.cli.files import Reason
from pointsman.cli.json_values import Json, JsonObject, as_number, as_object, as_objects, as_text
from pointsman.cli.output import Table
from pointsman.cli.session import session_of
from pointsman.cli.waiting import node_name, seconds, short_id

SIZE = 20

Number = Annotated[int, typer.Argument(metavar="ROLLOUT", min=1, help="Number of the rollout.")]


def rollout_list(
    context: typer.Context,
    size: Annotated[int, typer.Option("--size", min=1, max=100, help="How many, newest first.")] = SIZE,
) -> None:
    """List the newest rollouts: what they changed, how they ended and how long they took."""
    session = session_of(context)
    found = as_objects(as_object(session.client().get("/fleet/rollouts", {"size": str(size)}).body).get("data"))
    rows = [
        (
            as_text(view.get("rollout")),
            as_text(view.get("state")),
            as_text(view.get("version")),
            _changed(view),
            seconds(view.get("took_s")),
            _milliseconds(view.get("skew_us")),
            as_text(view.get("author")) or "-",
            as_text(view.get("reason")) or as_text(view.get("why")),
        )
        for view in found
    ]
    data: list[Json] = list(found)
    table = Table(("ROLLOUT", "STATE", "VERSION", "CHANGES", "TOOK", "SKEW", "WHO", "REASON"), rows)
    session.output.data({"data": data}, table=table, names=[as_text(view.get("rollout")) for view in found])
    if not found:
        session.output.message("nothing has been rolled out yet")


def rollout_show(context: typer.Context, number: Number) -> None:
    """Show one rollout with each node's vote, when it activated and how late it was.

    Exits 0 when every node confirmed or it is on its way, 7 when it is partial, 4 when it was aborted.
    """
    session = session_of(context)
    view = _view(session.client(), number)
    nodes = as_objects(view.get("nodes"))
    session.output.message(headline(view))
    session.output.data(view, table=nodes_of(view), names=[as_text(node.get("node_id")) for node in nodes])
    elsewhere = view.get("elsewhere")
    if isinstance(elsewhere, list) and elsewhere:
        hosts = ", ".join(as_text(each) for each in elsewhere)
        session.output.message(f"not asked, because they are at other control planes: {hosts}")
    for line in drained_lines(view):
        session.output.message(line)
    exit_code = exit_code_of(view)
    if exit_code is not ExitCode.DONE:
        raise Ended(exit_code)


def rollout_abort(context: typer.Context, number: Number, reason: Reason = "") -> None:
    """End a rollout that is not decided yet; nothing of it has happened then."""
    session = session_of(context)
    client = session.client()
    _view(client, number)
    view = as_object(client.write_json("POST", f"/fleet/rollouts/{number}/abort", {}, reason=reason).body)
    session.output.message(headline(view))


def headline(view: JsonObject) -> str:
    """A rollout in one line."""
    parts = [f"rollout {as_text(view.get('rollout'))}: {as_text(view.get('state'))}"]
    if view.get("version") is not None:
        parts.append(f"version {as_text(view.get('version'))}")
    if view.get("took_s") is not None:
        parts.append(f"took {seconds(view.get('took_s'))}")
    if view.get("skew_us") is not None:
        parts.append(f"nodes at most {_milliseconds(view.get('skew_us'))} apart")
    if reason := as_text(view.get("reason")):
        parts.append(reason)
    return ", ".join(parts)


def nodes_of(view: JsonObject) -> Table:
    """The table of proof: one line a node."""
    rows = []
    for node in as_objects(view.get("nodes")):
        vote = as_object(node.get("vote") or {})
        checks = as_objects(vote.get("upstreams") or [])
        late = node.get("late_us")
        latest = max((as_number(each) or 0 for each in late), default=None) if isinstance(late, list) else None
        rows.append(
            (
                node_name(node),
                short_id(node),
                as_text(node.get("standing")),
                as_text(vote.get("vote")),
                seconds(vote.get("took_s")),
                ", ".join(f"{as_text(c.get('healthy'))}/{as_text(c.get('targets'))}" for c in checks),
                ", ".join(as_text(c.get("connections")) for c in checks),
                _milliseconds(latest),
                _milliseconds(node.get("clock_error_us")),
                as_text(node.get("reason")),
            )
        )
    columns = ("NODE", "ID", "STATE", "VOTE", "PREPARED IN", "HEALTHY", "CONNECTED", "LATE", "CLOCK +-", "REASON")
    return Table(columns, rows)


def drained_lines(view: JsonObject) -> list[str]:
    """What is known of the upstreams that lost their traffic."""
    lines = []
    for each in as_objects(view.get("drained") or []):
        name = as_text(each.get("upstream"))
        if each.get("safe_to_tear_down"):
            lines.append(f"upstream {name}: nothing is open on any node and no service points there: safe to tear down")
            continue
        used, waiting = each.get("still_used_by"), each.get("waiting_for")
        if isinstance(used, list) and used:
            lines.append(f"upstream {name}: still used by {', '.join(as_text(service) for service in used)}")
        elif isinstance(waiting, list) and waiting:
            lines.append(f"upstream {name}: not counted yet by {', '.join(as_text(node) for node in waiting)}")
        else:
            lines.append(f"upstream {name}: {as_text(each.get('in_flight'))} requests are open")
    return lines


def exit_code_of(view: JsonObject) -> ExitCode:
    """How a rollout ended, for the shell."""
    match view.get("state"):
        case "aborted":
            return ExitCode.CONFLICT
        case "partial":
            return ExitCode.PARTIAL_FLEET
        case _:
            return ExitCode.DONE


def _view(client: AdminClient, number: int) -> JsonObject:
    try:
        return as_object(client.get(f"/fleet/rollouts/{number}").body)
    except RefusedRequest as error:
        if error.status != 404:
            raise
        raise failure(
            ExitCode.NOT_FOUND,
            f"no rollout {number}",
            where="ROLLOUT",
            remedy="see what there is: pointsman rollout list",
        ) from error


def _changed(view: JsonObject) -> str:
    changes = as_objects(view.get("changes") or [])
    words = ("operation", "collection", "name")
    first = [" ".join(as_text(change.get(word)) for word in words) for change in changes[:2]]
    more = f" and {len(changes) - 2} more" if len(changes) > 2 else ""
    return ", ".join(first) + more


def _milliseconds(microseconds: Json) -> str:
    number = as_number(microseconds)
    return "" if number is None else f"{number / 1000:.1f} ms"
