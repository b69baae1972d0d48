"""What writers of uniquely named services were told of their writes, and whether the history agrees with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from control_plane.store.contract import Version


@dataclass
class Told:
    """Names by the version that was acknowledged, names that were refused, and how long each answer took."""

    acknowledged: dict[int, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def check(self, history: Sequence[Version]) -> dict[int, str]:
        """Versions are dense, what was acknowledged is there once, and nothing is that nobody wrote.

        Returns the name that each version made first.
        """
        assert [version.number for version in history] == list(range(1, len(history) + 1))
        names = {version.number: str((version.changes[0].after or {})["name"]) for version in history}
        assert max(Counter(names.values()).values()) == 1, "nothing is there twice"
        assert {number: names.get(number) for number in self.acknowledged} == self.acknowledged
        assert set(names.values()) <= {*self.acknowledged.values(), *self.refused}
        return names
