"""`POST /fleet/trace`: what would become of a request, asked of a live node.

    {"method": "GET", "url": "https://shop.example/cart?id=1", "headers": {"x-a": "1"}, "sni": "...", "node": "..."}

All but `url` may be left out: the method is GET, the SNI of an https URL is its host, and any live node that runs the
newest version is asked. Values of headers are texts or lists of texts. A `Host` among the headers takes the place of
the URL's. 503 = no node is live (or not the one named), 504 = it gave no answer in time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from control_plane.admin.bodies import parse_json
from control_plane.admin.messages import Answer, Call, Refused, json_answer
from control_plane.admin.operations import JSON, Operation
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Fleet
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.tracing import NoNode, NotAnswered, Question, TooManyQuestions

DEADLINE_S = 5.0
HEADERS_MAX = 100
TEXT_CHARACTERS_MAX = 8192

_METHOD = re.compile(r"[A-Z_\-]{1,32}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PORTS = {"http": 80, "https": 443}
_FIELDS = frozenset({"method", "url", "headers", "sni", "node"})


_TRACE = Operation(
    summary="Ask a live node what would become of a request",
    body={
        JSON: {
            "type": "object",
            "properties": {
                "url": {"type": "string"},
                "method": {"type": "string"},
                "headers": {"type": "object"},
                "sni": {"type": "string"},
                "node": {"type": "string"},
            },
            "required": ["url"],
            "additionalProperties": False,
        }
    },
    answers={200: {"type": "object"}},
)


def mount(table: PathTable, fleet: Fleet, *, deadline_s: float = DEADLINE_S) -> None:
    """Adds the path."""
    table.add("/fleet/trace", {"POST": _Tracing(fleet, deadline_s).trace}, about={"POST": _TRACE})


@dataclass(frozen=True, slots=True)
class _Tracing:
    fleet: Fleet
    deadline_s: float

    async def trace(self, call: Call, _path: tuple[str, ...]) -> Answer:
        body = parse_json(await call.body(), call.limits)
        unknown = sorted(body.keys() - _FIELDS)
        if unknown:
            _bad(f"unknown field '{unknown[0]}'; known: {', '.join(sorted(_FIELDS))}")
        question = question_of(body)
        node = _text(body, "node") or None
        try:
            node_id, hostname, answer = await self.fleet.trace(question, node=node, timeout_s=self.deadline_s)
        except NoNode as error:
            raise Refused(503, f"{error}; only a node can say, see /fleet/nodes", {"Retry-After": "1"}) from None
        except NotAnswered as error:
            raise Refused(504, str(error)) from None
        except TooManyQuestions as error:
            raise Refused(429, str(error), {"Retry-After": "1"}) from None
        told: EntityBody = {
            "node": {"node_id": node_id, "hostname": hostname},
            "request": {
                "method": question.method,
                "scheme": question.scheme,
                "host": next((value for name, value in question.headers if name.lower() == "host"), None),
                "target": question.target,
                "port": question.port,
                "sni": question.sni or None,
            },
        }
        return json_answer(200, {**told, **answer})


def question_of(body: EntityBody) -> Question:
    """The request that the body describes. Raises Refused (400)."""
    method = _text(body, "method") or "GET"
    if _METHOD.fullmatch(method) is None:
        _bad("method: expected upper-case letters, like GET")
    url = _text(body, "url")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        _bad("url: its port is no number from 0 to 65535")
    if parts.scheme not in _PORTS or not parts.hostname:
        _bad("url: expected an http or https URL with a host, like http://shop.example/cart")
    if not url.isascii() or any(character <= " " for character in url):
        _bad("url: expected visible ASCII; percent-encode the rest")
    target = (parts.path or "/") + ("?" + parts.query if "?" in url.partition("#")[0] else "")
    headers = list(_headers(body.get("headers")))
    if not any(name.lower() == "host" for name, _ in headers):
        headers.insert(0, ("Host", parts.netloc.rpartition("@")[2]))
    sni = _text(body, "sni")
    if not sni and parts.scheme == "https" and re.search(r"[A-Za-z]", parts.hostname) and ":" not in parts.hostname:
        sni = parts.hostname
    return Question(
        method=method,
        scheme=parts.scheme,
        target=target,
        port=port if port is not None else _PORTS[parts.scheme],
        headers=tuple(headers),
        sni=sni,
    )


def _headers(value: JsonValue) -> list[tuple[str, str]]:
    if value is None:
        return []
    if not isinstance(value, dict):
        _bad("headers: expected an object of names and values")
    headers: list[tuple[str, str]] = []
    for name, values in value.items():
        if _TOKEN.fullmatch(name) is None:
            _bad(f"headers: '{name[:40]}' is no header name")
        for each in values if isinstance(values, list) else [values]:
            if not isinstance(each, str) or any(character < " " and character != "\t" for character in each):
                _bad(f"headers.{name}: expected a text without control characters, or a list of them")
            headers.append((name, each[:TEXT_CHARACTERS_MAX]))
    if len(headers) > HEADERS_MAX:
        _bad(f"headers: more than {HEADERS_MAX}")
    return headers


def _text(body: EntityBody, name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > TEXT_CHARACTERS_MAX:
        _bad(f"{name}: expected a text of at most {TEXT_CHARACTERS_MAX} characters")
    return value


def _bad(message: str) -> NoReturn:
    raise Refused(400, message)
