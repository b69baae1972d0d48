"""Several that follow what becomes active, as the one that the applier knows."""

from __future__ import annotations

from collections.abc import Sequence

from data_plane.node.applying import HealthFollower
from data_plane.node.diff import Diff


class Followers:
    """Tells all of them, in order; what each has to say to a new worker is said one after the other."""

    def __init__(self, *followers: HealthFollower) -> None:
        self._followers = followers

    def deciding(self, diff: Diff) -> None:
        """`diff` is about to become active."""
        for follower in self._followers:
            follower.deciding(diff)

    def active(self) -> None:
        """It is, in all workers, or it was taken back."""
        for follower in self._followers:
            follower.active()

    def whole(self) -> Sequence[bytes]:
        """What a new worker must be told first."""
        return [message for follower in self._followers for message in follower.whole()]
