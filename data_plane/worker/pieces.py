"""Routes and services out of their bytes by pieces, most of which thousands of them have in common.

A node that restarts with 100,000 entities decodes them all before it serves. Reading twenty fields of a message costs
more than everything else about it, and all but a few of them are the same in most entities: protocols, timeouts, flags.
So an entity is cut into what is its own (id, name, host, paths), which is read here, and pieces that are looked up by
their bytes, and are decoded by protobuf when they are seen for the first time.

That this reads what protobuf would read follows from the format: where each piece is a whole number of fields, their
concatenation is a message with the fields of all of them. Whatever is not cut like that (fields in another order, long
texts, what makes no sense) is left to protobuf as a whole, which also knows what to say of it: None, below.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from google.protobuf.message import DecodeError

from data_plane.model import RouteConfig, ServiceConfig
from pointsman.wire.v1 import config_pb2 as wire

PIECES_MAX = 1024
"""Different pieces that are remembered, of each kind."""
PIECE_BYTES_MAX = 256
_LONG = 128
"""A length or number from here on takes more than one byte; there are few, and protobuf reads them."""
_NUMBER_BITS_MAX = 63
_PORT_END = 1 << 32

_ID, _NAME = 0x0A, 0x12  # fields 1 and 2 of both, texts
_SERVICE_PROTOCOL, _SERVICE_HOST, _SERVICE_PORT, _SERVICE_PATH = 0x1A, 0x22, 0x28, 0x32
_ROUTE_PROTOCOLS, _ROUTE_METHODS, _ROUTE_HOSTS, _ROUTE_PATHS = 0x1A, 0x22, 0x2A, 0x32
_ROUTE_SERVICE = b"\x92\x01"
_ROUTE_CREATED_AT = b"\x98\x01"
_ROUTE_FRONT = frozenset({3, 4})
_ROUTE_MIDDLE = frozenset(range(7, 18))
_SERVICE_REST = frozenset(range(7, 15))


class Pieces:
    """Decodes by pieces; `route` and `service` are what a piece goes through when it is new."""

    def __init__(
        self, *, route: Callable[[wire.Route], RouteConfig], service: Callable[[wire.Service], ServiceConfig]
    ) -> None:
        @lru_cache(maxsize=PIECES_MAX)
        def front(piece: bytes) -> RouteConfig | None:
            """Protocols and methods of a route."""
            message = _message(wire.Route, piece, _ROUTE_FRONT)
            return route(message) if message is not None else None

        @lru_cache(maxsize=PIECES_MAX)
        def middle(piece: bytes) -> RouteConfig | None:
            """What stands between a route's paths and its service."""
            message = _message(wire.Route, piece, _ROUTE_MIDDLE)
            return route(message) if message is not None else None

        @lru_cache(maxsize=PIECES_MAX)
        def rest(piece: bytes) -> ServiceConfig | None:
            """What follows a service's path."""
            message = _message(wire.Service, piece, _SERVICE_REST)
            return service(message) if message is not None else None

        self._front = front
        self._middle = middle
        self._rest = rest

    def route(self, data: bytes) -> RouteConfig | None:
        """The route in an `Entity`'s bytes; None = decode it as a whole."""
        try:
            return self._route(data)
        except (IndexError, UnicodeDecodeError):
            return None

    def service(self, data: bytes) -> ServiceConfig | None:
        """The service in an `Entity`'s bytes; None = decode it as a whole."""
        try:
            return self._service(data)
        except (IndexError, UnicodeDecodeError):
            return None

    # Fields of one text are read in place: a call for each would cost as much as reading it, five times an entity.
    # A place beyond the end is noticed where the next byte is looked at, or by the comparison in the end: places only
    # grow, and a text that the end cuts leads beyond it.

    def _route(self, data: bytes) -> RouteConfig | None:
        at = _start(data)
        if not at or data[at] != _ID or not 0 < data[at + 1] < _LONG:
            return None
        begin = at + 2
        at = begin + data[at + 1]
        entity_id, name = data[begin:at].decode(), ""
        if data[at] == _NAME:
            if data[at + 1] >= _LONG:
                return None
            begin = at + 2
            at = begin + data[at + 1]
            name = data[begin:at].decode()
        begin = at
        while data[at] == _ROUTE_PROTOCOLS or data[at] == _ROUTE_METHODS:
            if data[at + 1] >= _LONG:
                return None
            at += 2 + data[at + 1]
        front = self._front(data[begin:at])
        hosts, at = _texts(data, at, _ROUTE_HOSTS)
        paths, at = _texts(data, at, _ROUTE_PATHS)
        if hosts is None or paths is None:
            return None
        begin = at
        # Should these bytes be found inside of something else, the piece before them is no whole number of fields.
        at = data.find(_ROUTE_SERVICE, begin)
        if at < 0 or data[at + 2] >= _LONG:
            return None
        middle = self._middle(data[begin:at])
        begin = at + 3
        at = begin + data[at + 2]
        service = data[begin:at].decode()
        created_at = 0
        if data.startswith(_ROUTE_CREATED_AT, at):
            created_at, at = _number(data, at + 2)
        if at != len(data) or front is None or middle is None or created_at < 0:
            return None
        return RouteConfig(
            entity_id,
            name,
            front.protocols,
            front.methods,
            hosts,
            paths,
            middle.headers,
            middle.snis,
            middle.sources,
            middle.destinations,
            middle.https_redirect_status_code,
            middle.regex_priority,
            middle.strip_path,
            middle.path_handling,
            middle.preserve_host,
            middle.request_buffering,
            middle.response_buffering,
            service,
            created_at,
        )

    def _service(self, data: bytes) -> ServiceConfig | None:
        at = _start(data)
        if not at or data[at] != _ID or not 0 < data[at + 1] < _LONG:
            return None
        begin = at + 2
        at = begin + data[at + 1]
        entity_id, name, protocol = data[begin:at].decode(), "", ""
        if data[at] == _NAME:
            if data[at + 1] >= _LONG:
                return None
            begin = at + 2
            at = begin + data[at + 1]
            name = data[begin:at].decode()
        if data[at] == _SERVICE_PROTOCOL:
            if data[at + 1] >= _LONG:
                return None
            begin = at + 2
            at = begin + data[at + 1]
            protocol = _text(data[begin:at])
        if data[at] != _SERVICE_HOST or data[at + 1] >= _LONG:
            return None
        begin = at + 2
        at = begin + data[at + 1]
        host, port, path = data[begin:at].decode(), 0, ""
        if data[at] == _SERVICE_PORT:
            port, at = _number(data, at + 1)
        if data[at] == _SERVICE_PATH:
            if data[at + 1] >= _LONG:
                return None
            begin = at + 2
            at = begin + data[at + 1]
            path = data[begin:at].decode()
        rest = self._rest(data[at:])
        if rest is None or at > len(data) or not 0 <= port < _PORT_END:
            return None
        return ServiceConfig(
            entity_id,
            name,
            protocol or "http",
            host,
            port or 80,
            path,
            rest.retries,
            rest.connect_timeout_s,
            rest.write_timeout_s,
            rest.read_timeout_s,
            rest.tls_verify,
            rest.tls_verify_depth,
            rest.ca_certificates,
            rest.client_certificate,
        )


def _start(data: bytes) -> int:
    """Where the one field of an `Entity` begins; 0 = it is not one whole field."""
    size, at = data[1], 2
    if size >= _LONG:
        if data[2] >= _LONG:
            return 0
        size, at = size - _LONG + (data[2] << 7), 3
    return at if at + size == len(data) else 0


def _texts(data: bytes, at: int, tag: int) -> tuple[tuple[str, ...] | None, int]:
    """The texts of a repeated field that begins there, if it does, and where they end; None = one of them is long."""
    texts: tuple[str, ...] = ()
    while data[at] == tag:
        if data[at + 1] >= _LONG:
            return None, at
        begin = at + 2
        at = begin + data[at + 1]
        texts = (*texts, data[begin:at].decode())
    return texts, at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends; -1 for one that fills an int64 or more."""
    number = shift = 0
    while (byte := data[at]) >= _LONG:
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    number |= byte << shift
    return (number if shift < _NUMBER_BITS_MAX else -1), at + 1


@lru_cache(maxsize=64)
def _text(data: bytes) -> str:
    """One text for all that say the same."""
    return data.decode()


def _message(kind: Any, piece: bytes, fields: frozenset[int]) -> Any:
    """The message that a piece is; None when it is none, or has fields that belong elsewhere.

    Fields that say their default are not listed and may belong elsewhere, too: protobuf would write it shorter.
    """
    if len(piece) > PIECE_BYTES_MAX:
        return None
    try:
        message = kind.FromString(piece)
    except DecodeError:
        return None
    if message.ByteSize() != len(piece):
        return None
    return message if all(field.number in fields for field, _ in message.ListFields()) else None
