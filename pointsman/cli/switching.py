"""switch: services to another upstream, on every node at one instant; and its plan, its undo, its history.

`pointsman switch shop --to green` is the verb itself; a word that is none of the commands below is a service.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from pointsman.cli import canary_options, canary_view, completion, moment, switch_view
from pointsman.cli.client import AdminClient
from pointsman.cli.errors import CliError, Ended, ExitCode, Fault, RefusedRequest, failure
from pointsman.cli.files import Reason
from pointsman.cli.json_values import Json, JsonObject, as_object, as_objects, as_text
from pointsman.cli.output import Format, Table
from pointsman.cli.session import Session, session_of
from pointsman.cli.waiting import seconds

WAIT_S = 30
WATCH_EVERY_S = 0.2
SIZE = 20
_NOTHING_MOVED = ("aborted", "scheduled", "cancelled", "refused", "missed")
VERB_WAIT_S = 3
"""What a canary may take to do as it is told, before its state is shown as it is then."""

Services = Annotated[
    list[str],
    typer.Argument(metavar="SERVICE...", help="Names or ids of services.", autocompletion=completion.SERVICES),
]
Service = Annotated[
    str,
    typer.Argument(metavar="SERVICE", help="Name or id of the service.", autocompletion=completion.SERVICES),
]
Which = Annotated[
    str,
    typer.Argument(
        metavar="SWITCH|SERVICE",
        help="Number of the canary, or a service it moves.",
        autocompletion=completion.SERVICES,
    ),
]
Number = Annotated[int, typer.Argument(metavar="SWITCH", min=1, help="Number of the switch.")]
To = Annotated[
    str,
    typer.Option("--to", metavar="UPSTREAM", help="The upstream that takes over.", autocompletion=completion.UPSTREAMS),
]
Wait = Annotated[int, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait for the end.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show it while it happens, until the old side is at rest.")]
MinHealthy = Annotated[
    float | None, typer.Option("--min-healthy", metavar="PERCENT", help="Of the new side's targets (75).")
]


def now(
    context: typer.Context,
    services: Services,
    to: To,
    wait: Annotated[
        int | None, typer.Option("--wait", metavar="SECONDS", min=0, help="For the end (30; a canary: as it takes).")
    ] = None,
    reason: Reason = "",
    *,
    min_healthy: MinHealthy = None,
    watch: Watch = False,
    force: Annotated[
        bool, typer.Option("--force", help="Pass over what the preflight finds of health; needs --reason.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="One plain write, without preflight or votes; nodes follow one by one.")
    ] = False,
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="Check and begin then: +10m, 22:30, 2026-11-28T22:30, ...Z.")
    ] = "",
    canary: Annotated[str, typer.Option("--canary", metavar="5,25,50,100", help="Step by step, in percent.")] = "",
    every: Annotated[
        str, typer.Option("--every", metavar="30s", help="How long a step stands; without it until it is promoted.")
    ] = "",
    sticky: Annotated[
        str, typer.Option("--sticky", metavar="header:NAME|cookie:NAME|ip", help="What keeps a client on its side.")
    ] = "",
    gate: Annotated[
        list[str] | None,
        typer.Option("--gate", metavar="errors=1%|connect=1%|p99=2x|none", help="What undoes the canary; repeatable."),
    ] = None,
    min_requests: Annotated[
        int | None, typer.Option("--min-requests", min=1, help="Before a side is judged (50).")
    ] = None,
    window: Annotated[str, typer.Option("--window", metavar="60s", help="What gates sum figures over, at most.")] = "",
    pass_after: Annotated[
        str,
        typer.Option("--pass-after", metavar="5m", help="A step with too few requests goes on after that."),
    ] = "",
) -> None:
    """Send services' traffic to another upstream: checked first, on every node at one instant, with the proof.

    With --canary step by step: both sides are compared meanwhile, and a new side that is worse takes everything back.

    Exits 0 when every node confirmed or it is kept for later, 4 when it was refused or aborted and nothing has changed,
    7 when some node lags, 6 when the time ran out and it goes on, 8 when a canary went back. With --quick: 6 and 7 say
    that the write stands and a node does not run it.
    """
    session = session_of(context)
    wish = canary_options.Wish(canary, every, sticky, tuple(gate or ()), min_requests, window, pass_after)
    if quick:
        other = watch or force or min_healthy is not None or wish.given or bool(at)
        _quickly(context, services, to, WAIT_S if wait is None else wait, reason, refused=other)
        return
    body: JsonObject = {"services": list[Json](services), "to": to, "reason": reason, "force": force}
    if min_healthy is not None:
        body["policy"] = {"min_healthy_percent": min_healthy}
    if at:
        if watch:
            raise failure(
                ExitCode.USAGE, "--watch shows what happens now", where="--at", remedy="leave one of them out"
            )
        body["at"] = moment.parsed(at, time.time())
    if wish.given:
        body["canary"] = wish.body()
        if at:
            _carry_out(session, "/switches", body, wait_s=0, watch=False)
            return
        _begin_canary(session, body, wait_s=wait)
        return
    _carry_out(session, "/switches", body, wait_s=WAIT_S if wait is None else wait, watch=watch)


def plan(
    context: typer.Context,
    services: Services,
    to: To,
    min_healthy: MinHealthy = None,
    *,
    ask_nodes: Annotated[
        bool, typer.Option("--ask-nodes", help="Let each node prepare it as far as its vote, then let go.")
    ] = False,
) -> None:
    """Show what a switch would do and what speaks against it; nothing happens.

    With --ask-nodes every node resolves the names, connects to each target of the new side, by TLS where the service
    speaks it, and says what it would vote.

    Exits 0 when it may be done and 4 when the preflight would refuse it.
    """
    session = session_of(context)
    body: JsonObject = {"services": list[Json](services), "to": to}
    if min_healthy is not None:
        body["policy"] = {"min_healthy_percent": min_healthy}
    try:
        path = "/switches?dry_run=1" + ("&ask_nodes=1" if ask_nodes else "")
        found = as_object(session.client().write_json("POST", path, body).body)
    except RefusedRequest as error:
        raise _explained(error) from error
    output = session.output
    for line in switch_view.plan_lines(found):
        output.message(line)
    targets = as_objects(as_object(found.get("new_side")).get("targets"))
    output.data(found, table=switch_view.plan_table(found), names=[as_text(each.get("target")) for each in targets])
    for line in switch_view.answer_lines(found):
        output.message(line)
    for warning in as_objects(found.get("warnings")):
        output.message(f"warning: {as_text(warning.get('what'))} ({as_text(warning.get('code'))})")
    if refusals := _faults(found.get("refusals")):
        output.faults(ExitCode.CONFLICT, refusals)
        raise Ended(ExitCode.CONFLICT)
    output.message(f"ready: pointsman switch {' '.join(services)} --to {to}")


def undo(
    context: typer.Context, service: Service, wait: Wait = WAIT_S, reason: Reason = "", *, watch: Watch = False
) -> None:
    """Go back to the side before the last switch of a service, with every service that it moved.

    The side is not checked: it was serving a moment ago. Nodes that are slow don't hold it up. Exits as `switch` does.
    """
    session = session_of(context)
    last = _last(session.client(), service, but_aborted=True)
    body: JsonObject = {"reason": reason} if reason else {}
    number = as_text(last.get("switch"))
    if canary_view.is_canary(last) and canary_view.is_open(last):
        _tell(session, number, "undo", body)
        return
    _carry_out(session, f"/switches/{number}/undo", body, wait_s=wait, watch=watch)


def history(
    context: typer.Context,
    service: Annotated[str, typer.Option("--service", metavar="SERVICE", help="Only those that moved it.")] = "",
    size: Annotated[int, typer.Option("--size", min=1, max=100, help="How many, newest first.")] = SIZE,
) -> None:
    """List switches: who moved what, why, and how it ended."""
    session = session_of(context)
    query = {"size": str(size), **({"service": service} if service else {})}
    found = as_objects(as_object(session.client().get("/switches", query).body).get("data"))
    rows = [
        (
            as_text(view.get("switch")),
            as_text(view.get("state")) + (", undone" if view.get("undone_by") is not None else ""),
            switch_view.moves(view),
            seconds(view.get("took_s")),
            as_text(view.get("author")) or "-",
            as_text(view.get("reason")),
        )
        for view in found
    ]
    data: list[Json] = list(found)
    table = Table(("SWITCH", "STATE", "MOVED", "TOOK", "WHO", "REASON"), rows)
    session.output.data({"data": data}, table=table, names=[as_text(view.get("switch")) for view in found])
    if not found:
        session.output.message("nothing has been switched yet")


def show(context: typer.Context, number: Number) -> None:
    """Show one switch with each node's proof.

    Exits 0 when every node confirmed, 6 while it is on its way, 7 when it is partial, 4 when it was aborted.
    """
    session = session_of(context)
    _finish(session, _view(session.client(), number), number)


def status(context: typer.Context, service: Service, wait: Wait = WAIT_S, *, watch: Watch = False) -> None:
    """Show the last switch of a service; with -w until the old side is at rest. Exits as `show` does."""
    session = session_of(context)
    view = _last(session.client(), service, but_aborted=False)
    number = int(as_text(view.get("switch")))
    if watch:
        _follow(session, number, wait_s=wait)
        return
    _finish(session, _view(session.client(), number), number)


def promote(
    context: typer.Context,
    switch: Which,
    to_step: Annotated[int | None, typer.Option("--to-step", min=1, help="Straight to this step.")] = None,
    reason: Reason = "",
    *,
    everything: Annotated[bool, typer.Option("--all", help="Straight to all requests.")] = False,
) -> None:
    """Bring a canary to its next step at once, without waiting for its time or its gates; ends a hold."""
    body: JsonObject = {"reason": reason} if reason else {}
    if to_step is not None:
        body["to_step"] = to_step
    if everything:
        body["all"] = True
    _tell(session_of(context), switch, "promote", body)


def hold(context: typer.Context, switch: Which, reason: Reason = "") -> None:
    """Keep a canary on its step until it is promoted. Its gates go on watching."""
    _tell(session_of(context), switch, "hold", {"reason": reason} if reason else {})


def abort(context: typer.Context, switch: Which, reason: Reason = "") -> None:
    """End a canary: all requests back to the old side. Or take back a switch that was to begin later."""
    _tell(session_of(context), switch, "abort", {"reason": reason} if reason else {})


def _tell(session: Session, switch: str, verb: str, body: JsonObject) -> None:
    """An operator's word to a canary, by its number or its service. Exits 0 when it was taken."""
    client = session.client()
    number = switch if switch.isdecimal() else as_text(_last(client, switch, but_aborted=False).get("switch"))
    try:
        answer = client.write_json("POST", f"/switches/{number}/{verb}", body, wait_s=VERB_WAIT_S)
    except RefusedRequest as error:
        raise _explained(error) from error
    view = as_object(answer.body)
    session.output.data(view, table=switch_view.proof(view), names=[number])
    session.output.message(switch_view.ending(view))


def _begin_canary(session: Session, body: JsonObject, *, wait_s: int | None) -> None:
    try:
        answer = session.client().write_json("POST", "/switches", body)
    except RefusedRequest as error:
        raise _explained(error) from error
    number = int(as_text(as_object(answer.body).get("switch")) or 0)
    _follow(session, number, wait_s=float("inf") if wait_s is None else wait_s)


def _carry_out(session: Session, path: str, body: JsonObject, *, wait_s: int, watch: bool) -> None:
    client = session.client()
    try:
        answer = client.write_json("POST", path, body, wait_s=None if watch else wait_s)
    except RefusedRequest as error:
        view = as_object(error.body)
        if view.get("switch") is None:
            raise _explained(error) from error
        _finish(session, view, int(as_text(view.get("switch"))))
        return
    view = as_object(answer.body)
    number = int(as_text(view.get("switch")) or 0)
    if watch:
        _follow(session, number, wait_s=wait_s)
    else:
        _finish(session, view, number)


def _finish(session: Session, view: JsonObject, number: int) -> None:
    """Prints a switch and ends the command with its exit code."""
    output = session.output
    output.message(switch_view.headline(view))
    names = [as_text(node.get("node_id")) for node in as_objects(view.get("nodes"))]
    output.data(view, table=switch_view.proof(view), names=names)
    _tell_end(session, view, number)


def _tell_end(session: Session, view: JsonObject, number: int) -> None:
    output, code = session.output, switch_view.exit_code_of(view)
    if view.get("state") == "scheduled":
        output.message(switch_view.ending(view))
        output.message(f"to take it back: pointsman switch abort {number}")
        return
    if code is ExitCode.DONE:
        output.message(switch_view.ending(view))
    else:
        output.faults(code, [_end_fault(view, code, number)])
    for line in canary_view.lines(view) if canary_view.is_canary(view) else ():
        output.message(line)
    for line in switch_view.old_side_lines(view):
        output.message(line)
    first = next((as_text(each.get("name")) for each in as_objects(view.get("services"))), "")
    if code in (ExitCode.DONE, ExitCode.PARTIAL_FLEET) and view.get("verb") != "undo" and not view.get("undone_by"):
        output.message(f"to go back: pointsman switch undo {first}")
    if view.get("state") == "held":
        output.message(f"to go on: pointsman switch promote {number}")
    if code is not ExitCode.DONE:
        raise Ended(code)


def _end_fault(view: JsonObject, code: ExitCode, number: int) -> Fault:
    where = f"switch {number}"
    match code:
        case ExitCode.CONFLICT:
            return Fault(switch_view.ending(view), where, "mend what is named, then switch again")
        case ExitCode.PARTIAL_FLEET:
            late = [node for node in as_objects(view.get("nodes")) if node.get("standing") in ("lagging", "gone")]
            names = ", ".join(as_text(node.get("hostname")) for node in late) or where
            remedy = "a node that lags takes it when it is back; see `pointsman nodes`, or undo it"
            return Fault(switch_view.ending(view), names, remedy)
        case ExitCode.ROLLED_BACK:
            return Fault(switch_view.ending(view), where, "mend the new side, then switch again")
        case _:
            ends = "switch" if canary_view.is_canary(view) else "rollout"
            remedy = f"it goes on: pointsman switch show {number}; to end it: pointsman {ends} abort {number}"
            return Fault(switch_view.ending(view), where, remedy)


def _follow(session: Session, number: int, *, wait_s: float) -> None:
    """Shows a switch while it happens; the time over or an interrupt ends the showing, never the switch."""
    output = session.output
    deadline = time.monotonic() + wait_s
    console = output.live_console() if output.format is Format.TABLE else None
    try:
        if console is not None and console.is_terminal:
            from pointsman.cli.switch_live import show_live

            client = session.client()
            number, view = show_live(client, output, console, number, deadline=deadline, rests=_at_rest)
        else:
            view = _tell_lines(session, number, deadline)
    except KeyboardInterrupt:
        output.message(f"switch {number} goes on: pointsman switch show {number}")
        raise
    if output.format is not Format.TABLE:
        output.data(view, table=switch_view.proof(view), names=[as_text(view.get("switch"))])
    _tell_end(session, view, number)


def _tell_lines(session: Session, number: int, deadline: float) -> JsonObject:
    told: set[str] = set()
    while True:
        view = _view(session.client(), number)
        for line in switch_view.events(view):
            if line not in told and session.output.format is Format.TABLE:
                session.output.text(line)
            told.add(line)
        sys.stdout.flush()
        if _at_rest(view) or view.get("state") == "held" or time.monotonic() >= deadline:
            return view
        time.sleep(WATCH_EVERY_S)


def _at_rest(view: JsonObject) -> bool:
    """Nothing more will be heard of it: it ended, and the sides that lost their traffic are still or still in use."""
    if view.get("state") not in switch_view.ENDED:
        return False
    if view.get("state") in ("aborted", "undone"):
        return True
    sides = as_objects(view.get("old_sides"))
    return all(side.get("safe_to_tear_down") or side.get("still_used_by") for side in sides)


def _quickly(context: typer.Context, services: list[str], to: str, wait_s: int, reason: str, *, refused: bool) -> None:
    from pointsman.cli.switch_quick import switch_quickly

    if refused:
        what = "--quick is one plain write: it has no preflight, no votes and nothing to watch"
        raise failure(ExitCode.USAGE, what, where="--quick", remedy="leave out --quick, or the other options")
    if len(services) != 1:
        what = "--quick moves one service at a time"
        raise failure(
            ExitCode.USAGE, what, where="SERVICE", remedy="leave out --quick: all of them move at one instant"
        )
    exit_code = switch_quickly(session_of(context), services[0], to, wait_s=wait_s, reason=reason)
    if exit_code is not ExitCode.DONE:
        raise Ended(exit_code)


def _last(client: AdminClient, service: str, *, but_aborted: bool) -> JsonObject:
    found = as_objects(as_object(client.get("/switches", {"service": service, "size": "20"}).body).get("data"))
    for view in found:
        if not (but_aborted and view.get("state") in _NOTHING_MOVED):
            return view
    what = f"no switch has moved service '{service}'"
    raise failure(ExitCode.NOT_FOUND, what, where="SERVICE", remedy="see what there is: pointsman switch history")


def _view(client: AdminClient, number: int) -> JsonObject:
    try:
        return as_object(client.get(f"/switches/{number}").body)
    except RefusedRequest as error:
        raise _explained(error) from error


def _explained(error: RefusedRequest) -> CliError:
    """The same with the control plane's own words on what to do, and one fault for each thing found."""
    body = as_object(error.body)
    code = as_text(body.get("code")) if isinstance(body.get("code"), str) else ""
    faults = _faults(body.get("refusals"))
    if not faults and code:
        faults = [Fault(as_text(body.get("message")), code, as_text(body.get("remedy")))]
    return CliError(error.exit_code, faults) if faults else error


def _faults(refusals: Json) -> list[Fault]:
    return [
        Fault(
            as_text(each.get("what")),
            ", ".join(
                filter(None, (as_text(each.get("code")), as_text(each.get("node")), as_text(each.get("target"))))
            ),
            as_text(each.get("remedy")),
        )
        for each in as_objects(refusals)
    ]


def commands() -> typer.Typer:
    """The group; whatever is no command of it is the service of a switch."""

    class Verb(TyperGroup):
        ignore_unknown_options = True  # they are the switch's own

        @override
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
                args.insert(0, "now")
            return super().parse_args(ctx, args)

    group = typer.Typer(cls=Verb, no_args_is_help=True, rich_markup_mode=None)
    for name, function, example in (
        ("now", now, 'switch example-service --to green --reason "release 2.7.1"'),
        ("plan", plan, "switch plan example-service --to green"),
        ("undo", undo, "switch undo example-service"),
        ("history", history, "switch history --service example-service"),
        ("show", show, "switch show 1"),
        ("status", status, "switch status example-service -w"),
        ("promote", promote, "switch promote example-service --all"),
        ("hold", hold, "switch hold example-service"),
        ("abort", abort, 'switch abort example-service --reason "too slow"'),
    ):
        group.command(name, epilog=f"Example: pointsman {example}")(function)
    return group
