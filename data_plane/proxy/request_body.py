"""The body of one request after the other on a client connection: its framing, and what is gathered of it.

Made by a connection for the first of its requests that has a body. It reads octets, and decides neither what becomes of
them nor when: `client.py` does, and feeds it. Nothing here touches a socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_plane.proxy.chunks import REQUEST_SIZE_MAX, BadChunk, ChunkDecoder, last_chunk
from data_plane.proxy.settings import STREAM_BYTES

if TYPE_CHECKING:
    from data_plane.proxy.head import RequestHead
    from data_plane.proxy.shared import Shared

_NO_TRAILERS: list[bytes] = []


class RequestBody:
    """See the module. `streaming` = it goes on as it comes; else it is gathered before the first attempt.

    `rest` is what `feed` left over: the beginning of the next request. `trailers` are those that may go on, once the
    body is complete. `reserved` is the memory that gathering it holds, in bytes.
    """

    __slots__ = (
        "_buffered",
        "_content",
        "_content_bytes",
        "_decoder",
        "_left",
        "_length",
        "_shared",
        "chunked",
        "reserved",
        "rest",
        "streaming",
        "trailers",
    )

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._buffered: bool = True
        self._decoder: ChunkDecoder | None = None
        self._left: int = 0
        self._length: int = 0
        self._content: list[bytes] = []
        self._content_bytes: int = 0
        self.chunked: bool = False
        self.reserved: int = 0
        self.rest: bytes = b""
        self.streaming: bool = False
        self.trailers: list[bytes] = _NO_TRAILERS

    def begin(self, head: RequestHead, *, buffered: bool) -> None:
        """Start with the body of another request; `buffered` = its route waits for the whole of it where it can."""
        self._buffered = buffered
        self._length = head.length
        self._content_bytes = 0
        self.chunked = head.chunked
        self.streaming = False
        self.trailers = _NO_TRAILERS
        if head.chunked:
            settings = self._shared.settings
            self._decoder = ChunkDecoder(
                extension_bytes_max=settings.chunk_extension_bytes_max,
                trailer_bytes_max=settings.trailer_bytes_max,
                size_max=REQUEST_SIZE_MAX,
            )
        else:
            self._decoder = None
            self._left = head.length

    def feed(self, data: bytes) -> tuple[list[bytes], bool]:
        """Return the content in `data`, and whether the body is complete with it; raises BadChunk."""
        decoder = self._decoder
        self.rest = b""
        if decoder is None:
            left = self._left
            size = len(data)
            if size < left:
                self._left = left - size
                return [data] if data else [], False
            self._left = 0
            if size == left:
                return [data], True
            self.rest = data[left:]
            return [data[:left]], True
        end = decoder.feed(data)
        pieces = decoder.pieces
        decoder.pieces = []
        limit = self._shared.settings.body_bytes_max
        if limit and decoder.announced > limit:
            raise BadChunk(413, "Payload too large")
        if not decoder.done:
            return pieces, False
        self._decoder = None
        self.trailers = decoder.trailers
        if end < len(data):
            self.rest = data[end:]
        return pieces, True

    def gather(self, pieces: list[bytes]) -> None:
        """Keep content for the first attempt."""
        self._content += pieces
        self._content_bytes += sum(map(len, pieces))

    def waits(self) -> bool:
        """Tell whether the rest of the body is waited for before the first attempt.

        Memory for a larger one is reserved at its full size, or at the most when it is chunked, until `free`.
        """
        if not self._buffered:
            return False
        length = self._length
        if self._content_bytes <= STREAM_BYTES and length <= STREAM_BYTES:
            return True
        shared = self._shared
        settings = shared.settings
        if self._content_bytes > settings.replay_bytes_max or length > settings.replay_bytes_max:
            return False
        if not self.reserved:
            wanted = length if length > 0 else settings.replay_bytes_max
            if shared.gathered_bytes + wanted > settings.replay_total_bytes_max:
                return False
            shared.gathered_bytes += wanted
            self.reserved = wanted
        return True

    def take(self) -> tuple[bytes, bytes]:
        """Return the field that frames a complete body, and the body as it goes on."""
        content, self._content = self._content, []
        if self.trailers:
            # Only chunks can have them, so those that the client made are made again, as one.
            if self._content_bytes:
                content = [b"%x\r\n" % self._content_bytes, *content, b"\r\n"]
            content.append(last_chunk(self.trailers))
            return b"Transfer-Encoding: chunked", b"".join(content)
        body = content[0] if len(content) == 1 else b"".join(content)
        return b"Content-Length: %d" % self._content_bytes, body

    def take_begun(self) -> tuple[bytes, bytes]:
        """Return the field that frames a body which goes on as it comes, and what is here of it, not framed yet."""
        content, self._content = self._content, []
        line = b"Transfer-Encoding: chunked" if self.chunked else b"Content-Length: %d" % self._length
        return line, content[0] if len(content) == 1 else b"".join(content)

    def drained(self, data: bytes) -> int:
        """Read content that nobody wants; return where in `data` the body ends, -1 = not in it. Raises BadChunk."""
        decoder = self._decoder
        if decoder is None:
            if len(data) < self._left:
                self._left -= len(data)
                return -1
            end, self._left = self._left, 0
            return end
        end = decoder.feed(data)
        decoder.pieces = []
        if not decoder.done:
            return -1
        self._decoder = None
        return end

    def may_be_drained(self) -> bool:
        """Tell whether what is still to come, as far as it is known, is little enough to be read and dropped."""
        return self._decoder is not None or self._left <= self._shared.settings.drain_bytes_max

    def drop(self) -> None:
        """Let go of the content; what is still to come is to be drained."""
        self._content = []
        self.streaming = False

    def forget(self) -> None:
        """Let go of the content and of where it stood."""
        self.drop()
        self._decoder = None

    def free(self) -> None:
        """The request for whose body memory was reserved has ended."""
        self._shared.gathered_bytes -= self.reserved
        self.reserved = 0
