"""A fast real upstream that answers what it got, and does on request what upstreams do in the wild.

Raw asyncio protocols, because it stands beside the proxy in measurements. The answer to an ordinary request is JSON:
`port`, `method`, `path`, `requestline`, `headers` (pairs, in order), `body` (the first 2,000 octets), `bodylen`; with
the echo fields `X-Colour`, `X-Instance` and, if the request has one, `X-Id`. Words in the path change that:

    /status/N     the status                     /sleep/S      S seconds (a fraction) before the answer
    /closeme      close without an answer        /chunked      a chunked answer
    /untilclose   no length: closed at the end   /interim      103 before the answer
    /big/N        N octets of body               /bigchunked/N the same, chunked
    /sink         only the length and SHA-256 of the body, which is not kept

    python -m tests.support.echo_upstream --port 0 --colour blue --instance blue-1
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from typing_extensions import override

BODY_KEPT_MAX = 2000
BACKLOG = 4096
"""Hundreds of connections at once must not wait for the kernel to repeat their first segment."""
_PIECE = bytes(range(256)) * 256

_DONE, _FIXED, _SIZE, _DATA, _DATA_END, _TRAILER = range(6)

_STATUS = re.compile(r"/status/(\d{3})")
_SLEEP = re.compile(r"/sleep/([0-9.]+)")
_BIG = re.compile(r"/big(chunked)?/(\d+)")


class EchoSettings:
    """Who this upstream says it is, and what it has seen."""

    def __init__(self, *, colour: str = "", instance: str = "") -> None:
        self.colour = colour
        self.instance = instance
        self.requests = 0
        self.connections = 0
        self.aborted = 0
        self.seen: list[bytes] = []
        self.keep_heads = False
        self.open: set[EchoConnection] = set()


class EchoConnection(asyncio.Protocol):
    """HTTP/1.1, one request at a time; trusts its client's syntax, as only a test upstream may."""

    def __init__(self, settings: EchoSettings) -> None:
        self._settings = settings
        self._buffer = bytearray()
        self._head: bytes | None = None
        self._left = 0
        self._phase = _DONE
        self._kept = bytearray()
        self._length = 0
        self._hash = hashlib.sha256()
        self._busy = False
        self._resumed: asyncio.Event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._settings.connections += 1
        self._settings.open.add(self)
        self._resumed.set()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._settings.open.discard(self)
        if self._busy or self._head is not None:
            self._settings.aborted += 1
        if self._task is not None:
            self._task.cancel()
        self._resumed.set()

    @override
    def pause_writing(self) -> None:
        self._resumed.clear()

    @override
    def resume_writing(self) -> None:
        self._resumed.set()

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._read()

    def _read(self) -> None:
        while not self._busy:
            if self._head is None:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                self._begin(bytes(self._buffer[:end]))
                del self._buffer[: end + 4]
            if not self._body():
                return
            self._busy = True
            head, self._head = self._head, None
            assert head is not None
            self._answer(head)

    def _begin(self, head: bytes) -> None:
        self._head = head
        self._settings.requests += 1
        if self._settings.keep_heads:
            self._settings.seen.append(head)
        lowered = head.lower()
        length = re.search(rb"\r\ncontent-length:[ \t]*(\d+)", lowered)
        self._left = int(length[1]) if length else 0
        self._phase = _SIZE if b"\r\ntransfer-encoding:" in lowered else _FIXED
        self._kept.clear()
        self._length = 0
        self._hash = hashlib.sha256()

    def _body(self) -> bool:
        """Take what is here of the body; True when it is complete."""
        while self._phase != _DONE:
            if self._phase in (_FIXED, _DATA):
                piece = bytes(self._buffer[: self._left])
                if not piece and self._left:
                    return False
                del self._buffer[: len(piece)]
                self._left -= len(piece)
                self._take(piece)
                if not self._left:
                    self._phase = _DONE if self._phase == _FIXED else _DATA_END
                continue
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return False
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            if self._phase == _SIZE:
                self._left = int(line, 16)
                self._phase = _DATA if self._left else _TRAILER
            elif self._phase == _DATA_END:
                self._phase = _SIZE
            elif not line:
                self._phase = _DONE
        return True

    def _take(self, piece: bytes) -> None:
        self._length += len(piece)
        self._hash.update(piece)
        if len(self._kept) < BODY_KEPT_MAX:
            self._kept += piece[: BODY_KEPT_MAX - len(self._kept)]

    def _answer(self, head: bytes) -> None:
        path = head.split(b" ", 2)[1].decode("latin-1")
        if "/closeme" in path:
            self.transport.close()
            return
        sleep = _SLEEP.search(path)
        big = _BIG.search(path)
        if sleep is None and big is None:
            self._write(head, path)
            self._done(head)
            return
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._slowly(head, path, float(sleep[1]) if sleep else 0.0, big))

    async def _slowly(self, head: bytes, path: str, sleep_s: float, big: re.Match[str] | None) -> None:
        if sleep_s:
            await asyncio.sleep(sleep_s)
        if big is None:
            self._write(head, path)
        else:
            await self._write_big(int(big[2]), chunked=big[1] is not None)
        self._task = None
        self._done(head)
        self._read()

    def _done(self, head: bytes) -> None:
        self._busy = False
        if b"\r\nconnection: close" in head.lower() or b"/untilclose" in head.split(b"\r\n", 1)[0]:
            self.transport.close()

    def _fields(self, head: bytes) -> list[bytes]:
        fields = [b"Server: echo", b"X-Colour: " + self._settings.colour.encode()]
        fields.append(b"X-Instance: " + self._settings.instance.encode())
        found = re.search(rb"\r\nx-id:[ \t]*([^\r]*)", head, re.IGNORECASE)
        if found:
            fields.append(b"X-Id: " + found[1])
        return fields

    def _write(self, head: bytes, path: str) -> None:
        lines = head.decode("latin-1").split("\r\n")
        status = _STATUS.search(path)
        code = int(status[1]) if status else 200
        said: dict[str, object] = {
            "port": self.transport.get_extra_info("sockname")[1],
            "method": lines[0].split(" ")[0],
            "path": path,
            "requestline": lines[0],
            "headers": [[name, value.strip()] for name, _, value in (line.partition(":") for line in lines[1:])],
            "body": self._kept.decode("latin-1"),
            "bodylen": self._length,
            "sha256": self._hash.hexdigest(),
        }
        if "/sink" in path:
            said = {"bodylen": self._length, "sha256": self._hash.hexdigest()}
        body = json.dumps(said).encode()
        fields = self._fields(head)
        empty = code in (204, 304) or lines[0].startswith("HEAD ")
        pieces = [b"HTTP/1.1 %d Echo" % code, b"Content-Type: application/json", *fields]
        if "/interim" in path:
            pieces[:0] = [b"HTTP/1.1 103 Early Hints", b"Link: </style.css>", b""]
        if "/chunked" in path:
            pieces += [b"Transfer-Encoding: chunked", b"", b"%x" % len(body), body, b"0", b"X-Sum: 1", b"", b""]
        elif "/untilclose" in path:
            pieces += [b"", body]
        elif code == 204:
            pieces += [b"", b""]
        else:
            pieces += [b"Content-Length: %d" % len(body), b"", b"" if empty else body]
        self.transport.write(b"\r\n".join(pieces))

    async def _write_big(self, size: int, *, chunked: bool) -> None:
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        self.transport.write(b"HTTP/1.1 200 OK\r\nServer: echo\r\n" + framing + b"\r\n\r\n")
        while size and not self.transport.is_closing():
            await self._resumed.wait()
            piece = _PIECE[:size]
            size -= len(piece)
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.transport.write(b"0\r\n\r\n")


async def start_echo(settings: EchoSettings, *, host: str = "127.0.0.1", port: int = 0) -> asyncio.Server:
    """Listen and answer; the caller closes the server. The port is that of `server.sockets[0]`."""
    factory: Callable[[], EchoConnection] = lambda: EchoConnection(settings)  # noqa: E731
    return await asyncio.get_running_loop().create_server(factory, host, port, backlog=BACKLOG)


@asynccontextmanager
async def echo_running(settings: EchoSettings | None = None) -> AsyncIterator[int]:
    """Answer on a port of the kernel's choice, which is yielded; ends with every connection closed."""
    settings = settings or EchoSettings()
    server = await start_echo(settings)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(settings.open):
            connection.transport.abort()
        while settings.open:
            await asyncio.sleep(0.001)


async def _main() -> None:
    parser = argparse.ArgumentParser(description="echo upstream for tests")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--colour", default="")
    parser.add_argument("--instance", default="")
    arguments = parser.parse_args()
    server = await start_echo(EchoSettings(colour=arguments.colour, instance=arguments.instance), port=arguments.port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
