"""`_pointsman` in files: what a sync, an apply and a dump do with our own settings of upstreams."""

from __future__ import annotations

import json

import pytest

from control_plane.declarative import FileRefused, Mode, apply, diff, dump, parse, sync
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.entities.upstream_settings import COLLECTION
from tests.unit.control_plane.declarative.memory import MemoryTransaction

NOW = 1_700_000_000.0


def file(*settings: JsonValue, upstreams: tuple[str, ...] = ("blue",), section: bool = True) -> bytes:
    body: EntityBody = {
        "upstreams": [{"name": name, "targets": [{"target": "10.0.0.1:80"}]} for name in upstreams],
    }
    if section:
        body["_pointsman"] = {COLLECTION: list(settings)}
    return json.dumps(body).encode()


def synced(tx: MemoryTransaction, content: bytes) -> EntityBody:
    return sync(tx, parse(content), now=NOW).to_json()


def settings_of(tx: MemoryTransaction, upstream: str = "blue") -> EntityBody | None:
    return tx.rows[COLLECTION].get(str(tx.named("upstreams", upstream)["id"]))


BLUE: EntityBody = {
    "upstream": "blue",
    "slow_start": 10,
    "manual_health": [{"target": "10.0.0.1:80", "healthy": False}],
    "former_weights": [{"target": "10.0.0.1:80", "weight": 50}],
}


def test_settings_come_with_their_upstream_and_its_targets() -> None:
    tx = MemoryTransaction()
    summary = synced(tx, file(BLUE))
    assert summary["created"] == 3
    made = settings_of(tx)
    assert made is not None
    target = tx.named("targets", "10.0.0.1:80")["id"]
    assert made["slow_start"] == 10
    assert made["manual_health"] == [{"target": target, "address": None, "healthy": False, "until": 0}]
    assert made["former_weights"] == [{"target": target, "weight": 50}]
    assert synced(tx, file(BLUE))["changes"] == []


def test_a_file_that_does_not_speak_of_settings_leaves_them() -> None:
    tx = MemoryTransaction()
    synced(tx, file(BLUE))
    before = settings_of(tx)
    synced(tx, file(section=False))
    assert settings_of(tx) == before
    sync(tx, parse(json.dumps({"_pointsman": {}, "upstreams": [{"name": "blue"}]}).encode()), now=NOW)
    assert settings_of(tx) == before


def test_a_sync_that_names_settings_says_all_of_them() -> None:
    tx = MemoryTransaction()
    synced(tx, file(BLUE, {"upstream": "green", "slow_start": 3}, upstreams=("blue", "green")))
    summary = synced(tx, file({"upstream": "green", "probe_sampling": "on"}, upstreams=("blue", "green")))
    assert (summary["updated"], summary["deleted"]) == (1, 1)
    assert settings_of(tx) is None
    green = settings_of(tx, "green")
    assert green is not None
    assert (green["slow_start"], green["probe_sampling"]) == (0, "on")


def test_an_apply_merges() -> None:
    tx = MemoryTransaction()
    synced(tx, file(BLUE))
    content = json.dumps({"_pointsman": {COLLECTION: [{"upstream": "blue", "probe_sampling": "off"}]}}).encode()
    assert diff(tx, parse(content), mode=Mode.APPLY, now=NOW).to_json()["updated"] == 1
    apply(tx, parse(content), now=NOW)
    made = settings_of(tx)
    assert made is not None
    assert (made["slow_start"], made["probe_sampling"]) == (10, "off")


def test_an_upstream_takes_its_settings_along() -> None:
    tx = MemoryTransaction()
    synced(tx, file(BLUE))
    synced(tx, b"{}")
    assert tx.rows[COLLECTION] == {}


def test_a_dump_is_read_back_to_the_same() -> None:
    tx = MemoryTransaction()
    synced(tx, file(BLUE))
    dumped = dump(tx)
    assert dumped["_pointsman"] == {
        COLLECTION: [
            {
                "upstream": "blue",
                "slow_start": 10,
                "manual_health": [{"healthy": False, "target": "10.0.0.1:80", "until": 0}],
                "former_weights": [{"target": "10.0.0.1:80", "weight": 50}],
            }
        ]
    }
    assert synced(tx, json.dumps(dumped).encode())["changes"] == []
    other = MemoryTransaction()
    synced(other, json.dumps(dumped).encode())
    assert dump(other) == dumped


def test_a_dump_without_settings_has_no_part_of_ours() -> None:
    tx = MemoryTransaction()
    synced(tx, file(section=False))
    assert "_pointsman" not in dump(tx)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ([], "expected a mapping"),
        ({"other": 1}, "unknown field"),
        ({COLLECTION: {}}, "expected a list"),
        ({COLLECTION: [{"slow_start": 1}]}, "names no upstream"),
        ({COLLECTION: [{"upstream": "red"}]}, "no upstream 'red'"),
        ({COLLECTION: [{"upstream": "blue"}, {"upstream": "blue"}]}, "has settings already"),
        ({COLLECTION: [{"upstream": "blue", "slow_start": -1}]}, "between 0 and 3600"),
        ({COLLECTION: [{"upstream": "blue", "wrong": 1}]}, "unknown field"),
        (
            {COLLECTION: [{"upstream": "blue", "manual_health": [{"target": "10.0.0.9:80", "healthy": True}]}]},
            "is no target of upstream 'blue'",
        ),
    ],
)
def test_what_is_refused(section: JsonValue, told: str) -> None:
    content = json.dumps({"upstreams": [{"name": "blue"}], "_pointsman": section}).encode()
    with pytest.raises(FileRefused) as caught:
        sync(MemoryTransaction(), parse(content), now=NOW)
    assert any(told in problem.message for problem in caught.value.problems)


def test_settings_of_services_stand_beside_those_of_upstreams() -> None:
    tx = MemoryTransaction()
    services: JsonValue = [{"name": "a", "host": "a.test"}, {"name": "b", "host": "b.test"}]
    both: EntityBody = {
        "services": services,
        "upstreams": [{"name": "blue"}],
        "_pointsman": {
            COLLECTION: [{"upstream": "blue", "slow_start": 10}],
            "service_settings": [{"service": "a", "partition": "fence", "fence_after_s": 5}],
        },
    }
    assert synced(tx, json.dumps(both).encode())["created"] == 5
    dumped = dump(tx)
    assert dumped["_pointsman"] == both["_pointsman"]
    assert synced(tx, json.dumps(dumped).encode())["unchanged"] == 5
    other: EntityBody = {**both, "_pointsman": {"service_settings": [{"service": "b", "partition": "fence"}]}}
    assert synced(tx, json.dumps(other).encode())["deleted"] == 1
    section = dump(tx)["_pointsman"]
    assert isinstance(section, dict)
    assert section["service_settings"] == [{"partition": "fence", "service": "b"}]
    assert section[COLLECTION] == [{"slow_start": 10, "upstream": "blue"}], "the file did not speak of upstreams"


def test_what_sends_requests_elsewhere_names_upstreams_in_files() -> None:
    tx = MemoryTransaction()
    split: EntityBody = {"to": "green", "share": 500, "sticky": {"on": "ip"}}
    rows: list[JsonValue] = [{"service": "a", "split": split, "mirror": {"to": "green", "share": 1}}]
    both: EntityBody = {
        "services": [{"name": "a", "host": "blue"}],
        "upstreams": [{"name": "green"}],
        "_pointsman": {"service_settings": rows},
    }
    synced(tx, json.dumps(both).encode())
    (kept,) = tx.rows["service_settings"].values()
    green = tx.named("upstreams", "green")["id"]
    assert kept["split"] == {"to": green, "share": 500, "sticky": {"on": "ip", "name": None}}
    dumped = dump(tx)
    section = dumped["_pointsman"]
    assert isinstance(section, dict)
    assert section["service_settings"] == rows
    assert synced(tx, json.dumps(dumped).encode())["changes"] == []


def test_a_file_that_names_no_upstream_is_refused_by_field() -> None:
    tx = MemoryTransaction()
    wrong: EntityBody = {
        "services": [{"name": "a", "host": "blue"}],
        "_pointsman": {"service_settings": [{"service": "a", "split": {"to": "green", "share": 1}}]},
    }
    with pytest.raises(FileRefused) as refused:
        sync(tx, parse(json.dumps(wrong).encode()), now=NOW)
    assert "there is no upstream 'green'" in str(refused.value.problems)
