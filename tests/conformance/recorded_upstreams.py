"""The upstream servers behind a proxy recording, as real servers on ports of the kernel's choosing.

Those of ports 19001 to 19012 answer `{port, method, path, headers, body}`, all others `{port, requestline, headers,
body, bodylen}` with `X-Up: a`; words in the path change the answer: `status/N`, `sleep/S`, `closeme`. The answers speak
of the ports of the recording, so that they compare as they are.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from typing_extensions import override

BODY_KEPT_MAX = 2000
LISTENED = frozenset({19001, 19002, 19011, 19012, 19021, 19022, 19023})
"""Where the recording's servers were. A port that it names beside these refuses connections."""

_PLAIN = range(19001, 19013)
_STATUS = re.compile(r"/status/(\d{3})")
_SLEEP = re.compile(r"/sleep/([0-9.]+)")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, recorded_port: int) -> None:
        self.recorded_port = recorded_port
        super().__init__(("127.0.0.1", 0), _Handler)

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """The gateway closing a connection is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Every method is answered alike."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    @override
    def version_string(self) -> str:
        return "BaseHTTP/0.6 Python/3.11.7"  # as recorded, whatever runs here

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def _answer(self) -> None:
        body = self._body()
        if "closeme" in self.path:
            self.close_connection = True
            return
        if slow := _SLEEP.search(self.path):
            time.sleep(float(slow[1]))
        port = self.server.recorded_port
        headers = [[name, value] for name, value in self.headers.items()]
        kept = body[:BODY_KEPT_MAX].decode("latin-1")
        said: dict[str, object] = {"port": port}
        if port in _PLAIN:
            said |= {"method": self.command, "path": self.path, "headers": headers, "body": kept}
        else:
            said |= {"requestline": self.requestline, "headers": headers, "body": kept, "bodylen": len(body)}
        text = json.dumps(said).encode()
        status = _STATUS.search(self.path)
        self.send_response(int(status[1]) if status else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if port not in _PLAIN:
            self.send_header("X-Up", "a")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)


class RecordedUpstreams:
    """All servers of a recording; `ports` maps its ports to ours, also those where nothing listens."""

    def __init__(self, recorded_ports: Iterable[int]) -> None:
        self.ports: dict[int, int] = {}
        self._servers: list[_Server] = []
        self._refusing: list[socket.socket] = []
        for port in sorted(recorded_ports):
            if port in LISTENED:
                server = _Server(port)
                self._servers.append(server)
                self.ports[port] = server.server_port
            else:
                # Bound but not listening: connections are refused, and nobody else gets the port.
                refusing = socket.socket()
                refusing.bind(("127.0.0.1", 0))
                self._refusing.append(refusing)
                self.ports[port] = refusing.getsockname()[1]

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for refusing in self._refusing:
            refusing.close()
