"""The `Prefer` header (RFC 7240): how long a writer will wait for the nodes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

_PREFERENCE = re.compile(
    r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*))?\s*(?:;(?:"(?:[^"\\]|\\.)*"|[^,"])*)?(?:,|$)'
)


def wait_seconds(header: str | None, *, wait_s_max: float) -> float | None:
    """The wait asked for, cut to the most we grant; None = not asked for.

    A preference that is not understood is as good as not sent, says the RFC; `Preference-Applied` in the answer tells
    the client what counted. The first of several counts.
    """
    for name, value in _preferences(header):
        if name == "wait":
            return _seconds(value, wait_s_max)
    return None


def wants_rollout(header: str | None) -> bool:
    """Whether the write is to be rolled out to all nodes at one instant."""
    return any(name == "rollout" for name, _ in _preferences(header))


def _preferences(header: str | None) -> Iterator[tuple[str, str]]:
    position = 0
    while header and position < len(header):
        found = _PREFERENCE.match(header, position)
        if found is None or found.end() == position:
            return
        position = found.end()
        yield found[1].lower(), (found[2] or "").strip('"')


def _seconds(text: str, wait_s_max: float) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    if not math.isfinite(seconds) or seconds < 0:
        return None
    return min(seconds, wait_s_max)
