"""Why a route won and others did not, told by the very tables and tests that serve.

For the route tester, never for traffic: it walks over all candidates, in steps, so that a worker can go on serving in
between. The winner is what `Router.winner` says; every other candidate is asked condition by condition, with the tests
that a search applies. What comes nearest is shown: candidates that hold but rank lower, then those with the fewest
failed conditions, the higher rank first.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator
from dataclasses import dataclass

from data_plane.flavours import TRADITIONAL
from data_plane.model import RouteConfig
from data_plane.router.candidate import Candidate, Facts
from data_plane.router.router import Router

NEAR_MAX = 10
VALUES_SHOWN_MAX = 8
TEXT_SHOWN_MAX = 120
FAILURES_SHOWN_MAX = 6

# From the least significant field of a rank upwards: name, bits. What `rank.py` composes.
_COMPATIBLE_FIELDS = (
    ("larger id", 128),
    ("longer path", 32),
    ("higher regex_priority", 64),
    ("a regex path before prefixes", 1),
    ("more headers", 8),
    ("plain hosts only", 1),
    ("more kinds of conditions", 8),
)
_TRADITIONAL_FIELDS = (
    ("larger id", 128),
    ("older created_at", 63),
    ("longer path", 32),
    ("higher regex_priority", 64),
    ("more headers", 8),
    ("a more precise host or a regex path", 3),
    ("weightier kinds of conditions", 7),
    ("more kinds of conditions", 8),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A condition that a request does not meet: the route's field, what it wants and what the request has."""

    field: str
    wants: str
    has: str


@dataclass(frozen=True, slots=True)
class Near:
    """A route that did not win. Without failures it holds, and `outranked` says why the winner is tried first."""

    route: RouteConfig
    failures: tuple[Failure, ...]
    outranked: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`winner` None = no route matches. `compared` counts candidates: a route may have several."""

    winner: Candidate | None
    near: tuple[Near, ...]
    compared: int


def explain(router: Router, facts: Facts, *, near_max: int = NEAR_MAX) -> Generator[None, None, Explanation]:
    """Yield between steps and return the explanation. Each route is shown once, by its nearest candidate."""
    winner = router.winner(facts)
    best: dict[str, tuple[int, int, Candidate]] = {}  # by route: fewest failures, then highest rank
    compared = 0
    for route_id, (_, candidates) in list(router.candidates.items()):
        for candidate in candidates:
            compared += 1
            if winner is not None and candidate.route is winner.route:
                continue
            found = (len(failures_of(candidate, facts)), -candidate.rank, candidate)
            if route_id not in best or found[:2] < best[route_id][:2]:
                best[route_id] = found
        if len(best) > 4 * near_max:
            best = {item[2].route.id: item for item in _nearest(best, near_max)}
        yield
    near = tuple(_near(router.flavour, winner, candidate, facts) for _, _, candidate in _nearest(best, near_max))
    return Explanation(winner, near, compared)


def _nearest(best: dict[str, tuple[int, int, Candidate]], near_max: int) -> list[tuple[int, int, Candidate]]:
    return heapq.nsmallest(near_max, best.values(), key=lambda item: item[:2])


def failures_of(candidate: Candidate, facts: Facts) -> tuple[Failure, ...]:
    """Return the conditions of a candidate that the request does not meet; none = it matches.

    Every test is the candidate's own; a candidate that the search takes has none, which a property test holds true.
    """
    failures: list[Failure] = []
    route = candidate.route
    if candidate.methods and facts.method not in candidate.methods:
        failures.append(Failure("methods", _shown(route.methods), _text(facts.method)))
    if not candidate.host_holds(facts):
        with_port = any(host.port for host in candidate.hosts)
        has = _text(facts.name) + (f":{facts.port}" if with_port else "") if facts.has_host else ""
        failures.append(Failure("hosts", _shown(route.hosts), has))
    if (candidate.prefixes and not facts.path.startswith(candidate.prefixes)) or (
        candidate.regexes and not any(regex.pattern.match(facts.path) is not None for regex in candidate.regexes)
    ):
        failures.append(Failure("paths", _shown(route.paths), _text(facts.path)))
    for header in candidate.headers:
        lines = facts.lines(header.name)
        if not header.holds(lines):
            wants = next((c.values for c in route.headers if c.name.lower().replace("_", "-") == header.name), ())
            failures.append(Failure(f"headers.{header.name}", _shown(wants), ", ".join(map(_text, lines))))
    if candidate.snis and facts.encrypted:
        sni = facts.sni
        if sni is None or not any(pattern.holds(sni) for pattern in candidate.snis):
            failures.append(Failure("snis", _shown(route.snis), _text(sni or b"")))
    return tuple(failures)


def outranked_by(winner: Candidate, other: Candidate, *, flavour: str) -> str:
    """Return in words why `winner` is tried before `other`: the most significant field of their ranks that differs."""
    high, low = winner.rank, other.rank
    if other.deferred and high < low:
        return "the route is for TLS with an SNI, and others come before it on a plain connection"
    difference = ""
    for name, bits in _TRADITIONAL_FIELDS if flavour == TRADITIONAL else _COMPATIBLE_FIELDS:
        mask = (1 << bits) - 1
        if high & mask != low & mask:
            difference = name
        high >>= bits
        low >>= bits
    return f"the winner has: {difference}" if difference else "the winner is tried first"


def _near(flavour: str, winner: Candidate | None, candidate: Candidate, facts: Facts) -> Near:
    failures = failures_of(candidate, facts)
    outranked = ""
    if not failures and winner is not None:
        outranked = outranked_by(winner, candidate, flavour=flavour)
    return Near(candidate.route, failures[:FAILURES_SHOWN_MAX], outranked)


def _shown(values: tuple[str, ...]) -> str:
    text = ", ".join(values[:VALUES_SHOWN_MAX])
    more = len(values) - VALUES_SHOWN_MAX
    return _cut(f"{text} and {more} more" if more > 0 else text)


def _text(data: bytes) -> str:
    return _cut(data.decode("utf-8", "replace"))


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN_MAX else text[: TEXT_SHOWN_MAX - 3] + "..."
