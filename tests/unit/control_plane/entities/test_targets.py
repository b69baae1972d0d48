"""target: its address in one form, its weight, and the upstream it belongs to."""

from __future__ import annotations

import pytest

from control_plane.entities.types import EntityBody
from tests.unit.control_plane.entities.schemas import UPSTREAM_ID, insert, problems, refusal, update

UPSTREAM: EntityBody = {"upstream": {"id": UPSTREAM_ID}}


@pytest.mark.parametrize(
    ("written", "stored"),
    [("api", "api:8000"), ("API:1", "API:1"), ("01.02.3.4", "1.2.3.4:8000"), ("[::1]:80", f"[{'0000:' * 7}0001]:80")],
)
def test_an_address_is_stored_in_one_form(written: str, stored: str) -> None:
    made = insert("targets", {**UPSTREAM, "target": written})

    assert made["target"] == stored
    assert update("targets", made, {"target": written})["target"] == stored


def test_a_bad_address_is_reported_alone() -> None:
    assert refusal("targets", {"target": "a b", "weight": "x"}) == {
        "code": 2,
        "name": "schema violation",
        "message": "schema violation (target: Invalid target; not a valid hostname or ip address)",
        "fields": {"target": "Invalid target; not a valid hostname or ip address"},
    }


def test_a_target_needs_an_upstream_and_an_address() -> None:
    assert problems("targets", {}) == {"target": "required field missing", "upstream": "required field missing"}


def test_weights() -> None:
    made = insert("targets", {**UPSTREAM, "target": "api"})

    assert made["weight"] == 100
    assert update("targets", made, {"weight": 0})["weight"] == 0
    assert problems("targets", {"weight": 65536}, made) == {"weight": "value should be between 0 and 65535"}


def test_the_upstream_may_be_given_by_name() -> None:
    assert insert("targets", {"upstream": {"name": "known"}, "target": "api"})["upstream"] == {"id": UPSTREAM_ID}
