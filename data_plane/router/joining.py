"""The path that goes upstream: the service's own path joined with what the route left of the request's.

The rule is Kong's `path_handling`: v0 for everybody, v1 only in flavour `traditional` (elsewhere Kong accepts and
ignores it). The table of all cases is in the specification; the conformance vectors hold every row.
"""

from __future__ import annotations

from data_plane.router.router import Match
from pointsman.rules.paths import encode_for_upstream


def upstream_path(match: Match, base: bytes) -> bytes:
    """Return the path as it is written on the upstream's request line, without the query.

    `base` is the service's path as stored, `/` or empty when it has none.
    """
    base = base or b"/"
    if match.joins_v1:
        return encode_for_upstream(_join_v1(match, base))
    request = match.path
    if not match.route.strip_path:
        if base.endswith(b"/"):
            return encode_for_upstream(base + request[1:])
        return encode_for_upstream(base if request == b"/" else base + request)
    rest = _rest(match)
    if not rest:
        slash = request.endswith(b"/")
        if base == b"/":
            return base
        if base.endswith(b"/"):
            return encode_for_upstream(base if slash else base[:-1])
        return encode_for_upstream(base + b"/" if slash and len(request) > 1 else base)
    if base.endswith(b"/"):
        base = base[:-1]
    return encode_for_upstream(base + rest if rest.startswith(b"/") else base + b"/" + rest)


def _join_v1(match: Match, base: bytes) -> bytes:
    if not match.route.strip_path:
        return base + match.path[1:]
    rest = _rest(match)
    return base + rest[1:] if base.endswith(b"/") and rest.startswith(b"/") else base + rest


def _rest(match: Match) -> bytes:
    """What follows the matched part. A dot segment that the cut has made is taken out: `/route../x` must not climb."""
    matched = match.matched_path
    rest = match.path[1 if matched is None else len(matched) :]
    if rest in (b".", b".."):
        return b""
    if rest.startswith(b"./"):
        return rest[2:]
    if rest.startswith(b"../"):
        return rest[3:]
    return rest
