"""service, route, upstream, target and all other kinds of entities: list, get, create, set, delete.

Fields are given as `name=value` and travel as a form, so that the control plane's schema decides their types and this
program needs no copy of it: `port=8080`, `service=example` (a name or an id), `healthchecks.active.timeout=2`,
`hosts=a.example hosts=b.example` for a list, `path=` for null.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from pointsman.cli import completion
from pointsman.cli.client import AdminClient, Answer, segment
from pointsman.cli.errors import CliError, Ended, ExitCode, RefusedRequest, failure
from pointsman.cli.files import Reason, Wait
from pointsman.cli.json_values import JsonObject, as_object, as_text
from pointsman.cli.output import Table
from pointsman.cli.session import Session, session_of
from pointsman.cli.waiting import outcome_of, report

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entity as the command line shows it."""

    name: str
    collection: str
    columns: Sequence[str]  # fields of the list's table
    key: str = "name"
    foreign: Sequence[str] = ()  # fields that refer to another entity, so that `service=x` can be written
    example: str = ""
    path: str = ""  # of the collection, where it is not its name
    files: Sequence[str] = ()  # fields of many lines, which `field=@FILE` fills

    @property
    def where(self) -> str:
        """The collection's path."""
        return f"/{self.path or self.collection}"


SERVICE = Kind(
    "service",
    "services",
    ("name", "protocol", "host", "port", "path", "enabled", "tags"),
    foreign=("client_certificate",),
    example="name=example-service host=blue path=/anything",
)
ROUTE = Kind(
    "route",
    "routes",
    ("name", "service", "hosts", "paths", "methods", "protocols", "tags"),
    foreign=("service",),
    example="name=example-route service=example-service hosts=example.domain.com",
)
UPSTREAM = Kind(
    "upstream",
    "upstreams",
    ("name", "algorithm", "slots", "tags"),
    foreign=("client_certificate",),
    example="name=blue",
)
TARGET = Kind("target", "targets", ("target", "weight", "tags"), key="target", example="target=10.0.0.1:80 weight=50")

_OWNER = ("consumer",)
OTHERS = (
    Kind("consumer", "consumers", ("username", "custom_id", "tags"), key="username", example="username=ann"),
    Kind("certificate", "certificates", ("id", "snis", "tags"), key="id",
         example="cert=@server.pem key=@server.key snis=a.example", files=("cert", "key", "cert_alt", "key_alt")),
    Kind("sni", "snis", ("name", "certificate", "tags"), foreign=("certificate",),
         example="name=a.example certificate=ID"),
    Kind("ca-certificate", "ca_certificates", ("id", "cert_digest", "tags"), key="id", example="cert=@ca.pem",
         files=("cert",)),
    Kind("plugin", "plugins", ("name", "service", "route", "consumer", "enabled"), key="id",
         foreign=("service", "route", "consumer"), example="name=cors service=example-service"),
    Kind("key-auth", "keyauth_credentials", ("id", "consumer", "tags"), key="id", foreign=_OWNER,
         example="consumer=ann key=SECRET", path="key-auths"),
    Kind("basic-auth", "basicauth_credentials", ("username", "consumer", "tags"), key="username", foreign=_OWNER,
         example="username=ann password=SECRET consumer=ann", path="basic-auths"),
    Kind("hmac-auth", "hmacauth_credentials", ("username", "consumer", "tags"), key="username", foreign=_OWNER,
         example="username=ann consumer=ann", path="hmac-auths"),
    Kind("jwt", "jwt_secrets", ("key", "algorithm", "consumer", "tags"), key="key", foreign=_OWNER,
         example="key=issuer consumer=ann", path="jwts", files=("rsa_public_key",)),
    Kind("acl", "acls", ("id", "group", "consumer", "tags"), key="id", foreign=_OWNER,
         example="group=staff consumer=ann"),
    Kind("oauth2", "oauth2_credentials", ("name", "client_id", "consumer", "tags"), key="client_id", foreign=_OWNER,
         example="name=app consumer=ann", path="oauth2"),
)  # fmt: skip

KINDS = (SERVICE, ROUTE, UPSTREAM, TARGET, *OTHERS)
_BY = {"consumer": "username"}  # what a foreign entity is called by, where that is not its name


def _offered(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the kind whose command it is."""
    group = context.parent.info_name if context.parent is not None else ""
    kind = next(kind for kind in KINDS if kind.name == group)
    return completion.names_at(kind.where, kind.key, "id")(context, incomplete)


Context = typer.Context
UpstreamOption = Annotated[
    str,
    typer.Option(
        "--upstream",
        "-u",
        metavar="UPSTREAM",
        help="The upstream of the target, by name or id.",
        autocompletion=completion.UPSTREAMS,
    ),
]
Key = Annotated[str, typer.Argument(metavar="NAME", help="Name or id.", autocompletion=_offered)]
TargetKey = Annotated[str, typer.Argument(metavar="TARGET", help="host:port or id.", autocompletion=completion.targets)]
Fields = Annotated[list[str], typer.Argument(metavar="FIELD=VALUE", help="Repeat a field for a list; empty is null.")]
Tags = Annotated[str, typer.Option("--tags", metavar="TAGS", help="a,b: has both; a/b: has one of them.")]


def commands(kind: Kind) -> typer.Typer:
    """The commands of one kind."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    at = " --upstream blue" if kind is TARGET else ""
    example = kind.example.split()[0].partition("=")[2]
    verbs: tuple[tuple[str, str, str], ...] = (
        ("list", f"List {kind.collection}.", f"list{at}"),
        ("get", f"Show one {kind.name}.", f"get {example}{at}"),
        ("create", f"Create {_article(kind.name)}.", f"create {kind.example}{at}"),
        ("set", f"Change fields of one {kind.name}.", f"set {example} tags=prod{at} --wait 10"),
        ("delete", f"Delete one {kind.name}.", f"delete {example}{at}"),
    )
    functions = _target_functions() if kind is TARGET else _functions(kind)
    for verb, text, shown in verbs:
        group.command(verb, help=text, epilog=f"Example: pointsman {kind.name} {shown}")(functions[verb])
    return group


def _functions(kind: Kind) -> dict[str, Callable[..., None]]:
    path = kind.where

    def list_(context: Context, tags: Tags = "") -> None:
        _list(session_of(context), kind, path, tags)

    def get(context: Context, key: Key) -> None:
        _get(session_of(context), kind, f"{path}/{segment(key)}")

    def create(context: Context, fields: Fields, wait: Wait = None, reason: Reason = "") -> None:
        _send(session_of(context), kind, "POST", path, fields, wait=wait, reason=reason)

    def set_(context: Context, key: Key, fields: Fields, wait: Wait = None, reason: Reason = "") -> None:
        _send(session_of(context), kind, "PATCH", f"{path}/{segment(key)}", fields, wait=wait, reason=reason)

    def delete(context: Context, key: Key, wait: Wait = None, reason: Reason = "") -> None:
        _delete(session_of(context), kind, f"{path}/{segment(key)}", key, wait=wait, reason=reason)

    return {"list": list_, "get": get, "create": create, "set": set_, "delete": delete}


def _target_functions() -> dict[str, Callable[..., None]]:
    """The same with the upstream that every target belongs to."""

    def path(upstream: str, key: str = "") -> str:
        return f"/upstreams/{segment(upstream)}/targets" + (f"/{segment(key)}" if key else "")

    def list_(context: Context, upstream: UpstreamOption) -> None:
        # `/all`, since the plain list of targets pages by position and may repeat rows under writes.
        _list(session_of(context), TARGET, f"{path(upstream)}/all", "")

    def get(context: Context, key: TargetKey, upstream: UpstreamOption) -> None:
        _get(session_of(context), TARGET, path(upstream, key))

    def create(
        context: Context, fields: Fields, upstream: UpstreamOption, wait: Wait = None, reason: Reason = ""
    ) -> None:
        _send(session_of(context), TARGET, "POST", path(upstream), fields, wait=wait, reason=reason)

    def set_(
        context: Context,
        key: TargetKey,
        fields: Fields,
        upstream: UpstreamOption,
        *,
        wait: Wait = None,
        reason: Reason = "",
    ) -> None:
        _send(session_of(context), TARGET, "PATCH", path(upstream, key), fields, wait=wait, reason=reason)

    def delete(
        context: Context, key: TargetKey, upstream: UpstreamOption, wait: Wait = None, reason: Reason = ""
    ) -> None:
        _delete(session_of(context), TARGET, path(upstream, key), key, wait=wait, reason=reason)

    return {"list": list_, "get": get, "create": create, "set": set_, "delete": delete}


def _list(session: Session, kind: Kind, path: str, tags: str) -> None:
    client = session.client()
    found = list(client.each(path, {"tags": tags} if tags else None))
    found.sort(key=lambda entity: (as_text(entity.get(kind.key)), as_text(entity.get("id"))))
    parents = _names_of_services(client) if kind is ROUTE and any(entity.get("service") for entity in found) else {}
    rows = [[_cell(entity, column, parents) for column in kind.columns] for entity in found]
    columns = [column.upper() for column in kind.columns]
    session.output.data({"data": list(found)}, table=Table(columns, rows), names=[_name(kind, e) for e in found])
    if not found:
        session.output.message(f"no {kind.collection}")


def _get(session: Session, kind: Kind, path: str) -> None:
    try:
        answer = session.client().get(path)
    except RefusedRequest as error:
        raise _not_there(error, kind, path) from error
    _print_one(session, kind, as_object(answer.body))


def _send(
    session: Session, kind: Kind, method: str, path: str, fields: Sequence[str], *, wait: int | None, reason: str
) -> None:
    client = session.client()
    content = urlencode([_pair(kind, text) for text in fields]).encode()
    started = time.monotonic()
    try:
        answer = client.request(
            method,
            path,
            content=content,
            content_type="application/x-www-form-urlencoded",
            wait_s=wait,
            reason=reason,
        )
    except RefusedRequest as error:
        raise _not_there(error, kind, path) from error
    body = as_object(answer.body)
    entity = as_object(body.get("entity")) if answer.status == 202 and "entity" in body else body
    _print_one(session, kind, entity)
    _finish(session, answer, wait, time.monotonic() - started)


def _delete(session: Session, kind: Kind, path: str, key: str, *, wait: int | None, reason: str) -> None:
    client = session.client()
    started = time.monotonic()
    try:
        client.get(path)  # DELETE itself is silent about what is not there, and a mistyped name should not be
        answer = client.request("DELETE", path, wait_s=wait, reason=reason)
    except RefusedRequest as error:
        raise _not_there(error, kind, path) from error
    session.output.message(f"{kind.name} '{key}' deleted")
    _finish(session, answer, wait, time.monotonic() - started)


def _finish(session: Session, answer: Answer, wait: int | None, took_s: float) -> None:
    if wait is None:
        return
    exit_code = report(session.output, outcome_of(answer), took_s)
    if exit_code is not ExitCode.DONE:
        raise Ended(exit_code)


def _pair(kind: Kind, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise failure(
            ExitCode.USAGE, f"'{text}' is not of the form field=value", remedy=f"for example: {kind.example.split()[0]}"
        )
    if name in kind.foreign and value:
        return f"{name}.{'id' if _UUID.fullmatch(value) else _BY.get(name, 'name')}", value
    if name in kind.files and value.startswith("@"):
        return name, _content(value[1:])
    return name, value


def _content(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise failure(ExitCode.USAGE, f"'{path}' can't be read: {why}", remedy="give a PEM file after the @") from None


def _not_there(error: RefusedRequest, kind: Kind, path: str) -> CliError:
    if error.status != 404:
        return error
    listed = f"pointsman {kind.name} list"
    if kind is TARGET:
        listed += f" --upstream {path.split('/')[2]}"
    what = f"no such {kind.name}" if path.count("/") != 1 else "not found"
    return failure(ExitCode.NOT_FOUND, what, where=path, remedy=f"see what there is: {listed}")


def _print_one(session: Session, kind: Kind, entity: JsonObject) -> None:
    rows = [(field, as_text(value)) for field, value in _leaves(entity)]
    session.output.data(entity, table=Table(("FIELD", "VALUE"), rows), names=[_name(kind, entity)])


def _leaves(entity: JsonObject, path: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for field, value in entity.items():
        if isinstance(value, dict) and value and field not in ("headers", "service", "upstream"):
            rows += _leaves(value, f"{path}{field}.")
        elif value is not None:
            rows.append((f"{path}{field}", as_text(value)))
    return rows


def _cell(entity: JsonObject, column: str, parents: dict[str, str]) -> str:
    value = entity.get(column)
    if isinstance(value, dict) and "id" in value:
        return parents.get(as_text(value["id"]), as_text(value["id"]))
    if column == "name" and value is None:
        return as_text(entity.get("id"))
    return as_text(value)


def _names_of_services(client: AdminClient) -> dict[str, str]:
    return {as_text(entity.get("id")): _name(SERVICE, entity) for entity in client.each("/services")}


def _name(kind: Kind, entity: JsonObject) -> str:
    return as_text(entity.get(kind.key)) or as_text(entity.get("id"))


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
