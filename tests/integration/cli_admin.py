"""An Admin API made of prepared answers, for tests of the command line.

It enforces the protocol: a request nobody prepared an answer for is answered 501 and fails the test at its end, and so
does an answer that was prepared and never asked for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from typing_extensions import override

from pointsman.cli.json_values import Json


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]  # lower-case names
    body: bytes


@dataclass(slots=True)
class _Prepared:
    status: int
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)


class FakeAdmin:
    """`answer(...)` what is to be answered, then point the command line at `address`."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._prepared: dict[tuple[str, str], _Prepared] = {}
        self._asked: set[tuple[str, str]] = set()
        self._unexpected: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            @override
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline:
                    self.close_connection = True
                elif self.parse_request():
                    fake._respond(self)
                    self.wfile.flush()

            @override
            def log_message(self, format: str, *arguments: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(
        self,
        method: str,
        target: str,
        body: Json = None,
        *,
        status: int = 200,
        version: int | None = None,
        text: str | None = None,
    ) -> Self:
        """Prepares the answer to one method and target (path with query); returns the fake, for the next one."""
        headers = {"Server": "kong/3.9.1"}
        if version is not None:
            headers["X-Pointsman-Version"] = str(version)
        content = text.encode() if text is not None else json.dumps(body).encode() if body is not None else b""
        if content:
            headers["Content-Type"] = "application/json; charset=utf-8" if text is None else "application/yaml"
        self._prepared[method, target] = _Prepared(status, content, headers)
        return self

    def request(self, method: str, target: str) -> Seen:
        """The last request of this method and target."""
        return next(seen for seen in reversed(self.seen) if (seen.method, seen.target) == (method, target))

    def _respond(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        place = (handler.command, handler.path)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.seen.append(Seen(*place, headers, body))
        prepared = self._prepared.get(place)
        if prepared is None:
            self._unexpected.append(" ".join(place))
            prepared = _Prepared(501, b'{"message":"not prepared"}', {"Content-Type": "application/json"})
        self._asked.add(place)
        handler.send_response_only(prepared.status)
        for name, value in prepared.headers.items():
            handler.send_header(name, value)
        if prepared.status != 204:
            handler.send_header("Content-Length", str(len(prepared.content)))
        handler.end_headers()
        if prepared.status != 204:
            handler.wfile.write(prepared.content)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if error is None:
            assert not self._unexpected, f"asked without a prepared answer: {self._unexpected}"
            unasked = self._prepared.keys() - self._asked
            assert not unasked, f"prepared and never asked: {sorted(unasked)}"
