"""What nodes at other control planes have counted of a service's sides, for whoever weighs the sides here.

Asked once a second while somebody weighs; the others answer with the sums of all their live nodes, those that have
counted nothing too, so it is known which nodes are seen and which are not. What gets lost is asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.fleet import relay_words as said
from control_plane.fleet.nodes import Nodes
from control_plane.fleet.side_figures import REPORT_EVERY_S, SideBook, SideFigures
from pointsman.rules.latency_buckets import BUCKETS

FRESH_S = 5.0
"""A node of which nothing was heard for so long is not seen any more."""
FORGOTTEN_S = 60.0
"""What nobody asks for any more is kept for so long."""
NODES_TOLD_MAX = 256
"""Live nodes that one control plane tells of, so that a large fleet does not fill the database's queue of words."""
NODES_KEPT_MAX = 2048

Sides = Mapping[str, SideFigures]


@dataclass(slots=True)
class _Service:
    """What was heard of one service, by node: when, and the sums by upstream."""

    asked_at: float = float("-inf")
    wanted_at: float = 0.0
    nodes: dict[str, tuple[float, Sides]] = field(default_factory=dict)


class DistantSides:
    """Asks and answers; one per process. `book` has what our own nodes count."""

    def __init__(
        self,
        nodes: Nodes,
        book: SideBook,
        *,
        tell: Callable[[str, said.Word], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes = nodes
        self._book = book
        self._tell = tell
        self._clock = clock
        self._services: dict[str, _Service] = {}

    def figures(self, service: str) -> Mapping[str, Sides]:
        """The newest sums of a service's sides by node and upstream, of nodes that are seen; asks for newer ones."""
        now = self._clock()
        for old in [key for key, each in self._services.items() if now - each.wanted_at > FORGOTTEN_S]:
            del self._services[old]
        kept = self._services.setdefault(service, _Service())
        kept.wanted_at = now
        if now - kept.asked_at >= REPORT_EVERY_S:
            kept.asked_at = now
            for plane in self._nodes.other_planes:
                self._tell(plane, said.Weigh(service))
        for node in [node for node, (at, _) in kept.nodes.items() if now - at > FRESH_S]:
            del kept.nodes[node]
        return {node: sides for node, (_, sides) in kept.nodes.items()}

    def heard(self, sender: str, word: said.Word) -> bool:
        """A word of another control plane's; whether it was about sides."""
        match word:
            case said.Weigh(service=service):
                for portion in _portions(service, self._own(service)):
                    self._tell(sender, portion)
            case said.Weighed(service=service):
                kept = self._services.get(service)
                if kept is None:
                    return True
                for node, sides in word.nodes.items():
                    if node in kept.nodes or len(kept.nodes) < NODES_KEPT_MAX:
                        kept.nodes[node] = self._clock(), {upstream: unpacked(sums) for upstream, sums in sides.items()}
            case _:
                return False
        return True

    def _own(self, service: str) -> Iterator[tuple[str, Mapping[str, Sequence[int]]]]:
        counted = self._book.figures(service)
        for node in self._nodes.live()[:NODES_TOLD_MAX]:
            yield node.id, {upstream: packed(sums) for upstream, sums in counted.get(node.id, {}).items()}


def _portions(service: str, nodes: Iterator[tuple[str, Mapping[str, Sequence[int]]]]) -> Iterator[said.Weighed]:
    portion: dict[str, Mapping[str, Sequence[int]]] = {}
    size = 0
    for node, sides in nodes:
        cost = 50 + sum(50 + 12 * len(sums) for sums in sides.values())
        if portion and size + cost > said.PART_BYTES_MAX:
            yield said.Weighed(service, portion)
            portion, size = {}, 0
        portion[node] = sides
        size += cost
    if portion:
        yield said.Weighed(service, portion)


def packed(sums: SideFigures) -> list[int]:
    """The sums as they travel: five numbers, and a pair for each bucket of latencies that is not empty."""
    told = [sums.requests, sums.errors_5xx, sums.connect_errors, sums.open, sums.since]
    for bucket, count in enumerate(sums.latency_counts):
        if count:
            told += [bucket, count]
    return told


def unpacked(told: Sequence[int]) -> SideFigures:
    """The sums again."""
    requests, errors_5xx, connect_errors, under_way, since, *pairs = told
    counts = [0] * BUCKETS
    for bucket, count in zip(pairs[::2], pairs[1::2], strict=True):
        counts[bucket] = count
    return SideFigures(requests, errors_5xx, connect_errors, tuple(counts), under_way, since)
