"""Fields of Kong Enterprise: taken, kept and shown where they are set, and invisible everywhere else."""

from __future__ import annotations

import pytest

from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody
from tests.unit.control_plane.entities.schemas import UPSTREAM_ID, insert, problems, update

STICKY: EntityBody = {"name": "blue", "algorithm": "sticky-sessions", "sticky_sessions_cookie": "sid"}
NAMES = {"sticky_sessions_cookie", "sticky_sessions_cookie_path", "failover"}
TARGET: EntityBody = {"target": "api:80", "upstream": {"id": UPSTREAM_ID}}


def test_entities_that_do_not_set_them_do_not_have_them() -> None:
    assert not NAMES & insert("upstreams", {"name": "blue"}).keys()
    assert not NAMES & insert("targets", TARGET).keys()


def test_a_sticky_upstream() -> None:
    made = insert("upstreams", STICKY)
    assert (made["algorithm"], made["hash_on"], made["sticky_sessions_cookie"]) == ("sticky-sessions", "none", "sid")
    assert "sticky_sessions_cookie_path" not in made
    assert insert("upstreams", {**STICKY, "sticky_sessions_cookie_path": "/a"})["sticky_sessions_cookie_path"] == "/a"


def test_what_deck_sends_back_is_the_same_upstream() -> None:
    made = insert("upstreams", STICKY)
    again = insert("upstreams", made)
    assert {**again, "updated_at": 0} == {**made, "updated_at": 0}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sticky_sessions_cookie": None}, "sticky_sessions_cookie"),
        ({"sticky_sessions_cookie": "a b"}, "sticky_sessions_cookie"),
        ({"sticky_sessions_cookie_path": "a"}, "sticky_sessions_cookie_path"),
        ({"hash_on": "ip"}, "hash_on"),
        ({"hash_fallback": "ip"}, "hash_fallback"),
    ],
)
def test_rules_of_sticky_sessions(change: EntityBody, field: str) -> None:
    found = problems("upstreams", {**STICKY, **change})
    assert isinstance(found, dict)
    assert field in found


def test_changing_to_sticky_and_away() -> None:
    hashed = insert("upstreams", {"name": "blue", "hash_on": "ip"})
    sticky = update("upstreams", hashed, {"algorithm": "sticky-sessions", "sticky_sessions_cookie": "sid"})
    assert (sticky["algorithm"], sticky["hash_on"]) == ("sticky-sessions", "none")
    plain = update("upstreams", sticky, {"algorithm": "round-robin", "sticky_sessions_cookie": None})
    assert plain["algorithm"] == "round-robin"
    assert "sticky_sessions_cookie" not in plain


@pytest.mark.parametrize("value", [True, False])
def test_failover_is_shown_as_it_was_set(*, value: bool) -> None:
    assert insert("targets", {**TARGET, "failover": value})["failover"] is value
    cleared = update("targets", insert("targets", {**TARGET, "failover": value}), {"failover": None})
    assert "failover" not in cleared


def test_clients_of_the_open_source_kong_see_its_schemas() -> None:
    for collection in ("upstreams", "targets"):
        fields = SCHEMAS[collection].document()["fields"]
        assert isinstance(fields, list)
        shown = {name for field in fields if isinstance(field, dict) for name in field}
        assert not NAMES & shown
        assert "sticky" not in str(SCHEMAS[collection].document())


def test_openapi_has_them() -> None:
    described = SCHEMAS["upstreams"].json_schema()["properties"]
    assert isinstance(described, dict)
    assert NAMES - {"failover"} <= described.keys()
