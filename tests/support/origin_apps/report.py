"""What an origin says that it got: one JSON line a request, appended to the file named by ORIGIN_BOOKS.

`target` is the request target as it stood on the request line, where the server hands it on; else `path` is the decoded
path and `query` what came behind. Octets travel as latin-1. Imported by programs that have only their own server.
"""

from __future__ import annotations

import hashlib
import json
import os


def note(method: str, body: bytes, *, target: str = "", path: str = "", query: str = "") -> bytes:
    """Write one line and return it, as the answer's body."""
    entry = {"method": method, "sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
    if target:
        entry["target"] = target
    else:
        entry["path"], entry["query"] = path, query
    line = json.dumps(entry).encode() + b"\n"
    books = os.open(os.environ["ORIGIN_BOOKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(books, line)
    finally:
        os.close(books)
    return line
