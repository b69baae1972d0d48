"""The WSGI application for gunicorn, waitress, werkzeug and cheroot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import BinaryIO, cast

from tests.support.origin_apps.report import note


def app(environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """Read the body to its end and say what came."""
    stream = cast(BinaryIO, environ["wsgi.input"])
    if environ.get("CONTENT_LENGTH"):
        length = int(str(environ["CONTENT_LENGTH"]))
        body = stream.read(length)
        if len(body) < length:
            # Cut off inside: no request. Some servers leave it to the application to find out.
            raise EOFError("the body is not whole")
    elif environ.get("HTTP_TRANSFER_ENCODING") or environ.get("wsgi.input_terminated"):
        body = stream.read()
    else:
        body = b""
    method = str(environ["REQUEST_METHOD"])
    target = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "")
    path, query = str(environ.get("PATH_INFO", "")), str(environ.get("QUERY_STRING", ""))
    line = note(method, body, target=target, path=path, query=query)
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(line)))])
    return [line]
