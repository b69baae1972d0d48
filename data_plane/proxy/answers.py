"""The gateway's own answers: Kong's texts, in the form the client asked for (spec/proxy.md §10).

Two families differ in the type they take when `Accept` is missing: what the gateway decides (no route, no peer) is
JSON, what the HTTP engine decides (bad syntax, 502, 504) follows the request's `Content-Type` and else is plain
text. Messages are escaped for the form they go into.
"""

from __future__ import annotations

import json
from html import escape

from data_plane.proxy.head import RequestHead

REASONS = {
    200: "OK",
    301: "Moved Permanently",
    302: "Found",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Request Entity Too Large",
    414: "Request-URI Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}

BAD_GATEWAY = "An invalid response was received from the upstream server"
UNAVAILABLE = "The upstream server is currently unavailable"
TIMING_OUT = "The upstream server is timing out"
UNEXPECTED = "An unexpected error occurred"
ENGINE_MESSAGES = {500: UNEXPECTED, 502: BAD_GATEWAY, 503: UNAVAILABLE, 504: TIMING_OUT}

JSON = "application/json; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
XML = "application/xml; charset=utf-8"
GRPC = "application/grpc"

_TYPES = {
    "application/json": JSON,
    "text/html": HTML,
    "application/xml": XML,
    "text/plain": PLAIN,
    "application/grpc": GRPC,
    "*/*": JSON,
    "application/*": JSON,
    "text/*": PLAIN,
}

_GRPC_CODES = {200: 0, 400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 499: 1, 500: 13, 501: 12, 503: 14, 504: 4}
_ACCEPT_BYTES_MAX = 1024


def answer_type(head: RequestHead | None, *, engine: bool) -> str:
    """Return the content type to answer in. Without a head (it was malformed) there is nothing to negotiate on."""
    if head is None:
        return PLAIN
    content = head.values(b"content-type")
    if content and content[0].startswith(b"application/grpc"):
        return GRPC
    accept = head.values(b"accept")
    if accept:
        return _best(b",".join(accept)[:_ACCEPT_BYTES_MAX].decode("latin-1"))
    if not engine:
        return JSON
    return _best(content[0].decode("latin-1")) if content else PLAIN


def _best(accept: str) -> str:
    best, best_quality = JSON, 0.0
    for item in accept.split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        if quality > best_quality and name:
            best, best_quality = _TYPES.get(name.lower(), JSON), quality
    return best


def body(content_type: str, message: str, request_id: str) -> bytes:
    """Return the body of an answer in that type; gRPC callers get theirs in fields (`grpc_fields`)."""
    if content_type == JSON:
        return f'{{\n  "message":{json.dumps(message)},\n  "request_id":"{request_id}"\n}}'.encode()
    if content_type == HTML:
        return (
            "<!doctype html>\n<html>\n  <head>\n"
            '    <meta charset="utf-8">\n    <title>Error</title>\n  </head>\n  <body>\n    <h1>Error</h1>\n'
            f"    <p>{escape(message)}.</p>\n    <p>request_id: {request_id}</p>\n  </body>\n</html>\n"
        ).encode()
    if content_type == XML:
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<error>\n'
            f"  <message>{escape(message)}</message>\n  <requestid>{request_id}</requestid>\n</error>\n"
        ).encode()
    if content_type == GRPC:
        return b""
    return f"{message}\nrequest_id: {request_id}\n".encode()


def grpc_fields(status: int, message: str) -> tuple[bytes, ...]:
    """Return the fields that tell a gRPC caller what happened."""
    code = _GRPC_CODES.get(status, {5: 13, 4: 3, 2: 0}.get(status // 100, 2))
    return (b"grpc-status: %d" % code, b"grpc-message: " + message.encode("latin-1", "replace"))


def redirect_type(status: int) -> bytes:
    """Return the content type of that page: those nginx does not redirect by are Kong's own pages."""
    return b"text/html" if status in (301, 302) else b"text/html; charset=UTF-8"


def redirect_body(status: int) -> bytes:
    """Return the page that goes with a redirect: nginx's, as Kong sends it."""
    title = f"{status} {REASONS[status]}"
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "</body>\r\n</html>\r\n"
    ).encode()


def status_line(status: int) -> bytes:
    """Return the first line of an answer of ours."""
    return f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}".encode()
