"""The other sides of a service: which upstream a request goes to when its settings name more than the host.

Asked once a request, of services with a preview, a split or a mirror only. The operator's mark goes first, so that a
tester sees the new side whatever the split says; then the split; what is left is the primary side's, and of that a
share is mirrored. All attempts of a request keep to its side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_plane.balancer.hash_input import cookie_value, input_value
from data_plane.balancer.turns import in_share
from data_plane.proxy.choosing import facts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data_plane.balancer.turns import Turn
    from data_plane.model import Mirror, Preview, Split
    from data_plane.observe.side_counts import SideBook
    from data_plane.proxy.client import ClientConnection
    from data_plane.proxy.head import RequestHead
    from data_plane.proxy.tables import Plan, ServiceRuntime


class Sides:
    """See the module. Each setting comes with the runtime of the side that it names, None with None."""

    __slots__ = ("_mark", "_mirror", "_mirror_turn", "_preview", "_service", "_split", "_split_turn")

    def __init__(
        self,
        service: str,
        *,
        preview: tuple[Preview, ServiceRuntime] | None = None,
        split: tuple[Split, ServiceRuntime] | None = None,
        mirror: tuple[Mirror, ServiceRuntime] | None = None,
    ) -> None:
        self._service = service
        self._preview = preview
        self._mark = _Mark(preview[0]) if preview is not None else None
        self._split = split
        self._mirror = mirror
        self._split_turn: Turn
        self._mirror_turn: Turn

    def count_in(self, book: SideBook) -> None:
        """Find the figures of all sides, and where the counting out had come to."""
        self._split_turn, self._mirror_turn = book.turns(self._service)
        for runtime in self.runtimes():
            runtime.count_in(book)

    def runtimes(self) -> Iterator[ServiceRuntime]:
        """Yield the runtimes of all other sides."""
        for side in (self._preview, self._split, self._mirror):
            if side is not None:
                yield side[1]

    def in_use(self) -> Iterator[str]:
        """Yield the ids of the upstreams that clients' requests may go to."""
        if self._preview is not None:
            yield self._preview[1].side
        if self._split is not None and self._split[0].share:
            yield self._split[1].side

    def other(self, plan: Plan, client: ClientConnection) -> ServiceRuntime | None:
        """Return the side that the client's request goes to, None for the primary one."""
        marked = self.by_mark(client.head)
        if marked is not None:
            return marked
        if self._split is None:
            return None
        split, side = self._split
        if split.sticky is not None and split.share:
            key = input_value(split.sticky.on, split.sticky.name, facts_of(plan, client))
            if key is not None:
                return side if in_share(self._service, key, split.share) else None
        return side if self._split_turn.taken(split.share) else None

    def by_mark(self, head: RequestHead) -> ServiceRuntime | None:
        """Return the side that a request with the operator's mark goes to, None for one without."""
        if self._preview is not None and self._mark is not None and self._mark.on(head):
            return self._preview[1]
        return None

    def mirrored_to(self) -> ServiceRuntime | None:
        """Return where the next request of the primary side is sent, too; None = nowhere."""
        if self._mirror is None or not self._mirror_turn.taken(self._mirror[0].share):
            return None
        return self._mirror[1]


class _Mark:
    """The operator's mark as it stands in a request."""

    __slots__ = ("_cookie", "_header", "_value")

    def __init__(self, preview: Preview) -> None:
        self._header = preview.header.lower().encode("latin-1", "replace")
        self._cookie = preview.cookie.encode()
        self._value = preview.value.encode("latin-1", "replace")

    def on(self, head: RequestHead) -> bool:
        if self._header and self._value in head.values(self._header):
            return True
        return bool(self._cookie) and cookie_value(head.values(b"cookie"), self._cookie) == self._value
