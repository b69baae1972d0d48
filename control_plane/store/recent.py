"""The versions that this process has just committed, kept for those who follow the store.

Whoever follows it would otherwise read back, row by row and from JSON, what was in memory a moment ago: with every
write under way that costs as much as the writing itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from control_plane.store.contract import Version

VERSIONS_MAX = 512
TEXT_MAX = 4 * 1024 * 1024
"""Characters of the JSON of all changes that are kept; as objects they take about five times as much."""


class Recent:
    """The newest versions without a gap between them; none after a version that is too large to keep."""

    def __init__(self, *, versions_max: int = VERSIONS_MAX, text_max: int = TEXT_MAX) -> None:
        self._versions_max = versions_max
        self._text_max = text_max
        self._kept: deque[tuple[Version, int]] = deque()
        self._text = 0

    def add(self, version: Version, text: int) -> None:
        """A version was committed; `text` = how many characters its changes take."""
        kept = self._kept
        if kept and kept[-1][0].number != version.number - 1:  # another control plane's lie between
            self._forget_all()
        kept.append((version, text))
        self._text += text
        while kept and (self._text > self._text_max or len(kept) > self._versions_max):
            self._text -= kept.popleft()[1]

    def above(self, number: int, *, head: int) -> Sequence[Version] | None:
        """All versions above `number` up to `head`, ascending; None when any of them is not at hand."""
        if number >= head:
            return ()
        kept = self._kept
        if not kept or kept[0][0].number > number + 1 or kept[-1][0].number != head:
            return None
        wanted = head - number
        newest = [version for version, _ in list(kept)[-wanted:]]
        return newest if len(newest) == wanted else None

    def _forget_all(self) -> None:
        self._kept.clear()
        self._text = 0
