"""What an operator does to targets in service: see their health, drain them, bring them back, overrule the checks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

import typer

from pointsman.cli import completion
from pointsman.cli.client import AdminClient, Answer, segment
from pointsman.cli.entities import Context, TargetKey, UpstreamOption
from pointsman.cli.errors import Ended, ExitCode, Fault, RefusedRequest, failure
from pointsman.cli.files import Reason, Wait
from pointsman.cli.json_values import Json, JsonObject, as_list, as_number, as_object, as_objects, as_text
from pointsman.cli.output import Table
from pointsman.cli.session import Session, session_of
from pointsman.cli.waiting import outcome_of, report, seconds
from pointsman.cli.watching import watch_table

POLL_EVERY_S = 0.5
_TOLD_BY = 6  # columns of the health table that are worth a new one

Address = Annotated[
    str, typer.Option("--address", metavar="IP[:PORT]", help="One address of the target; without it, all of them.")
]
Ttl = Annotated[
    int | None,
    typer.Option("--ttl", metavar="SECONDS", min=0, help="How long it lasts; 0 = until it is lifted."),
]
DrainWait = Annotated[
    int | None,
    typer.Option("--wait", metavar="SECONDS", min=0, help="Wait until no request to the target is open any longer."),
]


def add_upstream_commands(group: typer.Typer) -> None:
    """Adds `health` to the commands of upstreams."""
    group.command("health", epilog="Example: pointsman upstream health blue --watch")(health)


def add_target_commands(group: typer.Typer) -> None:
    """Adds the verbs to the commands of targets."""
    example = "10.0.0.1:80 --upstream blue"
    group.command("drain", epilog=f"Example: pointsman target drain {example} --wait 60")(drain)
    group.command("ready", epilog=f"Example: pointsman target ready {example}")(ready)
    group.command("weight", epilog="Example: pointsman target weight 10.0.0.1:80 50 --upstream blue")(weight)
    group.command("healthy", epilog=f"Example: pointsman target healthy {example} --ttl 600")(healthy)
    group.command("unhealthy", epilog=f"Example: pointsman target unhealthy {example}")(unhealthy)


def health(
    context: Context,
    upstream: Annotated[
        str, typer.Argument(metavar="UPSTREAM", help="Name or id.", autocompletion=completion.UPSTREAMS)
    ],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing until interrupted.")] = False,
) -> None:
    """Show what the whole fleet says of an upstream's targets, who differs, and the requests open to each."""
    session = session_of(context)
    client = session.client()
    if watch:
        watch_table(
            session.output, lambda: health_table(_health(client, upstream)), told_by=_TOLD_BY, command="upstream health"
        )
        return
    found = _health(client, upstream)
    targets = as_objects(found.get("targets"))
    session.output.data(found, table=health_table(found), names=[as_text(each.get("target")) for each in targets])
    if not targets:
        session.output.message("no targets")
    elif not as_number(as_object(found.get("nodes")).get("reporting")):
        session.output.message("no live node has reported on this upstream; its health is not known")


def drain(
    context: Context, target: TargetKey, upstream: UpstreamOption, wait: DrainWait = None, reason: Reason = ""
) -> None:
    """Send no new requests to a target: its weight becomes 0, and is remembered for `ready`.

    With --wait, counts the requests that are still open, over the whole fleet, until there are none (exit 0) or the
    time is over (exit 6).
    """
    session = session_of(context)
    client = session.client()
    started = time.monotonic()
    answer = _write(client, "PUT", _fleet_path(upstream, target, "drain"), wait=wait, reason=reason)
    _print_entity(session, answer)
    if wait is None:
        now = _open(client, upstream, _entity(answer), since=started)
        session.output.message(f"drained; {_requests(now.count)} open by the nodes' last word")
        return
    _finish(session, answer, wait, time.monotonic() - started)
    _count_down(session, client, upstream, _entity(answer), started=started, wait=wait)


def ready(
    context: Context, target: TargetKey, upstream: UpstreamOption, wait: Wait = None, reason: Reason = ""
) -> None:
    """Take a target back: the weight it had before it was drained, and its health by the checks again."""
    session = session_of(context)
    started = time.monotonic()
    answer = _write(session.client(), "PUT", _fleet_path(upstream, target, "ready"), wait=wait, reason=reason)
    _print_entity(session, answer)
    _finish(session, answer, wait, time.monotonic() - started)


def weight(
    context: Context,
    target: TargetKey,
    weight: Annotated[int, typer.Argument(metavar="WEIGHT", min=0, max=65535, help="Its share; 0 = none.")],
    upstream: UpstreamOption,
    *,
    wait: Wait = None,
    reason: Reason = "",
) -> None:
    """Set a target's weight."""
    session = session_of(context)
    started = time.monotonic()
    body: Json = {"weight": weight}
    answer = _write(session.client(), "PATCH", _kong_path(upstream, target), body, wait=wait, reason=reason)
    _print_entity(session, answer)
    _finish(session, answer, wait, time.monotonic() - started)


def healthy(
    context: Context,
    target: TargetKey,
    upstream: UpstreamOption,
    address: Address = "",
    *,
    ttl: Ttl = None,
    wait: Wait = None,
    reason: Reason = "",
) -> None:
    """Call a target healthy, whatever the checks say: for a minute, or as long as --ttl says."""
    path = _health_path(upstream, target, address, "healthy", ttl)
    _say(session_of(context), path, f"'{address or target}' is healthy", wait=wait, reason=reason)


def unhealthy(
    context: Context,
    target: TargetKey,
    upstream: UpstreamOption,
    address: Address = "",
    *,
    ttl: Ttl = None,
    wait: Wait = None,
    reason: Reason = "",
) -> None:
    """Call a target unhealthy, whatever the checks say: until `ready`, or as long as --ttl says."""
    path = _health_path(upstream, target, address, "unhealthy", ttl)
    _say(session_of(context), path, f"'{address or target}' is unhealthy", wait=wait, reason=reason)


def _say(session: Session, path: str, what: str, *, wait: int | None, reason: str) -> None:
    started = time.monotonic()
    answer = _write(session.client(), "PUT", path, wait=wait, reason=reason)
    session.output.message(f"{what} by your word, version {as_text(answer.version)}")
    _finish(session, answer, wait, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _Open:
    """Requests open to a target; `proved` = every live node counted them after the drain was everywhere."""

    count: int | None
    proved: bool


def _count_down(
    session: Session, client: AdminClient, upstream: str, target: JsonObject, *, started: float, wait: int
) -> None:
    """Polls until every node has counted nothing open since the drain is everywhere."""
    everywhere = time.monotonic()
    shown: int | None = None
    while True:
        now = _open(client, upstream, target, since=everywhere)
        if now.count is not None and now.count != shown:
            session.output.message(f"{_requests(now.count)} open")
            shown = now.count
        if now.proved and now.count == 0:
            session.output.message(f"drained after {seconds(time.monotonic() - started)}")
            return
        if time.monotonic() - started >= wait:
            what = f"{_requests(now.count)} still open" if now.count else "not every node has said that it is idle"
            remedy = "what is open may go on; watch it with `pointsman upstream health`"
            session.output.faults(ExitCode.TIMED_OUT, [Fault(what, as_text(target.get("target")), remedy)])
            raise Ended(ExitCode.TIMED_OUT)
        time.sleep(POLL_EVERY_S)


def _open(client: AdminClient, upstream: str, target: JsonObject, *, since: float) -> _Open:
    found = _health(client, upstream)
    age = as_number(found.get("in_flight_s_ago"))
    if age is not None:
        proved = age < time.monotonic() - since
    else:
        proved = not as_number(as_object(found.get("nodes")).get("live"))  # without nodes nobody will ever count
    for each in as_objects(found.get("targets")):
        if each.get("id") == target.get("id"):
            count = as_number(each.get("in_flight"))
            return _Open(None if count is None else int(count), proved)
    return _Open(None, proved=False)


def health_table(found: JsonObject) -> Table:
    """A row for each address; a target without any has one row."""
    rows: list[Sequence[str]] = []
    for target in as_objects(found.get("targets")):
        notes = _target_notes(target)
        for position, address in enumerate(as_objects(target.get("addresses")) or [JsonObject()]):
            first = position == 0
            rows.append(
                (
                    as_text(target.get("target")) if first else "",
                    f"{as_text(address.get('ip'))}:{as_text(address.get('port'))}" if address else "",
                    as_text(address.get("weight", target.get("weight"))),
                    as_text(address.get("health") or target.get("health") or "unknown"),
                    as_text(address.get("verdict")),
                    "; ".join([*(notes if first else ()), *_dissent(address)]),
                    as_text(target.get("in_flight")) if first else "",
                )
            )
    return Table(("TARGET", "ADDRESS", "WEIGHT", "HEALTH", "NODES", "NOTE", "OPEN"), rows)


def _target_notes(target: JsonObject) -> list[str]:
    notes = []
    if target.get("failover") is True:
        notes.append("failover")
    former = as_number(target.get("former_weight"))
    if former is not None:
        notes.append(f"drained, was {former:g}")
    for word in as_objects(target.get("manual")):
        what = "healthy" if word.get("healthy") is True else "unhealthy"
        where = f" {as_text(word.get('address'))}" if word.get("address") else ""
        until = as_number(word.get("until"))
        end = f" until {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(until))}" if until else ""
        notes.append(f"by hand{where}: {what}{end}")
    unresolved = as_objects(target.get("unresolved"))
    return [*notes, *(f"{_host(node)}: {as_text(node.get('error'))}" for node in unresolved)]


def _dissent(address: JsonObject) -> list[str]:
    """The nodes whose word is not the fleet's."""
    dissenting = set(map(as_text, as_list(address.get("dissenting"))))
    return [
        f"{_host(node)} says {as_text(node.get('health'))}"
        + (f" ({as_text(node.get('reason'))})" if node.get("reason") else "")
        for node in as_objects(address.get("nodes"))
        if as_text(node.get("node_id")) in dissenting
    ]


def _host(node: JsonObject) -> str:
    return as_text(node.get("hostname") or node.get("node_id"))


def _health(client: AdminClient, upstream: str) -> JsonObject:
    try:
        return as_object(client.get(f"/fleet/upstreams/{segment(upstream)}/health").body)
    except RefusedRequest as error:
        if error.status != 404:
            raise
        remedy = "see what there is: pointsman upstream list"
        raise failure(ExitCode.NOT_FOUND, f"no upstream '{upstream}'", where="UPSTREAM", remedy=remedy) from error


def _write(client: AdminClient, method: str, path: str, body: Json = None, *, wait: int | None, reason: str) -> Answer:
    try:
        if body is not None:
            return client.write_json(method, path, body, wait_s=wait, reason=reason)
        return client.request(method, path, wait_s=wait, reason=reason)
    except RefusedRequest as error:
        if error.status != 404:
            raise
        remedy = "see what there is: pointsman target list --upstream UPSTREAM"
        raise failure(ExitCode.NOT_FOUND, "no such target", where=path.partition("?")[0], remedy=remedy) from error


def _entity(answer: Answer) -> JsonObject:
    body = as_object(answer.body)
    return as_object(body.get("entity")) if answer.status == 202 else body


def _print_entity(session: Session, answer: Answer) -> None:
    entity = _entity(answer)
    rows = [(name, as_text(entity.get(name))) for name in ("target", "weight")]
    session.output.data(entity, table=Table(("FIELD", "VALUE"), rows), names=[as_text(entity.get("target"))])


def _finish(session: Session, answer: Answer, wait: int | None, took_s: float) -> None:
    if wait is None:
        return
    exit_code = report(session.output, outcome_of(answer), took_s)
    if exit_code is not ExitCode.DONE:
        raise Ended(exit_code)


def _requests(count: int | None) -> str:
    if count is None:
        return "an unknown number of requests"
    return "1 request" if count == 1 else f"{count} requests"


def _kong_path(upstream: str, target: str) -> str:
    return f"/upstreams/{segment(upstream)}/targets/{segment(target)}"


def _fleet_path(upstream: str, target: str, verb: str) -> str:
    return f"/fleet{_kong_path(upstream, target)}/{verb}"


def _health_path(upstream: str, target: str, address: str, word: str, ttl: int | None) -> str:
    below = f"/{segment(address)}" if address else ""
    query = f"?{urlencode({'ttl': ttl})}" if ttl is not None else ""
    return f"{_kong_path(upstream, target)}{below}/{word}{query}"
