"""A request and an answer as the handlers of this room see them, free of the HTTP server underneath.

`server.py` makes a `Call` of each request and sends the `Answer`; handlers are plain functions between the two, so
they can be tested without a socket.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import unquote_plus

from control_plane.admin.limits import Limits
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.identity.operators import LOCAL, Principal
from control_plane.store.contract import Transaction

Headers = Mapping[str, str]
"""Header names are looked up without regard to case; the server passes aiohttp's own mapping."""

JSON_TYPE = "application/json; charset=utf-8"

encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False, allow_nan=False).encode


class Refused(Exception):
    """An answer other than success that is not an entity's error: `{"message": ...}` with a status."""

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        extra: EntityBody | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.extra: EntityBody = extra or {}
        """Stands in the body beside the message."""

    def answer(self) -> Answer:
        """The answer it stands for."""
        return json_answer(self.status, {"message": self.message, **self.extra}, self.headers)


@dataclass(slots=True)
class Answer:
    """What goes back. `body` is JSON text, encoded once; empty = none. A `stream` goes on instead until it ends."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = JSON_TYPE
    stream: AsyncGenerator[bytes] | None = None


class Instead(Exception):
    """The call ends with this answer and no other: it says why what was asked for has not happened."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"answered {answer.status}")
        self.answer = answer


def json_answer(status: int, tree: JsonValue, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with a JSON body."""
    return Answer(status, encode_json(tree).encode(), dict(headers or {}))


def message_answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """The plain form of Kong's errors."""
    return json_answer(status, {"message": message}, headers)


def not_found() -> Refused:
    """What unknown paths and missing entities answer."""
    return Refused(404, "Not found")


@dataclass(frozen=True, slots=True)
class Addressed:
    """What a path leads to: the entity as GET shows it, and the collection that keeps it."""

    collection: str
    body: EntityBody


Current = Callable[[Transaction], Addressed | None]
"""Finds what a path leads to, in the transaction that is about to change it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call's part of a batch, to be run in the batch's transaction."""

    work: Callable[[Transaction], EntityBody | None]
    status: int
    current: Current | None


class Call:
    """One request."""

    def __init__(
        self,
        method: str,
        target: str,
        *,
        headers: Headers,
        content_types: tuple[str, ...] = (),
        has_body: bool = False,
        read_body: Callable[[int], Awaitable[bytes]],
        remote: str = "",
        limits: Limits,
    ) -> None:
        self.method = method
        self.path, _, self.query_text = target.partition("?")
        self.headers = headers
        self.content_types = content_types  # one for each Content-Type header
        self.has_body = has_body
        self.remote = remote
        self.limits = limits
        self.principal: Principal = LOCAL
        """Who calls; `access.py` finds out before any handler sees the call."""
        self._read_body = read_body
        self.received = b""
        """The body, once it was read."""
        self.template = ""
        """The path as the table of paths has it, without names and keys; empty = not looked up yet."""
        self.steps: list[Step] | None = None
        """Where a batch gathers what its calls would write; None = the call is on its own."""
        self.rollout: int | None = None
        """The rollout by which the call's write was brought to the nodes."""

    async def body(self, bytes_max: int | None = None) -> bytes:
        """The whole body. Raises Refused (413, 408) beyond `bytes_max`, by default the limit of entities' bodies."""
        if not self.has_body:
            return b""
        if not self.received:
            self.received = await self._read_body(self.limits.body_bytes_max if bytes_max is None else bytes_max)
        return self.received

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        """The query's arguments in order, decoded; an argument without `=` has the value "". Raises Refused (400)."""
        return split_arguments(self.query_text, self.limits)

    def argument(self, name: str) -> str | None:
        """The first value of a query argument."""
        if not self.query_text:
            return None
        return next((value for key, value in self.query if key == name), None)


def split_arguments(text: str, limits: Limits) -> list[tuple[str, str]]:
    """`a=1&b=2` as pairs. Raises Refused (400) for more than the limit."""
    if not text:
        return []
    if text.count("&") >= limits.arguments_max:
        raise Refused(400, "Too many arguments")
    pairs: list[tuple[str, str]] = []
    for part in text.split("&"):
        if part:
            name, _, value = part.partition("=")
            pairs.append((_decoded(name), _decoded(value)))
    return pairs


def _decoded(text: str) -> str:
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise Refused(400, "arguments must be UTF-8, percent-encoded") from None


Handler = Callable[[Call, tuple[str, ...]], Awaitable[Answer]]
"""Answers a call; the strings are the path's variable parts, decoded, in order."""


def entity_page(data: list[JsonValue], *, next_path: str | None = None, offset: str | None = None) -> EntityBody:
    """Kong's page object. The last page has no `offset`: clients loop until it is absent."""
    page: EntityBody = {"data": data, "next": next_path}
    if offset is not None:
        page["offset"] = offset
    return page
