"""The route tester says what the router does: it shares its search, and its reasons are right for every route.

For any table and request, what `explain` calls the winner is what `match` takes; a route shown without failures does
match when it is alone, one shown with failures does not.
"""

from __future__ import annotations

from hypothesis import given, settings

from data_plane.model import RouteConfig
from data_plane.router import TRADITIONAL, TRADITIONAL_COMPATIBLE, Router
from data_plane.router.candidate import Facts
from data_plane.router.explain import Explanation, explain
from tests.conformance.router import build
from tests.property.test_router import Asked, requests, tables
from tests.support.examples import examples


def facts_of(router: Router, asked: Asked) -> Facts:
    facts = router.facts(
        asked.method.encode(),
        asked.host.encode() if asked.host is not None else None,
        asked.path.encode(),
        port=asked.port,
        scheme=asked.scheme,
        header_values=lambda name: [value.encode() for value in asked.headers.get(name, ())],
        sni=asked.sni.encode() if asked.sni is not None else None,
    )
    assert facts is not None
    return facts


def explained(router: Router, facts: Facts) -> Explanation:
    steps = explain(router, facts, near_max=100)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            explanation: Explanation = done.value
            return explanation


@settings(max_examples=examples(50), deadline=None)
@given(table=tables, asked=requests)
def test_what_is_told_is_what_is_done(table: list[RouteConfig], asked: Asked) -> None:
    for flavour in (TRADITIONAL_COMPATIBLE, TRADITIONAL):
        router = build(table, flavour)
        facts = facts_of(router, asked)
        match = router.search(facts)
        explanation = explained(router, facts)
        assert (explanation.winner.route if explanation.winner is not None else None) == (
            match.route if match is not None else None
        )
        others = [route.id for route in table if match is None or route.id != match.route.id]
        assert sorted(near.route.id for near in explanation.near) == sorted(others)
        for near in explanation.near:
            alone = build([near.route], flavour)
            assert (alone.search(facts_of(alone, asked)) is not None) == (not near.failures), near
            assert bool(near.outranked) == (not near.failures and match is not None)


@settings(max_examples=examples(25), deadline=None)
@given(table=tables, asked=requests)
def test_the_nearest_come_first(table: list[RouteConfig], asked: Asked) -> None:
    router = build(table, TRADITIONAL_COMPATIBLE)
    counts = [len(near.failures) for near in explained(router, facts_of(router, asked)).near]
    assert counts == sorted(counts)
