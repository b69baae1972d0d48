"""Strict decoding of chunked bodies, fed in pieces of any size.

Both directions use it. What comes out is content only: sizes, extensions and line ends stay behind, and whoever sends
the content on frames it anew, so that no peer ever sees framing made by another one. A whole piece of input is turned
into one piece of output, however many chunks it held: ten thousand chunks of one octet cost one write.
"""

from __future__ import annotations

import re

from data_plane.proxy.fields import FIELD_OCTETS, NAME

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb"\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\""
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*)"
)
# What may be the beginning of one, so that what is refused does not depend on how it was cut into pieces.
_SIZE_LINE_SO_FAR = re.compile(rb"[0-9A-Fa-f]{0,16}[ \t]*(?:;[^\r\n]*)?\r?")

SIZE_MAX = (1 << 63) - 1
REQUEST_SIZE_MAX = (1 << 32) - 1
"""One chunk of a request. Nobody sends larger ones but to make a decoder of 32 bits wrap."""
LAST_CHUNK = b"0\r\n\r\n"
SIZE_DIGITS_MAX = 16

_SIZE = 0
_DATA = 1
_DATA_END = 2
_TRAILERS = 3

# Trailer fields that would change framing, routing, authentication or the meaning of the head (RFC 9110 §6.5.1), and
# their twins with an underscore.
_FORBIDDEN_TRAILERS = re.compile(
    (
        "(?:transfer-encoding|content-.*|host|connection|keep-alive|te|trailer|upgrade|expect|via|server|date|age|"
        "cache-control|expires|vary|location|retry-after|max-forwards|range|if-.*|authorization|proxy.*|cookie|"
        "set-cookie.*|www-authenticate|x-forwarded.*|x-real-ip|x-kong-.*|forwarded)"
    )
    .replace("-", "[-_]")
    .encode(),
    re.IGNORECASE,
)


def last_chunk(trailers: list[bytes]) -> bytes:
    """Return what ends a chunked body: the chunk of no octets, and the trailers that may go on."""
    return b"\r\n".join([b"0", *trailers, b"", b""]) if trailers else LAST_CHUNK


class BadChunk(Exception):
    """The framing is broken or beyond a limit; `status` is for requests (answers are cut instead)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class ChunkDecoder:
    """State of one body. After `feed`: `pieces` holds the content (take it away), `done` tells the end."""

    __slots__ = (
        "_extension_bytes",
        "_extension_bytes_max",
        "_left",
        "_line",
        "_size_max",
        "_state",
        "_trailer_bytes",
        "_trailer_bytes_max",
        "done",
        "pieces",
        "received",
        "trailers",
    )

    def __init__(self, *, extension_bytes_max: int, trailer_bytes_max: int, size_max: int = SIZE_MAX) -> None:
        self._size_max = size_max
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._extension_bytes = 0
        self._extension_bytes_max = extension_bytes_max
        self._trailer_bytes = 0
        self._trailer_bytes_max = trailer_bytes_max
        self.pieces: list[bytes] = []
        self.received = 0
        self.done = False
        self.trailers: list[bytes] = []

    @property
    def announced(self) -> int:
        """Octets of content received, and those that the chunk under way will bring."""
        return self.received + self._left

    def feed(self, data: bytes, position: int = 0) -> int:
        """Decode from `position`; return where the body ended in `data`, or its length when it goes on.

        Raises `BadChunk`; content decoded before the fault is in `pieces` and must not be sent on as if all were well.
        """
        size = len(data)
        while position < size:
            if self._state == _DATA:
                end = position + self._left
                if end > size:
                    self.pieces.append(data[position:] if position else data)
                    self._left = end - size
                    self.received += size - position
                    return size
                self.pieces.append(data[position:end])
                self.received += self._left
                self._left = 0
                self._state = _DATA_END
                position = end
                continue
            if self._state == _DATA_END:
                if not self._line and data[position : position + 2] == b"\r\n":
                    position += 2
                    self._state = _SIZE
                    continue
                position = self._data_end(data, position)
                continue
            end = data.find(b"\n", position)
            if end < 0:
                self._line += data[position:]
                self._check_partial()
                return size
            line = data[position:end] if not self._line else self._line + data[position:end]
            self._line = b""
            position = end + 1
            if not line.endswith(b"\r"):
                raise BadChunk(400, "Bad request")
            if self._state == _SIZE:
                self._size_line(line[:-1])
            elif self._trailer_line(line[:-1]):
                self.done = True
                return position
        return position

    def _data_end(self, data: bytes, position: int) -> int:
        """The line end after a chunk's data, when it came in two pieces or is wrong."""
        if data[position] != (10 if self._line else 13):
            raise BadChunk(400, "Bad request")
        if self._line:
            self._line = b""
            self._state = _SIZE
        else:
            self._line = b"\r"
        return position + 1

    def _check_partial(self) -> None:
        line = self._line
        if self._state == _SIZE:
            if _SIZE_LINE_SO_FAR.fullmatch(line) is None:
                raise BadChunk(400, "Bad request")
            if self._extension_bytes + len(line) - SIZE_DIGITS_MAX > self._extension_bytes_max:
                raise BadChunk(413, "Payload too large")
        elif self._trailer_bytes + len(line) > self._trailer_bytes_max:
            raise BadChunk(431, "Request header fields too large")
        if line.removesuffix(b"\r").translate(None, FIELD_OCTETS):
            raise BadChunk(400, "Bad request")

    def _size_line(self, line: bytes) -> None:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise BadChunk(400, "Bad request")
        if found.end(1) != len(line):
            self._extension_bytes += len(line) - found.end(1)
            if self._extension_bytes > self._extension_bytes_max:
                raise BadChunk(413, "Payload too large")
        length = int(found[1], 16)
        if length > self._size_max:
            raise BadChunk(400, "Bad request")
        self._left = length
        self._state = _DATA if length else _TRAILERS

    def _trailer_line(self, line: bytes) -> bool:
        """Take one trailer line; True at the empty one. Fields that have no business in a trailer are left out."""
        if not line:
            return True
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > self._trailer_bytes_max:
            raise BadChunk(431, "Request header fields too large")
        name = line[: line.find(b":")] if b":" in line else b""
        if NAME.fullmatch(name) is None or line.translate(None, FIELD_OCTETS):
            raise BadChunk(400, "Bad request")
        if _FORBIDDEN_TRAILERS.fullmatch(name) is None:
            self.trailers.append(line)
        return False
