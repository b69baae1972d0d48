"""`python -m tests.support.origin_apps.serve SERVER PORT`: one origin in this process, on loopback, until killed."""

# mypy: disable-error-code="import-not-found, import-untyped, misc"
# The servers are not in the venv, see tests/support/origins.py.
from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from typing_extensions import override

from tests.support.origin_apps.asgi import app as asgi_app
from tests.support.origin_apps.report import note
from tests.support.origin_apps.wsgi import app as wsgi_app

HOST = "127.0.0.1"


def serve_aiohttp(port: int) -> None:
    """aiohttp's own server."""
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        return web.Response(body=note(request.method, body, target=request.raw_path))

    application = web.Application(client_max_size=64 << 20)
    application.router.add_route("*", "/{rest:.*}", handle)
    web.run_app(application, host=HOST, port=port, print=None, access_log=None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Read what Content-Length says, or chunks as they come, and say what came."""
        if self.headers.get("Transfer-Encoding"):
            body = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            length = int(self.headers.get("Content-Length", "0"))
            body = self.rfile.read(length)
            if len(body) < length:
                # Cut off inside: no request, and this server leaves it to its handlers to find out.
                self.close_connection = True
                return
        line = note(self.command, body, target=self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(line)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(line)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = answer

    @override
    def log_message(self, format: str, *args: object) -> None:
        return


def serve_http_server(port: int) -> None:
    """The standard library's http.server."""
    ThreadingHTTPServer((HOST, port), _Handler).serve_forever()


def serve_tornado(port: int) -> None:
    """tornado."""
    import tornado.httpserver
    import tornado.httputil

    def handle(request: tornado.httputil.HTTPServerRequest) -> None:
        line = note(request.method or "", request.body, target=request.uri or "")
        assert request.connection is not None
        start = tornado.httputil.ResponseStartLine("HTTP/1.1", 200, "OK")
        fields = tornado.httputil.HTTPHeaders({"Content-Length": str(len(line))})
        request.connection.write_headers(start, fields, b"" if request.method == "HEAD" else line)
        request.connection.finish()

    async def run() -> None:
        tornado.httpserver.HTTPServer(handle).listen(port, HOST)
        await asyncio.Event().wait()

    asyncio.run(run())


def serve_twisted(port: int) -> None:
    """twisted.web."""
    from twisted.internet import reactor
    from twisted.web import resource, server

    class Books(resource.Resource):
        isLeaf = True

        def render(self, request: server.Request) -> bytes:
            target = request.uri.decode("latin-1")
            return note(request.method.decode("latin-1"), request.content.read(), target=target)

    reactor.listenTCP(port, server.Site(Books()), interface=HOST)
    reactor.run()


def serve_gunicorn(port: int) -> None:
    """gunicorn with threads, so that it keeps connections."""
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):
        def load_config(self) -> None:
            for name, value in {
                "bind": f"{HOST}:{port}", "worker_class": "gthread", "threads": 8, "loglevel": "critical",
                "keepalive": 60,
            }.items():  # fmt: skip
                self.cfg.set(name, value)

        def load(self) -> object:
            return wsgi_app

    Application().run()


def serve_waitress(port: int) -> None:
    """waitress."""
    import waitress

    waitress.serve(wsgi_app, host=HOST, port=port, threads=8, _quiet=True)


def serve_werkzeug(port: int) -> None:
    """werkzeug's development server, keeping connections."""
    from werkzeug.serving import WSGIRequestHandler, run_simple

    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    run_simple(HOST, port, wsgi_app, threaded=True)


def serve_cheroot(port: int) -> None:
    """cheroot."""
    from cheroot.wsgi import Server

    Server((HOST, port), wsgi_app, numthreads=16).start()


def _uvicorn(port: int, parser: str) -> None:
    import uvicorn

    uvicorn.run(asgi_app, host=HOST, port=port, http=parser, ws="none", lifespan="off", log_level="critical")


def serve_uvicorn_h11(port: int) -> None:
    """uvicorn on h11."""
    _uvicorn(port, "h11")


def serve_uvicorn_httptools(port: int) -> None:
    """uvicorn on llhttp."""
    _uvicorn(port, "httptools")


def serve_hypercorn(port: int) -> None:
    """hypercorn."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.loglevel = "CRITICAL"
    asyncio.run(serve(asgi_app, config))


SERVERS: dict[str, Callable[[int], None]] = {
    "aiohttp": serve_aiohttp,
    "http.server": serve_http_server,
    "tornado": serve_tornado,
    "twisted": serve_twisted,
    "gunicorn": serve_gunicorn,
    "waitress": serve_waitress,
    "werkzeug": serve_werkzeug,
    "cheroot": serve_cheroot,
    "uvicorn-h11": serve_uvicorn_h11,
    "uvicorn-httptools": serve_uvicorn_httptools,
    "hypercorn": serve_hypercorn,
}

if __name__ == "__main__":
    SERVERS[sys.argv[1]](int(sys.argv[2]))
