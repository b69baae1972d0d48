"""The `Prefer` header (RFC 7240): how long a writer will wait for the nodes."""

from __future__ import annotations

import math
import re

_PREFERENCE = re.compile(
    r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*))?\s*(?:;(?:"(?:[^"\\]|\\.)*"|[^,"])*)?(?:,|$)'
)


def wait_seconds(header: str | None, *, wait_s_max: float) -> float | None:
    """The wait asked for, cut to the most we grant; None = not asked for.

    A preference that is not understood is as good as not sent, says the RFC; `Preference-Applied` in the answer tells
    the client what counted. The first of several counts.
    """
    if not header:
        return None
    position = 0
    while position < len(header):
        found = _PREFERENCE.match(header, position)
        if found is None or found.end() == position:
            return None
        position = found.end()
        if found[1].lower() == "wait":
            return _seconds((found[2] or "").strip('"'), wait_s_max)
    return None


def _seconds(text: str, wait_s_max: float) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    if not math.isfinite(seconds) or seconds < 0:
        return None
    return min(seconds, wait_s_max)
