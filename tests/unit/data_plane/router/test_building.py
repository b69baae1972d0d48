"""Building beside the live router: in many small steps, on top of the former one, and taking an old one apart."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from data_plane.model import HeaderCondition, RouteConfig
from data_plane.router import Router, build_router, release_router
from tests.conformance.router import build


def identity(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def table(size: int) -> list[RouteConfig]:
    return [
        RouteConfig(id=identity(number), name=str(number), hosts=(f"h{number}.com",), paths=(f"~/a/{number}", "/b"))
        for number in range(size)
    ]


def name(router: Router, host: bytes, path: bytes) -> str | None:
    found = router.match(b"GET", host, path, port=80, scheme="http", header_values=lambda _: ())
    return None if found is None else found.route.name


def steps(work: Generator[None, None, object]) -> int:
    return sum(1 for _ in work)


def test_a_build_yields_for_every_route() -> None:
    assert steps(build_router(table(500))) >= 500


def test_nothing_changed_is_the_same_router() -> None:
    routes = table(10)
    router = build(routes, "traditional_compatible")
    assert build([replace(route) for route in routes], "traditional_compatible", router) is router


def test_one_changed_route_costs_few_steps_and_shares_all_other_candidates() -> None:
    routes = table(500)
    router = build(routes, "traditional_compatible")
    routes[250] = replace(routes[250], paths=("/c",))

    assert steps(build_router(routes, previous=router)) < 60

    changed = build(routes, "traditional_compatible", router)
    assert name(changed, b"h250.com", b"/c") == "250"
    assert name(changed, b"h250.com", b"/b") is None
    assert name(router, b"h250.com", b"/b") == "250"  # the former one goes on serving
    assert all(
        changed.candidates[route.id] is router.candidates[route.id] for route in routes if route is not routes[250]
    )


def test_a_removed_route_leaves_nothing_behind() -> None:
    routes = [
        RouteConfig(
            id=identity(1),
            hosts=("*.a.com", "b.*", "c"),
            paths=("/x", "~/y"),
            headers=(HeaderCondition("x-a", ("1",)),),
            snis=("s",),
        ),
        RouteConfig(id=identity(2), snis=("s",)),
        RouteConfig(id=identity(3), headers=(HeaderCondition("x-b", ("~*1",)),)),
    ]
    router = build(routes, "traditional_compatible")
    assert router.header_names == {"x-a", "x-b"}

    empty = build([], "traditional_compatible", router)

    assert len(empty) == 0
    assert empty.header_names == frozenset()
    assert not empty.sni_matters
    hosts = empty.hosts
    assert not any((hosts.exact.entries, hosts.ends.entries, hosts.starts.entries))
    assert hosts.ends.lengths == ()
    assert hosts.any_host is None


def test_another_flavour_is_built_from_nothing() -> None:
    router = build(table(3), "traditional_compatible")
    other = build(table(3), "traditional", router)
    assert other.flavour == "traditional"
    assert other.candidates[identity(1)] is not router.candidates[identity(1)]


def test_releasing_a_router_leaves_its_successor_whole() -> None:
    routes = [*table(200), *(RouteConfig(id=identity(1000 + n), name=f"p{n}", paths=(f"/p{n}/",)) for n in range(200))]
    router = build(routes, "traditional_compatible")
    routes[7] = replace(routes[7], paths=("/c",))
    successor = build(routes, "traditional_compatible", router)

    assert steps(release_router(router, successor)) > 10

    assert name(successor, b"h9.com", b"/a/9") == "9"
    assert name(successor, b"x", b"/p77/") == "p77"
    assert steps(release_router(successor, successor)) == 0
