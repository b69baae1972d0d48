"""preview and mirror: which requests of a service see another upstream before it serves, and what is copied there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import typer

from pointsman.cli.client import AdminClient, Answer, segment
from pointsman.cli.errors import Ended, ExitCode, RefusedRequest, failure
from pointsman.cli.files import Reason, Wait
from pointsman.cli.json_values import Json, JsonObject, as_number, as_object, as_text
from pointsman.cli.output import Table
from pointsman.cli.session import Session, session_of
from pointsman.cli.waiting import outcome_of, report

OFF = "off"
SHARE_OF_PERCENT = 100
"""Shares are in ten-thousandths."""

Service = Annotated[str, typer.Argument(metavar="SERVICE", help="Name or id of the service.")]
Word = Annotated[str, typer.Argument(metavar="[off]", help="`off` ends it.", show_default=False)]
To = Annotated[str, typer.Option("--to", metavar="UPSTREAM", help="The upstream that they see; without it, shows.")]


def preview(
    context: typer.Context,
    service: Service,
    word: Word = "",
    to: To = "",
    *,
    header: Annotated[
        str, typer.Option("--header", "-H", metavar="NAME:VALUE", help="Requests that carry this header.")
    ] = "",
    cookie: Annotated[
        str, typer.Option("--cookie", metavar="NAME=VALUE", help="Requests that carry this cookie.")
    ] = "",
    wait: Wait = None,
    reason: Reason = "",
) -> None:
    """Let requests with a mark of your choice see an upstream before anyone else does; `off` ends it.

    With a header and a cookie, either counts; both have the same value then.
    """
    service, ends = _ends(service, word)
    session = session_of(context)
    if ends:
        _off(session, service, "preview", wait=wait, reason=reason)
        return
    if not to:
        _show(session, service, "preview")
        return
    body = _mark(header, cookie)
    _put(session, service, "preview", {"to": to, **body}, wait=wait, reason=reason)


def mirror(
    context: typer.Context,
    service: Service,
    word: Word = "",
    to: To = "",
    *,
    percent: Annotated[
        float,
        typer.Option("--percent", metavar="PERCENT", min=0, max=100, help="Of the primary side's requests."),
    ] = 100,
    wait: Wait = None,
    reason: Reason = "",
) -> None:
    """Send copies of a share of a service's requests to another upstream, answers dropped; `off` ends it."""
    service, ends = _ends(service, word)
    session = session_of(context)
    if ends:
        _off(session, service, "mirror", wait=wait, reason=reason)
        return
    if not to:
        _show(session, service, "mirror")
        return
    share = round(percent * SHARE_OF_PERCENT)
    _put(session, service, "mirror", {"to": to, "share": share}, wait=wait, reason=reason)


def _ends(service: str, word: str) -> tuple[str, bool]:
    """The service, and whether it is to end; `off SERVICE` is taken like `SERVICE off`."""
    if not word:
        return service, False
    if service == OFF:
        return word, True
    if word != OFF:
        raise failure(
            ExitCode.USAGE, f"unexpected argument '{word}'", where="SERVICE", remedy="after the service stands `off`"
        )
    return service, True


def _mark(header: str, cookie: str) -> JsonObject:
    name, colon, value = header.partition(":")
    crumb, equals, text = cookie.partition("=")
    if not header and not cookie:
        raise failure(
            ExitCode.USAGE,
            "what is the mark?",
            where="--header",
            remedy="say which requests: --header NAME:VALUE, or --cookie NAME=VALUE",
        )
    if header and not colon:
        raise failure(ExitCode.USAGE, f"'{header}' is no header", where="--header", remedy="write it as NAME:VALUE")
    if cookie and not equals:
        raise failure(ExitCode.USAGE, f"'{cookie}' is no cookie", where="--cookie", remedy="write it as NAME=VALUE")
    value, text = value.strip(), text.strip()
    if header and cookie and value != text:
        raise failure(
            ExitCode.USAGE,
            f"the header's value '{value}' is not the cookie's, '{text}'",
            where="--cookie",
            remedy="give both the same value",
        )
    return {"header": name.strip() or None, "cookie": crumb.strip() or None, "value": value or text}


def _put(session: Session, service: str, field: str, body: JsonObject, *, wait: int | None, reason: str) -> None:
    started = time.monotonic()
    path = f"/fleet/services/{segment(service)}/{field}"
    answer = _asked(service, lambda: session.client().write_json("PUT", path, body, wait_s=wait, reason=reason))
    _finish(session, answer, service, field, as_text(body["to"]), wait=wait, started=started)


def _off(session: Session, service: str, field: str, *, wait: int | None, reason: str) -> None:
    started = time.monotonic()
    path = f"/fleet/services/{segment(service)}/{field}"
    answer = _asked(service, lambda: session.client().request("DELETE", path, wait_s=wait, reason=reason))
    _finish(session, answer, service, field, "", wait=wait, started=started)


def _show(session: Session, service: str, field: str) -> None:
    client = session.client()
    settings = as_object(_asked(service, lambda: client.get(f"/fleet/services/{segment(service)}/settings")).body)
    side = as_object(settings.get(field))
    upstream = _upstream_name(client, as_text(side.get("to"))) if side else ""
    _print(session, service, field, settings, upstream)


def _finish(
    session: Session, answer: Answer, service: str, field: str, upstream: str, *, wait: int | None, started: float
) -> None:
    body = as_object(answer.body)
    settings = as_object(body.get("entity")) if answer.status == 202 else body
    _print(session, service, field, settings, upstream)
    if wait is None:
        return
    exit_code = report(session.output, outcome_of(answer), time.monotonic() - started)
    if exit_code is not ExitCode.DONE:
        raise Ended(exit_code)


def _print(session: Session, service: str, field: str, settings: JsonObject, upstream: str) -> None:
    side = as_object(settings.get(field))
    rows: list[tuple[str, str]] = []
    if side:
        what = "requests with the mark" if field == "preview" else "copies"
        session.output.message(f"{service}: {what} go to {upstream}")
        rows = [("to", upstream)]
        rows += [(name, as_text(side.get(name))) for name in ("header", "cookie", "value") if side.get(name)]
        share = as_number(side.get("share"))
        if share is not None:
            rows.append(("share", f"{share / SHARE_OF_PERCENT:g} %"))
    else:
        session.output.message(f"{service}: no {field}")
    shown: Json = settings.get(field)
    session.output.data(shown, table=Table(("FIELD", "VALUE"), rows), names=[upstream] if upstream else [])


def _upstream_name(client: AdminClient, upstream: str) -> str:
    try:
        return as_text(as_object(client.get(f"/upstreams/{segment(upstream)}").body).get("name")) or upstream
    except RefusedRequest:
        return upstream


def _asked(service: str, ask: Callable[[], Answer]) -> Answer:
    """The answer; a service that is not there is named."""
    try:
        return ask()
    except RefusedRequest as error:
        if error.status != 404:
            raise
        raise failure(
            ExitCode.NOT_FOUND,
            f"no service '{service}'",
            where="SERVICE",
            remedy="see what there is: pointsman service list",
        ) from error
