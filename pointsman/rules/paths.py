"""Path normalising, as the router of both planes sees it (spec: Kong's router, selective percent-decoding).

The control plane refuses route prefixes that are not in this form; a node brings each request path into it before
matching, and into `encode_for_upstream`'s form before sending. Everything works on bytes: a path is bytes until someone
proves that it is UTF-8.
"""

from __future__ import annotations

import re

# Escapes of these characters mean something else than the character, so they stay escaped.
_RESERVED = frozenset(b"!*'();:@&=+$,/?%#[]")
_HEX_DIGITS = frozenset(b"0123456789ABCDEFabcdef")
# An escape, with the beginning of a broken one (`%` or `%4`) if that stands right before it.
_ESCAPE = re.compile(rb"(%[0-9A-Fa-f]?(?=%))?%([0-9A-Fa-f]{2})")
_SLASHES = re.compile(rb"/{2,}")

# A path without any of these is normal already: no escape, no empty segment, no segment that starts with a dot.
_WORK_TO_DO = re.compile(rb"%|//|/\.")

_UNSAFE = re.compile(rb"[^A-Za-z0-9\-_.~!#$&'()*+,/:;=?@\[\]%]")


def _decoded(match: re.Match[bytes]) -> bytes:
    stray, digits = match.groups(b"")
    value = int(digits, 16)
    # Behind a stray `%` a decoded digit would complete a new escape: `/%%36%31dmin` would become `/%61dmin`, pass the
    # route of `/admin` and be read as that by the upstream server. Left alone it stays what it is on either side.
    kept = value in _RESERVED or (stray and value in _HEX_DIGITS)
    return stray + (b"%" + digits.upper() if kept else bytes((value,)))


def normalise(raw: bytes) -> bytes:
    """Return the normal form of a raw request path (without its query); normalising that again changes nothing.

    Escapes of reserved characters keep their escape, in upper case; all other escapes become the raw byte, once. A `%`
    that is no escape stays, and so does the escape of a hex digit right behind one. Then runs of slashes become one and
    dot segments are resolved, `..` at the root being dropped.
    Returns the very same object when there is nothing to do.
    """
    if _WORK_TO_DO.search(raw) is None:
        return raw
    path = _ESCAPE.sub(_decoded, raw) if b"%" in raw else raw
    if b"//" in path:
        path = _SLASHES.sub(b"/", path)
    return _without_dot_segments(path) if b"/." in path else path


def _without_dot_segments(path: bytes) -> bytes:
    kept: list[bytes] = []
    segments = path.split(b"/")
    for segment in segments[1:]:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment != b".":
            kept.append(segment)
    # `/a/b/..` and `/a/b/.` name the folder, so its slash stays.
    if segments[-1] in {b".", b".."}:
        kept.append(b"")
    return b"/" + b"/".join(kept)


def is_normalised(path: bytes) -> bool:
    """Tell whether `path` is its own normal form."""
    return normalise(path) == path


def encode_for_upstream(path: bytes) -> bytes:
    """Return the path as it is written on an upstream's request line.

    Bytes that may not stand there are escaped in upper case; `%` passes as it is, so what came escaped stays escaped
    and a stray one is passed on. Returns the very same object when there is nothing to do.
    """
    if _UNSAFE.search(path) is None:
        return path
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], path)
