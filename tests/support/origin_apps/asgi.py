"""The ASGI application for uvicorn and hypercorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.support.origin_apps.report import note


async def app(
    scope: dict[str, object],
    receive: Callable[[], Awaitable[dict[str, object]]],
    send: Callable[[dict[str, object]], Awaitable[None]],
) -> None:
    """Read the body to its end and say what came."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return
        piece = event.get("body", b"")
        assert isinstance(piece, bytes)
        body += piece
        if not event.get("more_body"):
            break
    raw, query = scope["raw_path"], scope["query_string"]
    assert isinstance(raw, bytes)
    assert isinstance(query, bytes)
    # `raw_path` is without the query; an empty query and none are one here.
    target = raw.partition(b"?")[0] + (b"?" + query if query else b"")
    line = note(str(scope["method"]), body, target=target.decode("latin-1"))
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(line)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": line})
