"""Strict scan of request heads: what a gateway may let through, and nothing else.

Called by `client.py` with a complete head, and with incomplete ones to find out early that they can't become good.
Everything is judged on the bytes as they came, and fields that pass are passed on as they came, so the scan returns
runs of lines, not names and values. The rules are RFC 9112's, read strictly where it leaves a choice
(spec/reliability.md §3), because whatever two parsers may read differently is how requests are smuggled. Limits and
texts are Kong's. Nothing here decodes or normalises; that is the router's.

One pass finds forbidden octets and lone CR or LF: deleting all octets a field may hold must leave exactly one CR LF a
line. A second pass finds the fields that are ours to judge (`fields.py`).
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from data_plane.proxy.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    DROP,
    EXPECT,
    FIELD_OCTETS,
    HOST,
    MAX_FORWARDS,
    NAME,
    NOT_HOP_BY_HOP,
    REQUEST_KINDS,
    TE,
    TRANSFER_ENCODING,
    TRUSTED,
    UPGRADE,
    VIA,
    X_FORWARDED_FOR,
    field_values,
    list_items,
    special_fields,
    without_fields,
)
from data_plane.proxy.settings import ProxySettings

BAD_REQUEST = "Bad request"
URI_TOO_LONG = "URI too long"
HEAD_TOO_LARGE = "Request header or cookie too large"

# The longest value a length may have; beyond it other parsers wrap around.
LENGTH_MAX = (1 << 63) - 1

_METHOD = re.compile(rb"[A-Z_\-]{1,32}")
_PATH = re.compile(rb"/[!\"$-~]*")
_BAD_ESCAPE = re.compile(rb"%(?:00|(?![0-9A-Fa-f]{2}))")
_QUERY = re.compile(rb"[!\"$-~]*")
_NOT_SERVED = frozenset({b"CONNECT", b"TRACE"})
_SPECIAL = special_fields(REQUEST_KINDS, twins=True).finditer
_KINDS: dict[bytes, int] = {
    spelled: kind for name, kind in REQUEST_KINDS.items() for spelled in (name, name.title(), name.upper())
}
_ABSOLUTE = re.compile(rb"https?://([^/?]*)([/?].*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+|\[([0-9A-Fa-f:.]{2,})\])(?::([0-9]{0,5}))?",
)
_PORT_MAX = 65535
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
_DIGITS = re.compile(rb"[0-9]+")
# In a head that is not complete yet: octets that no complete head can hold. A CR may be the last octet so far.
_HOPELESS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_KNOWN_CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"})

HOSTS_REMEMBERED_MAX = 2048
HOST_REMEMBERED_BYTES_MAX = 256


class BadRequest(Exception):
    """A request that goes nowhere: `status` and Kong's `message` for it. The connection ends with the answer.

    `head` is the whole head where there is one, good or bad, for what it says of the form of answers.
    """

    head: bytes = b""

    def __init__(self, status: int, message: str = BAD_REQUEST) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class RequestHead:
    """One request head, scanned. Reused for all requests of a connection: clients repeat their fields.

    `block` is all field lines as they came, `segments` the runs of them that go upstream. `length` is -1 without
    Content-Length. `forwarded_for`, `via` and `trusted` hold what the client sent of the fields that we write
    ourselves; `usual` = nothing of that, HTTP/1.1, and no upgrade or `TE: trailers` either. `by_method` = the fields
    mean something else with another method. `last_hop` = the request may not be sent on (RFC 9110 §7.6.2). `ending` is
    `block` with the empty line behind it, once it was judged.
    """

    __slots__ = (
        "block",
        "block_http10",
        "by_method",
        "chunked",
        "ending",
        "expect_continue",
        "field_host",
        "forwarded_for",
        "host",
        "http10",
        "keep_alive",
        "last_hop",
        "length",
        "method",
        "path",
        "query",
        "segments",
        "te_trailers",
        "trusted",
        "usual",
        "via",
        "websocket",
    )

    def __init__(self) -> None:
        self.method: bytes = b""
        self.path: bytes = b""
        self.query: bytes = b""
        self.host: bytes = b""
        self.http10: bool = False
        self.block: bytes = b""
        self.block_http10: bool = False
        self.ending: bytes = b""
        self.segments: list[bytes] = []
        self.field_host: bytes | None = None
        self.keep_alive: bool = True
        self.chunked: bool = False
        self.length: int = -1
        self.expect_continue: bool = False
        self.te_trailers: bool = False
        self.websocket: bool = False
        self.usual: bool = True
        self.by_method: bool = False
        self.last_hop: bool = False
        self.forwarded_for: bytes | None = None
        self.via: bytes | None = None
        self.trusted: list[bytes] | None = None

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field by lower-case name, in order."""
        return field_values(self.block, name)


class RequestScanner:
    """The scan, with its limits and the memory of hosts already judged. One a worker."""

    __slots__ = ("_head_max", "_hosts", "_line_max", "_lines_max", "_request_line_max")

    def __init__(self, settings: ProxySettings) -> None:
        self._head_max = settings.head_bytes_max
        self._line_max = settings.header_line_bytes_max
        self._lines_max = settings.header_count_max
        self._request_line_max = settings.request_line_bytes_max
        self._hosts: dict[bytes, bytes] = {}

    def end_of(self, data: bytes, seen: int, head: RequestHead) -> int:
        """Return where the empty line of the head at the start of `data` begins, negative while there is none.

        `seen` octets were looked at before. Clients repeat their fields octet for octet, so the line ends of most heads
        need not be looked for: what follows the request line is compared with what followed the one before.
        """
        ending = head.ending
        if ending and data.endswith(ending) and data.find(b"\r\n") + len(ending) == len(data):
            return len(data) - 4
        return data.find(b"\r\n\r\n", seen - 3 if seen > 3 else 0)

    def check_incomplete(self, data: bytes, seen: int) -> None:
        """Refuse an incomplete head as soon as it can't become good; `seen` octets of it were checked before."""
        if _HOPELESS.search(data, seen - 1 if seen else 0) is not None:
            raise BadRequest(400)
        if len(data) > self._request_line_max and data.find(b"\r\n", 0, self._request_line_max + 2) < 0:
            raise BadRequest(414, URI_TOO_LONG)
        if len(data) > self._head_max:
            many = data.count(b"\r\n") > self._lines_max
            raise BadRequest(431 if many or self._names_too_long(data) else 400, HEAD_TOO_LARGE)

    def scan(self, data: bytes, end: int, head: RequestHead) -> None:
        """Scan a complete head, whose empty line begins at `end`, into `head`; raises `BadRequest`.

        Method and path are not judged here: `check_target` does that when there is no plan for them yet. A plan found
        for them proves that they were good.
        """
        line_end = data.find(b"\r\n", 0, end)
        if line_end < 0:
            line_end = end
        if line_end > self._request_line_max:
            raise BadRequest(414, URI_TOO_LONG)
        parts = data[:line_end].split(b" ")
        if len(parts) != 3:
            raise BadRequest(400)
        method, target, version = parts
        if version == b"HTTP/1.1":
            head.http10 = False
        else:
            self._other_version(version, target, method, head)
        authority: bytes | None = None
        if target[:1] != b"/" or method in _NOT_SERVED:
            target, authority = self._other_target(method, target)
        if b"?" in target:
            path, _, query = target.partition(b"?")
            if _QUERY.fullmatch(query) is None:
                raise BadRequest(400)
            head.path = path
            head.query = b"?" + query
        else:
            head.path = target
            head.query = b""
        head.method = method

        block = data[line_end:end]
        if block != head.block or head.http10 != head.block_http10 or head.by_method:
            self._fields(block, head)
        # Else they are, octet for octet, those of the request before on this connection, and so is what they mean.
        host = head.field_host
        if host is None:
            if not head.http10:
                raise BadRequest(400)
            host = b""
        head.host = host if authority is None else authority

    def _fields(self, block: bytes, head: RequestHead) -> None:
        """Judge the field lines, each with its line end before it."""
        count = block.count(b"\r\n")
        if len(block.translate(None, FIELD_OCTETS)) != 2 * count:
            raise BadRequest(400)
        if count > self._lines_max:
            raise BadRequest(431, "Request header fields too large")
        if len(block) > self._line_max and (
            len(block) > self._head_max or max(map(len, block.split(b"\r\n"))) > self._line_max
        ):
            raise BadRequest(431 if self._names_too_long(block) else 400, HEAD_TOO_LARGE)
        head.block = head.ending = b""
        head.keep_alive = not head.http10
        head.chunked = False
        head.length = -1
        head.expect_continue = False
        head.te_trailers = False
        head.websocket = False
        head.by_method = False
        head.last_hop = False
        head.forwarded_for = None
        head.via = None
        head.trusted = None
        host: bytes | None = None
        connection: bytes | None = None
        upgrade: bytes | None = None
        encoding: bytes | None = None
        expect: bytes | None = None
        segments: list[bytes] = []
        begin = 2
        for found in _SPECIAL(block):
            name, value = found.groups()
            if name is None:
                raise BadRequest(400)
            start = found.start() - 1
            if start > begin:
                segments.append(block[begin:start])
            begin = found.end() + 2
            kind = _KINDS.get(name)
            if kind is None:
                # Another spelling. An underscore twin of a field that we set or check is dropped: many origins read
                # `X_Forwarded_For` and `X-Forwarded-For` as the same variable.
                kind = DROP if b"_" in name else REQUEST_KINDS[name.lower()]
            if kind == HOST:
                if host is not None:
                    raise BadRequest(400)
                host = self._host(value)
                continue
            value = value.strip(b" \t")
            if kind == CONNECTION:
                connection = value if connection is None else connection + b"," + value
            elif kind == CONTENT_LENGTH:
                if head.length >= 0 or _DIGITS.fullmatch(value) is None:
                    raise BadRequest(400)
                head.length = _length(value)
            elif kind == TRANSFER_ENCODING:
                encoding = value if encoding is None else encoding + b"," + value
            elif kind == EXPECT:
                expect = value if expect is None else expect + b"," + value
            elif kind == UPGRADE:
                upgrade = value if upgrade is None else upgrade + b"," + value
            elif kind == TE:
                head.te_trailers = head.te_trailers or b"trailers" in list_items(value)
            elif kind == VIA:
                head.via = value if head.via is None else head.via + b", " + value
            elif kind == X_FORWARDED_FOR:
                if head.forwarded_for is None:
                    head.forwarded_for = value
            elif kind == TRUSTED:
                if head.trusted is None:
                    head.trusted = []
                head.trusted.append(name + b": " + value)
            elif kind == MAX_FORWARDS:
                head.by_method = True
                segments.append(name + b": " + _max_forwards(value, head))
        if begin < len(block):
            segments.append(block[begin:])
        head.segments = segments
        head.field_host = host
        if encoding is not None:
            _judge_encoding(encoding)
            if head.length >= 0 or head.http10:
                raise BadRequest(400)
            head.chunked = True
        if expect is not None and not head.http10:
            if expect.lower() != b"100-continue":
                raise BadRequest(417, "Expectation failed")
            head.expect_continue = True
        if connection is not None:
            _obey_connection(connection, upgrade, head)
        head.usual = (
            head.forwarded_for is None
            and head.via is None
            and head.trusted is None
            and not head.http10
            and not head.te_trailers
            and not head.websocket
        )
        head.block = block
        head.ending = block + b"\r\n\r\n"
        head.block_http10 = head.http10

    def _names_too_long(self, data: bytes) -> bool:
        """Tell whether a field is too large by its name alone: no cookie, which is what Kong's 400 is about."""
        return any(
            len(line) > self._line_max and b":" not in line[: self._line_max] for line in data.split(b"\r\n")[1:]
        )

    def _host(self, raw: bytes) -> bytes:
        host = self._hosts.get(raw)
        if host is None:
            host = raw.strip(b" \t")
            if not _is_authority(host):
                raise BadRequest(400)
            if len(raw) <= HOST_REMEMBERED_BYTES_MAX:
                if len(self._hosts) >= HOSTS_REMEMBERED_MAX:
                    self._hosts.clear()
                self._hosts[raw] = host
        return host

    def _other_version(self, version: bytes, target: bytes, method: bytes, head: RequestHead) -> None:
        found = _VERSION.fullmatch(version)
        if found is None:
            raise BadRequest(400)
        if found[1] != b"1":
            # The preface of HTTP/2 comes as `PRI * HTTP/2.0`: no request of ours, so no answer about versions.
            raise (
                BadRequest(400)
                if method == b"PRI" and target == b"*"
                else BadRequest(505, "HTTP version not supported")
            )
        head.http10 = found[2] == b"0"

    def _other_target(self, method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
        """Judge what is not origin-form, and the methods that a gateway doesn't serve."""
        if method == b"TRACE":
            raise BadRequest(405, "Method not allowed")
        if method == b"CONNECT":
            if _is_authority(target):
                raise BadRequest(405, "Method not allowed")
            raise BadRequest(400)
        found = _ABSOLUTE.fullmatch(target)
        if found is None or not _is_authority(found[1]):
            raise BadRequest(400)
        rest: bytes = found[2] or b"/"
        return (rest if rest.startswith(b"/") else b"/" + rest), found[1]


def check_target(method: bytes, path: bytes) -> None:
    """Refuse what is no method or path for nginx, and so for Kong: upper-case letters, `-` and `_` only; a path of
    visible ASCII without a fragment, its escapes whole and none of them NUL."""
    if (
        _METHOD.fullmatch(method) is None
        or _PATH.fullmatch(path) is None
        or (b"%" in path and _BAD_ESCAPE.search(path) is not None)
    ):
        raise BadRequest(400)


def _is_authority(text: bytes) -> bool:
    """Tell whether it is a host of RFC 3986, with a port or without: no user, and only what can be connected to."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return False
    address, port = found.groups()
    if address is not None:
        try:
            IPv6Address(address.decode("ascii"))
        except ValueError:
            return False
    return not port or int(port) <= _PORT_MAX


def _length(digits: bytes) -> int:
    significant = digits.lstrip(b"0")
    if len(significant) > 19:
        raise BadRequest(400)
    length = int(significant or b"0")
    if length > LENGTH_MAX:
        raise BadRequest(400)
    return length


def _max_forwards(value: bytes, head: RequestHead) -> bytes:
    """Return what of `Max-Forwards` goes on. It counts for OPTIONS only, because TRACE is not served."""
    if head.method != b"OPTIONS":
        return value
    if _DIGITS.fullmatch(value) is None:
        raise BadRequest(400)
    left = _length(value)
    head.last_hop = head.last_hop or left == 0
    return b"%d" % (left - 1)


def _judge_encoding(value: bytes) -> None:
    """Let through a single `chunked`, whatever its case. Others are 501 when well-formed and unknown, else 400."""
    if len(value) == 7 and value.lower() == b"chunked":
        return
    codings = list_items(value)
    for coding in codings:
        if NAME.fullmatch(coding) is None:
            raise BadRequest(400)
    if b"chunked" in codings[:-1] or codings[-1] in _KNOWN_CODINGS:
        raise BadRequest(400)
    raise BadRequest(501, "Not implemented")


def _obey_connection(value: bytes, upgrade: bytes | None, head: RequestHead) -> None:
    """Obey `Connection`: how the connection goes on, and which fields end here."""
    options = [value.lower()] if b"," not in value else list_items(value)
    wants_upgrade = False
    named: set[bytes] | None = None
    for option in options:
        if option == b"close":
            head.keep_alive = False
        elif option == b"keep-alive":
            # `close` wins, wherever it stands.
            if head.http10 and b"close" not in options:
                head.keep_alive = True
        elif option == b"upgrade":
            wants_upgrade = True
        elif option and option not in NOT_HOP_BY_HOP:
            if named is None:
                named = set()
            named.add(option)
    if wants_upgrade and upgrade is not None and upgrade.lower() == b"websocket" and not head.http10:
        if head.method != b"GET" or head.chunked or head.length > 0:
            raise BadRequest(400)
        head.websocket = head.by_method = True
    if named is not None:
        head.segments = without_fields(head.segments, named)
        if b"x-forwarded-for" in named:
            head.forwarded_for = None
        if head.trusted is not None:
            head.trusted = [line for line in head.trusted if line[: line.find(b":")].lower() not in named]
