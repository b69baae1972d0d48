"""A layer of changes reads like the next version and leaves the active one alone until it is merged."""

from __future__ import annotations

from data_plane.model import RouteConfig, ServiceConfig, TargetConfig, UpstreamConfig
from data_plane.worker.catalogue import Catalogue, StagedCatalogue
from data_plane.worker.decode import EntityConfig


def merged(base: Catalogue, *changes: EntityConfig, deletes: tuple[tuple[str, str], ...] = ()) -> StagedCatalogue:
    staged = StagedCatalogue(base)
    for collection, entity_id in deletes:
        assert staged.delete(collection, entity_id)
    for change in changes:
        staged.put(change)
    return staged


def target(target_id: str, upstream: str, host: str = "10.0.0.1", weight: int = 100) -> TargetConfig:
    return TargetConfig(target_id, upstream, host, 80, weight)


def filled() -> Catalogue:
    base = Catalogue()
    staged = merged(
        base,
        UpstreamConfig("u1", "blue"),
        UpstreamConfig("u2", "green"),
        target("t1", "u1", "10.0.0.1"),
        target("t2", "u1", "10.0.0.2"),
        target("t3", "u2", "10.0.0.3"),
        ServiceConfig("s1", host="blue"),
        RouteConfig("r1", service="s1"),
    )
    for _ in staged.merge():
        pass
    return base


def test_merging_makes_the_layer_the_catalogue() -> None:
    base = filled()
    assert list(base.services) == ["s1"]
    assert set(base.targets_of["u1"]) == {"t1", "t2"}
    assert base.upstream_ids == {"blue": "u1", "green": "u2"}


def test_changes_are_seen_through_the_layer_only() -> None:
    base = filled()
    staged = merged(base, ServiceConfig("s1", host="green"), deletes=(("routes", "r1"),))
    service = staged.services.get("s1")
    assert service is not None
    assert service.host == "green"
    assert base.services["s1"].host == "blue"
    assert "r1" not in staged.routes
    assert list(staged.routes) == []
    assert "r1" in base.routes


def test_targets_are_indexed_by_upstream_in_a_stable_order() -> None:
    base = filled()
    staged = merged(base, target("t0", "u1", "10.0.0.9"), target("t2", "u1", "10.0.0.2", weight=7))
    assert [(each.id, each.weight) for each in staged.targets_of("u1")] == [("t1", 100), ("t2", 7), ("t0", 100)]
    assert [each.id for each in staged.targets_of("u2")] == ["t3"]
    assert staged.changed_upstreams() == ["u1"]


def test_a_target_that_moves_changes_both_upstreams() -> None:
    base = filled()
    staged = merged(base, target("t1", "u2", "10.0.0.1"))
    assert [each.id for each in staged.targets_of("u1")] == ["t2"]
    assert [each.id for each in staged.targets_of("u2")] == ["t1", "t3"]
    assert set(staged.changed_upstreams()) == {"u1", "u2"}


def test_an_upstream_is_found_by_its_new_name_only() -> None:
    base = filled()
    staged = merged(base, UpstreamConfig("u1", "azure"))
    assert staged.upstream_named("azure") == UpstreamConfig("u1", "azure")
    assert staged.upstream_named("blue") is None
    swapped = merged(base, UpstreamConfig("u1", "green"), UpstreamConfig("u2", "blue"))
    assert swapped.upstream_named("blue") == UpstreamConfig("u2", "blue")
    for _ in swapped.merge():
        pass
    assert base.upstream_ids == {"blue": "u2", "green": "u1"}


def test_a_deleted_upstream_takes_its_name_and_index_with_it() -> None:
    base = filled()
    staged = merged(base, deletes=(("upstreams", "u2"), ("targets", "t3")))
    assert staged.upstream_named("green") is None
    assert staged.changed_upstreams() == []
    for _ in staged.merge():
        pass
    assert base.upstream_ids == {"blue": "u1"}
    assert "u2" not in base.targets_of


def test_a_set_from_nothing_drops_what_it_does_not_mention() -> None:
    base = filled()
    staged = merged(base, UpstreamConfig("u1", "blue"), target("t1", "u1"))
    for _ in staged.delete_unmentioned():
        pass
    assert [each.id for each in staged.targets_of("u1")] == ["t1"]
    assert list(staged.services) == []
    for _ in staged.merge():
        pass
    assert set(base.targets) == {"t1"}
    assert base.upstream_ids == {"blue": "u1"}
    assert not base.routes


def test_unknown_collections_are_reported() -> None:
    assert not StagedCatalogue(Catalogue()).delete("plugins", "p1")
