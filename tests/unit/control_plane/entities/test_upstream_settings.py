"""Our own settings of an upstream: their rules, and what happens to the operator's words in them."""

from __future__ import annotations

import pytest

from control_plane.entities.errors import SchemaViolation
from control_plane.entities.registry import SCHEMAS, STORED
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.entities.upstream_settings import (
    COLLECTION,
    UPSTREAM_SETTINGS,
    ManualHealth,
    former_weight,
    manual_health,
    normal_address,
    split_address,
    tidied,
    until_of,
    with_former_weight,
    with_word,
    without_words,
)
from pointsman.rules.addresses import BadAddress
from tests.unit.control_plane.entities.schemas import NOW, UPSTREAM_ID, resolve

ONE = "00000000-0000-4000-8000-000000000001"
TWO = "00000000-0000-4000-8000-000000000002"


def made(**fields: JsonValue) -> EntityBody:
    body: EntityBody = {"upstream": {"id": UPSTREAM_ID}, **fields}
    return UPSTREAM_SETTINGS.on_insert(body, now=NOW, resolve=resolve, entity_id=UPSTREAM_ID)


def test_they_are_stored_and_are_none_of_kong_s_collections() -> None:
    assert COLLECTION in STORED
    assert COLLECTION not in SCHEMAS


def test_defaults() -> None:
    settings = made()
    assert (settings["slow_start"], settings["probe_sampling"]) == (0, "auto")
    assert (settings["manual_health"], settings["former_weights"]) == ([], [])


@pytest.mark.parametrize(
    "fields",
    [
        {"slow_start": -1},
        {"slow_start": 3601},
        {"slow_start": None},
        {"probe_sampling": "maybe"},
        {"manual_health": [{"target": "x", "healthy": True}]},
        {"manual_health": [{"target": ONE}]},
        {"manual_health": [{"target": ONE, "healthy": True, "address": "api:80"}]},
        {"manual_health": [{"target": ONE, "healthy": True, "address": "10.0.0.1"}]},
        {"former_weights": [{"target": ONE, "weight": 65536}]},
        {"other": 1},
    ],
)
def test_what_is_refused(fields: dict[str, JsonValue]) -> None:
    with pytest.raises(SchemaViolation):
        made(**fields)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("10.0.0.1", "10.0.0.1:8000"),
        ("[2001:db8:0::1]:80", "[2001:db8::1]:80"),
        ("2001:db8::1", "[2001:db8::1]:8000"),
    ],
)
def test_addresses_have_one_form(text: str, normal: str) -> None:
    assert normal_address(text) == normal


@pytest.mark.parametrize("text", ["api:80", "", "10.0.0.1:99999", "300.1.1.1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadAddress):
        normal_address(text)


def test_addresses_split() -> None:
    assert split_address("[2001:db8::1]:80") == ("2001:db8::1", 80)
    assert split_address("10.0.0.1:80") == ("10.0.0.1", 80)
    assert split_address("") == ("", 0)


def test_a_word_takes_the_place_of_what_it_overrides() -> None:
    settings = made()
    address = ManualHealth(ONE, "10.0.0.1:80", healthy=False, until=0)
    other = ManualHealth(ONE, "10.0.0.2:80", healthy=False, until=0)
    whole = ManualHealth(ONE, "", healthy=True, until=0)
    elsewhere = ManualHealth(TWO, "", healthy=False, until=0)
    for word in (address, other, elsewhere, ManualHealth(ONE, "10.0.0.1:80", healthy=True, until=0)):
        settings = {**settings, "manual_health": with_word(settings, word, now=NOW)}
    assert manual_health(settings) == [other, elsewhere, ManualHealth(ONE, "10.0.0.1:80", healthy=True, until=0)]
    settings = {**settings, "manual_health": with_word(settings, whole, now=NOW)}
    assert manual_health(settings) == [elsewhere, whole]


def test_words_are_lifted_for_an_address_or_a_whole_target() -> None:
    address = ManualHealth(ONE, "10.0.0.1:80", healthy=False, until=0)
    whole = ManualHealth(ONE, "", healthy=True, until=0)
    settings = made(manual_health=[address.to_json(), whole.to_json()])
    assert without_words(settings, ONE, "10.0.0.1:80", now=NOW) == [whole.to_json()]
    assert without_words(settings, ONE, "", now=NOW) == []
    assert without_words(None, ONE, "", now=NOW) == []


def test_former_weights() -> None:
    settings = made(former_weights=with_former_weight(None, ONE, 33))
    assert former_weight(settings, ONE) == 33
    assert former_weight(settings, TWO) is None
    assert with_former_weight(settings, ONE, None) == []


def test_tidying_removes_what_expired_and_what_names_no_target() -> None:
    lasting = ManualHealth(ONE, "", healthy=False, until=until_of(10, now=NOW))
    over = ManualHealth(ONE, "10.0.0.1:80", healthy=False, until=int(NOW))
    gone = ManualHealth(TWO, "", healthy=False, until=0)
    settings = made(
        manual_health=[lasting.to_json(), over.to_json(), gone.to_json()],
        former_weights=[{"target": ONE, "weight": 1}, {"target": TWO, "weight": 1}],
    )
    tidy = tidied(settings, targets={ONE}, now=NOW)
    assert tidy is not None
    assert manual_health(tidy) == [lasting]
    assert tidy["former_weights"] == [{"target": ONE, "weight": 1}]
    assert tidied(tidy, targets={ONE}, now=NOW) is None


def test_a_time_to_live_ends_on_a_whole_second_and_never_early() -> None:
    assert until_of(0, now=10.5) == 0
    assert until_of(0.2, now=10.5) == 11
    assert until_of(1, now=10.5) == 12
