"""Upstream servers that keep books: each answers who it is and remembers every request id it has served.

One process runs one server, so that a test can kill it. A request names its id as the last segment of its path; a
body, if any, is read and its SHA-256 answered, so that a spliced body shows. `GET /books` answers the counts; ids
seen more than once are listed there, up to a bound. After `GET /ill` every answer is a 500 that still says who gave
it, as of a bad release, until `GET /well`.

    python -m tests.support.ledger_upstream --colour blue --instance blue-1 --port 0 --port-file FILE
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
from pathlib import Path
from typing import cast

import uvloop
from typing_extensions import override

DUPLICATES_LISTED_MAX = 1000


class Books:
    """What one server has served."""

    def __init__(self, colour: str, instance: str) -> None:
        self.colour = colour
        self.instance = instance
        self.served = 0
        self.seen: set[bytes] = set()
        self.duplicates: list[str] = []
        self.ill = False

    def enter(self, request_id: bytes) -> None:
        self.served += 1
        if request_id in self.seen and len(self.duplicates) < DUPLICATES_LISTED_MAX:
            self.duplicates.append(request_id.decode("latin-1"))
        self.seen.add(request_id)

    def report(self) -> bytes:
        return json.dumps({"instance": self.instance, "served": self.served, "duplicates": self.duplicates}).encode()


class LedgerServer(asyncio.Protocol):
    """HTTP/1.1 with Content-Length bodies only: all that the ledger's requests need. Pipelining is served in order."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports keep the interface without the class.
        self._transport = cast(asyncio.Transport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = buffer[:end]
            length = self._content_length(head)
            total = end + 4 + length
            if len(buffer) < total:
                break
            self._answer(head, buffer[end + 4 : total])
            buffer = buffer[total:]
        self._buffer = buffer

    @staticmethod
    def _content_length(head: bytes) -> int:
        lowered = head.lower()
        at = lowered.find(b"\r\ncontent-length:")
        if at < 0:
            return 0
        stop = lowered.find(b"\r\n", at + 2)
        return int(lowered[at + 17 : stop if stop > 0 else None])

    def _answer(self, head: bytes, body: bytes) -> None:
        target = head.split(b" ", 2)[1]
        if target == b"/books":
            self._write(self._books.report(), kind=b"application/json")
            return
        if target in (b"/ill", b"/well"):
            self._books.ill = target == b"/ill"
            self._write(self._books.report(), kind=b"application/json")
            return
        request_id = target.split(b"?", 1)[0].rsplit(b"/", 1)[-1]
        self._books.enter(request_id)
        fields = [request_id, self._books.colour.encode(), self._books.instance.encode()]
        if body:
            fields.append(hashlib.sha256(body).hexdigest().encode())
        self._write(b" ".join(fields), status=b"500 Internal Server Error" if self._books.ill else b"200 OK")

    def _write(self, body: bytes, *, kind: bytes = b"text/plain", status: bytes = b"200 OK") -> None:
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (status, kind, len(body), body)
        )


async def serve(books: Books, host: str, port: int, port_file: Path | None) -> None:
    """Serves until SIGTERM; writes the port it got to `port_file` once it listens."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: LedgerServer(books), host, port, backlog=1024)
    if port_file is not None:
        fresh = port_file.with_suffix(".new")
        fresh.write_text(str(server.sockets[0].getsockname()[1]))
        fresh.rename(port_file)
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    loop.add_signal_handler(signal.SIGINT, done.set)
    await done.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--colour", required=True)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path)
    options = parser.parse_args()
    uvloop.run(serve(Books(options.colour, options.instance), options.host, options.port, options.port_file))


if __name__ == "__main__":
    main()
