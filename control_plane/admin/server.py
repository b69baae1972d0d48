"""The Admin API's HTTP server: aiohttp's low-level one, without its application.

One function takes every request. aiohttp's routes, middlewares and request objects would cost more than the whole of a
small write; what is needed of them (limits, JSON errors, graceful stop) is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict
from typing_extensions import override

from control_plane.admin.api import AdminApi
from control_plane.admin.information import SERVER, Connections, Identity
from control_plane.admin.limits import Limits
from control_plane.admin.messages import JSON_TYPE, Answer, Call, Refused
from control_plane.admin.parts import Parts
from pointsman.settings import SocketAddress

_log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 15.0
"""How long requests in flight may take when the process stops."""

LINGERING_S = 2.0
"""How long the rest of a refused body is read, so that its sender gets to see the answer."""

SEND_TIMEOUT_S = 30.0
"""How long a client may take none of a stream."""

_STANDARD_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class AdminServer:
    """Listens, and answers with an `AdminApi`."""

    def __init__(
        self,
        parts: Parts,
        *,
        listen: SocketAddress,
        node_id: str,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        log_level: str = "info",
    ) -> None:
        self.address = listen
        """Where it listens; the real port once started."""
        self._limits = limits or Limits()
        self._tls = tls
        self.api = AdminApi(
            parts,
            identity=Identity(node_id=node_id, admin_address=lambda: str(self.address), log_level=log_level),
            connections=self._connections,
        )
        self._http: _Server | None = None
        self._listener: asyncio.Server | None = None
        self._answering = 0

    async def start(self) -> None:
        """Begins to listen. Raises OSError when the address can't be had."""
        loop = asyncio.get_running_loop()
        self._http = _Server(
            self._handle,
            connections_max=self._limits.connections_max,
            access_log=None,
            keepalive_timeout=self._limits.idle_timeout_s,
            max_line_size=self._limits.header_bytes_max,
            max_field_size=self._limits.header_bytes_max,
            max_headers=self._limits.headers_max,
            auto_decompress=False,
            lingering_time=LINGERING_S,
        )
        self._listener = await loop.create_server(
            self._http, self.address.host, self.address.port, backlog=1024, ssl=self._tls
        )
        bound = self._listener.sockets[0].getsockname()
        self.address = SocketAddress(bound[0], bound[1])
        self.api.lag.start()
        _log.info("the Admin API listens", extra={"address": str(self.address), "tls": self._tls is not None})

    async def stop(self) -> None:
        """Stops listening, ends waits for nodes, and lets requests in flight be answered."""
        if self._listener is None or self._http is None:
            return
        self._listener.close()
        await self.api.lag.stop()
        self.api.writes.end_waits()
        self.api.streams.end()
        self._http.pre_shutdown()
        await self._http.shutdown(STOP_TIMEOUT_S)
        self._listener = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        self._answering += 1
        try:
            answer = await self._answer(request)
        finally:
            self._answering -= 1
        headers = CIMultiDict(answer.headers)
        headers.update(self.api.guard.sharing(request.headers))
        headers["Server"] = SERVER
        headers["X-Kong-Admin-Latency"] = str(int((time.perf_counter() - started) * 1000))
        headers["X-Content-Type-Options"] = "nosniff"
        if answer.body or answer.content_type != JSON_TYPE:
            headers["Content-Type"] = answer.content_type
        if answer.stream is not None:
            return await self._stream(request, answer.status, headers, answer.stream)
        response = web.Response(status=answer.status, body=answer.body or None, headers=headers)
        if request.body_exists and not request.content.is_eof():
            response.force_close()  # the rest of the body is not worth reading
        return response

    async def _stream(
        self, request: web.BaseRequest, status: int, headers: CIMultiDict[str], stream: AsyncGenerator[bytes]
    ) -> web.StreamResponse:
        """Sends what comes until it ends, or until the client is gone or takes nothing for `SEND_TIMEOUT_S`."""
        response = web.StreamResponse(status=status, headers=headers)
        response.force_close()
        async with contextlib.aclosing(stream):
            try:
                await response.prepare(request)
                async for part in stream:
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        await response.write(part)
            except (ConnectionError, TimeoutError):
                if request.transport is not None:
                    request.transport.abort()
        return response

    async def _answer(self, request: web.BaseRequest) -> Answer:
        headers: Mapping[str, str] = request.headers
        target = request.raw_path
        if not target.startswith("/"):  # the absolute form that proxies use, whose host counts (RFC 9112, 3.2.2)
            headers = CIMultiDict(headers)
            headers["Host"] = target.partition("://")[2].partition("/")[0]
            target = request.rel_url.raw_path_qs
        call = Call(
            request.method if request.method in _STANDARD_METHODS else "OTHER",
            target,
            headers=headers,
            content_types=tuple(request.headers.getall("Content-Type", ())),
            has_body=request.body_exists,
            read_body=lambda bytes_max: self._read(request, bytes_max),
            remote=request.remote or "",
            limits=self._limits,
        )
        return await self.api.answer(call)

    async def _read(self, request: web.BaseRequest, bytes_max: int) -> bytes:
        def too_large() -> Refused:
            return Refused(
                413,
                f"the body is larger than {bytes_max} bytes; send less at a time, or raise the control plane's setting "
                "body_bytes_max (for files: declarative_bytes_max)",
            )

        if request.content_length is not None and request.content_length > bytes_max:
            raise too_large()
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused(415, "compressed bodies are not accepted; send it without Content-Encoding")
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the interim answer is no part of the real one
        if request.content.is_eof():  # all of it is here already, so there is nothing to wait for
            body = request.content.read_nowait()
            if len(body) > bytes_max:
                raise too_large()
            return body
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                async for chunk in request.content.iter_any():
                    size += len(chunk)
                    if size > bytes_max:
                        raise too_large()
                    chunks.append(chunk)
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {self._limits.body_timeout_s:g} s") from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _connections(self) -> Connections:
        assert self._http is not None
        return Connections(
            accepted=self._http.accepted,
            active=len(self._http.connections),
            requests=self._http.requests_count,
            writing=self._answering,
        )


class _Server(web.Server):
    """Makes our kind of connection, and counts them."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        connections_max: int,
        access_log: logging.Logger | None,
        keepalive_timeout: float,
        max_line_size: int,
        max_field_size: int,
        max_headers: int,
        auto_decompress: bool,
        lingering_time: float,
    ) -> None:
        super().__init__(
            handler,
            access_log=access_log,
            keepalive_timeout=keepalive_timeout,
            max_line_size=max_line_size,
            max_field_size=max_field_size,
            max_headers=max_headers,
            auto_decompress=auto_decompress,
            lingering_time=lingering_time,
        )
        self.accepted = 0
        self.connections_max = connections_max

    @override
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    """One client's connection; says JSON also where aiohttp itself refuses a request."""

    __slots__ = ()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        manager = self._manager
        assert isinstance(manager, _Server)
        manager.accepted += 1
        if len(manager.connections) > manager.connections_max:
            _log.warning("too many connections to the Admin API", extra={"most": manager.connections_max})
            self.force_close()

    @override
    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status >= 500 and exc is not None:
            _log.error("a connection to the Admin API failed", exc_info=exc)
        text = "An unexpected error occurred" if status >= 500 else f"bad request: {' '.join((message or '').split())}"
        if "Invalid method encountered" in text:  # of a list of the parser's; to Kong a method like any other
            status, text = 405, "Method not allowed"
        response = web.Response(
            status=status,
            body=json.dumps({"message": text[:500]}).encode(),
            headers={"Server": SERVER, "Content-Type": JSON_TYPE},
        )
        response.force_close()
        return response
