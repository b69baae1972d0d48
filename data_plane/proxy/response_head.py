"""Strict scan of the heads of upstreams' answers.

The same rules as for requests (`head.py`), but line by line: an upstream that frames its answers ambiguously is a
way to poison the answers of other clients, so what can't be read in exactly one way is a bad answer: 502, and the
connection it came on is never used again.
"""

from __future__ import annotations

import re

from data_plane.proxy.fields import FIELD_OCTETS, NOT_HOP_BY_HOP, TOKEN_OCTET, list_items, without_fields
from data_plane.proxy.settings import ProxySettings

_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?")
_NAME = re.compile(TOKEN_OCTET + rb"++")
_KEPT_ALIVE = re.compile(rb"connection:[ \t]*keep-alive[ \t]*", re.IGNORECASE)
_DIGITS = re.compile(rb"[0-9]{1,19}")

# What a field line is: 0 and above are lengths.
_PASS = -1
_DROP = -2
_SERVER = -3
_DATE = -4
_SPECIAL = -5
_KEEP_ALIVE = -6
_SECRET = -7
_LENGTH = -8

_CODES: dict[bytes, int] = {
    b"server": _SERVER,
    b"date": _DATE,
    b"connection": _SPECIAL,
    b"transfer-encoding": _SPECIAL,
    b"upgrade": _SPECIAL,
    b"via": _SPECIAL,
    b"trailer": _SPECIAL,
    b"keep-alive": _DROP,
    b"proxy-connection": _DROP,
    b"x-kong-request-id": _DROP,
    b"x-kong-upstream-latency": _DROP,
    b"x-kong-proxy-latency": _DROP,
    b"x-kong-response-latency": _DROP,
    b"set-cookie": _SECRET,
    b"authorization": _SECRET,
    b"proxy-authenticate": _SECRET,
    b"www-authenticate": _SECRET,
    b"content-length": _LENGTH,
}

HEADS_REMEMBERED_MAX = 512
HEAD_REMEMBERED_BYTES_MAX = 1024

LINES_REMEMBERED_MAX = 2048
LINE_REMEMBERED_BYTES_MAX = 128

NAMES_REMEMBERED_MAX = 1024
NAME_REMEMBERED_BYTES_MAX = 64

SEEN_MAX = 8192
"""Heads and lines of which no more is known than that they came, by their hashes."""

STATUS_LINES_REMEMBERED_MAX = 1024
STATUS_LINE_REMEMBERED_BYTES_MAX = 128


class BadAnswer(Exception):
    """What the upstream sent is no HTTP/1 answer with one meaning; the text says why, for the log."""


class ResponseHead:
    """One answer's head, scanned: good until the next scan, and not to be changed, for answers may share it.

    `segments` are the lines that go to the client as they came, the status line first, brought to HTTP/1.1;
    `Content-Length` is among them. `text` is the same in one piece. `length` is -1 without it. Framing is told by the
    caller, who knows the method. `usual` = nothing is missing that we would add, and there is no `Via` to add to.
    """

    __slots__ = (
        "chunked",
        "has_date",
        "has_server",
        "keep_alive",
        "length",
        "segments",
        "status",
        "text",
        "trailer",
        "upgrade",
        "usual",
        "via",
    )

    def __init__(self) -> None:
        self.status: int = 0
        self.segments: list[bytes] = []
        self.text: bytes = b""
        self.chunked: bool = False
        self.length: int = -1
        self.keep_alive: bool = True
        self.has_server: bool = False
        self.has_date: bool = False
        self.usual: bool = False
        self.upgrade: bytes | None = None
        self.via: bytes | None = None
        self.trailer: bytes | None = None


class ResponseScanner:
    """The scan, with its limit and the memories of heads, status lines and field lines already judged. One a worker.

    A busy upstream repeats whole heads, octet for octet, within a second even `Date`; and of those that differ most
    field lines are the same (`Server`, `Content-Type`, `Connection`). So a head is looked up whole, then each line of
    it, and only a line not seen before is judged by the grammar. Both memories are bounded by two generations, as the
    plan cache is; long heads and lines and all with cookies are never kept. The others are when they come for the
    second time: what has an id or a date of its own is not worth a place.
    """

    __slots__ = (
        "_head_max",
        "_heads",
        "_heads_before",
        "_lines",
        "_lines_before",
        "_names",
        "_passing",
        "_seen",
        "_status_lines",
    )

    def __init__(self, settings: ProxySettings) -> None:
        self._head_max = settings.response_head_bytes_max
        self._heads: dict[bytes, ResponseHead] = {}
        self._heads_before: dict[bytes, ResponseHead] = {}
        self._passing = ResponseHead()  # for all heads that are not kept
        self._seen: set[int] = set()
        self._status_lines: dict[bytes, tuple[int, bytes, bool]] = {}
        self._lines: dict[bytes, int] = {}
        self._lines_before: dict[bytes, int] = {}
        self._names: dict[bytes, int] = {}

    @property
    def lines_remembered(self) -> int:
        """How many field lines are remembered."""
        return len(self._lines) + len(self._lines_before)

    @property
    def heads_remembered(self) -> int:
        """How many heads are."""
        return len(self._heads) + len(self._heads_before)

    def check_incomplete(self, data: bytes) -> None:
        """Refuse an incomplete head that is too large, or that can't become an answer."""
        if len(data) > self._head_max:
            raise BadAnswer("head too large")
        if not data.startswith(b"HTTP/1."[: len(data)]):
            raise BadAnswer("not an HTTP/1 answer")
        if data.count(b"\n") != data.count(b"\r\n"):
            raise BadAnswer("lone LF in the head")

    def scan(self, block: bytes) -> ResponseHead:
        """Return what a complete head says, which comes without the empty line at its end; raises `BadAnswer`."""
        head = self._heads.get(block)
        return self._scan(block) if head is None else head

    def _scan(self, block: bytes) -> ResponseHead:
        head = self._heads_before.get(block)
        if head is None:
            if len(block) > self._head_max:
                raise BadAnswer("head too large")
            if not self._came_before(block):
                head = self._passing
                self._scan_lines(block.split(b"\r\n"), head)
                return head
            head = ResponseHead()
            if self._scan_lines(block.split(b"\r\n"), head) or len(block) > HEAD_REMEMBERED_BYTES_MAX:
                return head
        if len(self._heads) >= HEADS_REMEMBERED_MAX:
            self._heads_before = self._heads
            self._heads = {}
        self._heads[block] = head
        return head

    def _scan_lines(self, lines: list[bytes], head: ResponseHead) -> bool:
        """Fill `head`; True when something in it is not to be remembered."""
        status_line = lines[0]
        first = self._status_lines.get(status_line)
        if first is None:
            first = self._status_line(status_line)
        head.status, status_line, keep_alive = first
        del lines[0]
        length = -1
        has_server = has_date = secret = False
        recall = self._lines.get
        special: list[bytes] | None = None
        segments = [status_line]
        append = segments.append
        for line in lines:
            code = recall(line)
            if code is None:
                code = self._judge(line)
            if code == _PASS:
                append(line)
            elif code >= 0:
                if length < 0:
                    length = code
                    append(line)
                elif length != code:
                    raise BadAnswer("two different Content-Length")
            elif code == _SERVER:
                has_server = True
                append(line)
            elif code == _DATE:
                has_date = True
                append(line)
            elif code == _KEEP_ALIVE:
                keep_alive = True
            elif code == _SPECIAL:
                if special is None:
                    special = []
                special.append(line)
            elif code == _SECRET:
                secret = True
                append(line)
        head.segments = segments
        head.chunked = False
        head.length = length
        head.keep_alive = keep_alive
        head.has_server = has_server
        head.has_date = has_date
        head.upgrade = head.via = head.trailer = None
        if special is not None:
            _special(special, head, http10=not first[2])
            segments = head.segments
        head.text = b"\r\n".join(segments)
        head.usual = has_date and has_server and head.via is None and head.trailer is None
        return secret

    def _judge(self, line: bytes) -> int:
        """Return what a line is (see the codes) that `_lines` does not have; it is kept if it came before."""
        code = self._lines_before.get(line)
        if code is None:
            colon = line.find(b":")
            name = line[:colon]
            code = self._names.get(name)
            if code is None:
                code = self._judge_name(name, colon)
            if line.translate(None, FIELD_OCTETS):
                raise BadAnswer("malformed field line")
            if code == _LENGTH:
                digits = line[colon + 1 :].strip(b" \t")
                if _DIGITS.fullmatch(digits) is None:
                    raise BadAnswer("bad Content-Length")
                code = int(digits)
            elif code == _SPECIAL and _KEPT_ALIVE.fullmatch(line) is not None:
                code = _KEEP_ALIVE
            elif code == _SECRET:
                return code
            if not self._came_before(line) or len(line) > LINE_REMEMBERED_BYTES_MAX:
                return code
        if len(self._lines) >= LINES_REMEMBERED_MAX:
            self._lines_before = self._lines
            self._lines = {}
        self._lines[line] = code
        return code

    def _judge_name(self, name: bytes, colon: int) -> int:
        """Return the code of a name in a spelling that `_names` does not have; `colon` is negative without one."""
        if colon < 0 or _NAME.fullmatch(name) is None:
            raise BadAnswer("malformed field line")
        code = _CODES.get(name.lower(), _PASS)
        if len(name) <= NAME_REMEMBERED_BYTES_MAX:
            if len(self._names) >= NAMES_REMEMBERED_MAX:
                self._names.clear()
            self._names[name] = code
        return code

    def _came_before(self, octets: bytes) -> bool:
        """Tell whether these have been asked about before, lately."""
        mark = hash(octets)
        if mark in self._seen:
            return True
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen.add(mark)
        return False

    def _status_line(self, line: bytes) -> tuple[int, bytes, bool]:
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            raise BadAnswer("not an HTTP/1 status line")
        status = int(found[2])
        sent = b"HTTP/1.1" + line[8:]
        if len(line) == 12:
            sent += b" "  # the space is not optional (RFC 9112 §4)
        judged = (status, sent, found[1] != b"0")
        if len(line) <= STATUS_LINE_REMEMBERED_BYTES_MAX:
            if len(self._status_lines) >= STATUS_LINES_REMEMBERED_MAX:
                self._status_lines.clear()
            self._status_lines[line] = judged
        return judged


def _special(lines: list[bytes], head: ResponseHead, *, http10: bool) -> None:
    """Obey the fields that say something about framing, the connection or other fields."""
    named: set[bytes] | None = None
    for line in lines:
        colon = line.find(b":")
        name = line[:colon].lower()
        value = line[colon + 1 :].strip(b" \t")
        if name == b"connection":
            named = _obey_connection(value, named, head)
        elif name == b"transfer-encoding":
            if head.chunked or value.lower() != b"chunked":
                raise BadAnswer("bad Transfer-Encoding")
            head.chunked = True
        elif name == b"upgrade":
            head.upgrade = value
        elif name == b"via":
            head.via = value if head.via is None else head.via + b", " + value
        elif name == b"trailer":
            head.trailer = value if head.trailer is None else head.trailer + b", " + value
    if head.chunked and (head.length >= 0 or http10):
        raise BadAnswer("Transfer-Encoding beside Content-Length" if head.length >= 0 else "chunked in HTTP/1.0")
    if named is not None:
        head.segments = [head.segments[0], *without_fields(head.segments[1:], named)]


def _obey_connection(value: bytes, named: set[bytes] | None, head: ResponseHead) -> set[bytes] | None:
    options = list_items(value)
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options:
        # Only HTTP/1.0 needs the word: an answer of 1.0 came with `keep_alive` unset.
        head.keep_alive = True
    for option in options:
        if option and option != b"upgrade" and option not in NOT_HOP_BY_HOP:
            if named is None:
                named = set()
            named.add(option)
    return named
