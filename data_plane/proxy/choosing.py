"""What one request adds to the choice among endpoints, and what its attempts tell about them.

Only for upstreams that are not `plain`: those that hash, keep sessions, measure times or watch outcomes. A request to
any other upstream never makes one of these. The exchange owns it and tells it how each attempt ended.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_plane.balancer.hash_input import HashFacts, cookie_value, hash_input
from data_plane.health.passive import Sighting

if TYPE_CHECKING:
    from data_plane.balancer import Endpoint, Upstream
    from data_plane.model import UpstreamConfig
    from data_plane.proxy.client import ClientConnection
    from data_plane.proxy.tables import Plan

_TIMED_OUT = 504


class Choice:
    """See the module. `key` is what picks go by: the request's hash input, or its session's cookie."""

    __slots__ = ("_cookie", "_sticky", "_upstream", "key")

    def __init__(self, upstream: Upstream, plan: Plan, client: ClientConnection) -> None:
        self._upstream = upstream
        self._sticky = upstream.sticky
        self._cookie: bytes | None = None
        self.key = b""
        if upstream.hashing is not None:
            self._hash(upstream.hashing, plan, client)
        elif self._sticky is not None:
            name = self._sticky.sticky_sessions_cookie.encode()
            self.key = cookie_value(client.head.values(b"cookie"), name) or b""

    def _hash(self, config: UpstreamConfig, plan: Plan, client: ClientConnection) -> None:
        found = hash_input(config, facts_of(plan, client), make_id=lambda: str(uuid.uuid4()))
        self.key = found.key
        self._cookie = found.set_cookie

    def answering(self, endpoint: Endpoint, lines: list[bytes]) -> None:
        """Add the cookie to an answer's head, if the client has to be given one."""
        cookie = self._cookie
        sticky = self._sticky
        if sticky is not None:
            session = self._upstream.session_of(endpoint)
            if session != self.key:
                name, path = sticky.sticky_sessions_cookie.encode(), sticky.sticky_sessions_cookie_path.encode()
                cookie = b"%s=%s; Path=%s; SameSite=Lax; HttpOnly" % (name, session, path)
        if cookie is not None:
            lines[:] = _without_cookie(lines, cookie[: cookie.find(b"=") + 1])
            lines.append(b"Set-Cookie: " + cookie)

    def answered(self, endpoint: Endpoint, status: int, began: float) -> None:
        """An attempt ended with a whole answer; `began` is its start by CLOCK_MONOTONIC."""
        upstream = self._upstream
        if upstream.measures:
            upstream.observe(endpoint, time.monotonic() - began)
        if upstream.watches:
            upstream.saw(endpoint, Sighting.STATUS, status)

    def failed(self, endpoint: Endpoint, status: int, began: float) -> None:
        """An attempt ended without a whole answer: `status` is 504 when it took too long, else 502."""
        upstream = self._upstream
        if upstream.measures:
            upstream.observe(endpoint, time.monotonic() - began, failed=True)
        if upstream.watches:
            upstream.saw(endpoint, Sighting.TIMEOUT if status == _TIMED_OUT else Sighting.TCP_FAILURE)


def facts_of(plan: Plan, client: ClientConnection) -> HashFacts:
    """Return what hashing may ask about the request that the client has sent last."""
    head = client.head

    def header_values(name: str) -> Sequence[bytes]:
        return head.values(name.encode("latin-1", "replace"))

    return HashFacts(
        client_ip=client.peer.client_address(head).decode("latin-1"),
        header_values=header_values,
        path=head.path,
        query=head.query[1:],
        captures=plan.captures or {},
    )


def _without_cookie(segments: list[bytes], begin: bytes) -> list[bytes]:
    """The lines without the upstream's own cookie of that name; others' stay."""
    kept: list[bytes] = []
    for segment in segments:
        if b"set-cookie" not in segment.lower():
            kept.append(segment)
            continue
        for line in segment.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() != b"set-cookie" or not value.strip().startswith(begin):
                kept.append(line)
    return kept
