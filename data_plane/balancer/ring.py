"""Consistent hashing: a ring of points, and for a key the next point's endpoint that may be picked.

The ring depends on nothing but the endpoints' keys and weights, so all workers of all nodes map a key alike, in
whatever order targets were made or DNS answered. How many points an endpoint has depends on its own weight and on the
heaviest one's only: adding or removing another one moves the keys of that one, and none between those that stay (but
where the heaviest weight crosses a power of two, or the number of endpoints the limit below). Kong's ring has numbered
slots that points compete for, and collapses when they run out, at 62 targets by default; here a point may be anywhere
on a circle of 32 bits, and two at the same place stand in an order that is the same everywhere.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Generator, Sequence

from xxhash import xxh32_intdigest

from data_plane.balancer.endpoint import Endpoint
from data_plane.balancer.policy import STEP, Steps, at_once, let_go

# Points of the heaviest endpoint: between this and twice as many. The share of an endpoint with n points varies by
# about 1 / sqrt(n) of itself: 3 percent and less. A larger ring gives each endpoint fewer, so that
# it has not many more than 131,072 points, or making it would take too long: (up to so many endpoints, this many).
_POINTS_MIN = ((64, 1024), (512, 128))
_POINTS_MIN_LARGEST = 16

_OWNER_BITS = 32
_PIECES = 64
_PIECE_SHIFT = 58
_POINTS_A_STEP = 1000
_POINTS_MADE_A_STEP = 200
_OWNER_MASK = (1 << _OWNER_BITS) - 1


class ConsistentHashing:
    """The policy. An endpoint that is down is walked past, so only its own keys move, and they come back with it."""

    def __init__(self) -> None:
        self._owners: dict[int, Endpoint] = {}
        self._counts: dict[Endpoint, tuple[int, int]] = {}  # owner number and points
        # Where a point is in the upper half, the number of its owner in the lower.
        self._points: list[int] = []

    def reconcile(self, endpoints: Sequence[Endpoint]) -> None:
        at_once(self.reconcile_steps(endpoints))

    def reconcile_steps(self, endpoints: Sequence[Endpoint]) -> Steps:
        before = self._counts
        counts = yield from _points_of(endpoints)
        gone = {before[endpoint][0] for endpoint in before if before[endpoint] != counts.get(endpoint)}
        # Sorted in pieces of the circle: one sort of a large ring would hold up requests.
        pieces: list[list[int]] = [[] for _ in range(_PIECES)]
        yield
        for start in range(0, len(self._points), _POINTS_A_STEP):
            for point in self._points[start : start + _POINTS_A_STEP]:
                if point & _OWNER_MASK not in gone:
                    pieces[point >> _PIECE_SHIFT].append(point)
            yield
        owners: dict[int, Endpoint] = {}
        for number, (endpoint, (owner, count)) in enumerate(counts.items()):
            owners[owner] = endpoint
            if before.get(endpoint) != (owner, count):
                # The index is part of the text, as in Kong. As the hash's seed it would not do: hashes of one text by
                # seeds in a row are related, and with a thousand points some endpoints got twice the share of others.
                name = endpoint.key.encode() + b" "
                for index in range(1, count + 1):
                    point = xxh32_intdigest(name + b"%d" % index) << _OWNER_BITS | owner
                    pieces[point >> _PIECE_SHIFT].append(point)
                    if index % _POINTS_MADE_A_STEP == 0:
                        yield
            if number % 8 == 0:
                yield
        points: list[int] = []
        for piece in pieces:
            piece.sort()
            points += piece
            yield
        old, old_owners = self._points, self._owners
        self._points, self._counts, self._owners = points, counts, owners
        while old:  # letting go of a large ring at once takes as long as sorting it
            yield
            del old[-_POINTS_A_STEP:]
        yield from let_go(before, old_owners)

    def availability_changed(self, endpoint: Endpoint) -> None:
        """Nothing to do: the ring stays as it is, and the walk asks."""

    def pick(self, excluded: Collection[Endpoint], key: bytes) -> Endpoint | None:
        points = self._points
        size = len(points)
        start = bisect_left(points, xxh32_intdigest(key) << _OWNER_BITS)
        for step in range(size):
            at = start + step
            endpoint = self._owners[points[at if at < size else at - size] & _OWNER_MASK]
            if endpoint.available and endpoint not in excluded:
                return endpoint
        return None


def _points_of(endpoints: Sequence[Endpoint]) -> Generator[None, None, dict[Endpoint, tuple[int, int]]]:
    """Give each endpoint a number of its own and how many points it has."""
    if not endpoints:
        return {}
    least = next((points for most, points in _POINTS_MIN if len(endpoints) <= most), _POINTS_MIN_LARGEST)
    heaviest = max(endpoint.weight for endpoint in endpoints)
    # The weight by a power of two. The next power doubles the points, and the first half stay where they were.
    doublings = 0
    while heaviest << doublings < least:
        doublings += 1
    halvings = 0
    while heaviest >> halvings >= 2 * least:
        halvings += 1
    taken: set[int] = set()
    counts = {}
    for number, endpoint in enumerate(sorted(endpoints, key=lambda endpoint: endpoint.key)):
        if number % STEP == 0:
            yield
        owner = xxh32_intdigest(endpoint.key.encode())
        while owner in taken:
            owner = (owner + 1) & _OWNER_MASK
        taken.add(owner)
        counts[endpoint] = (owner, max(1, (endpoint.weight << doublings) >> halvings))
    return counts
