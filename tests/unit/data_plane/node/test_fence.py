"""When services are fenced and when they are served again: the rules alone, with a clock of the test's own."""

from __future__ import annotations

import os
import time
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from data_plane.node.diff import Diff
from data_plane.node.fence import Contact, Fences
from pointsman.wire.v1 import config_pb2


def settings(service: str, after_s: int | None) -> tuple[tuple[str, str], bytes]:
    after = None if after_s is None else Duration(seconds=after_s)
    entity = config_pb2.Entity(service_settings=config_pb2.ServiceSettings(id=service, fence_after=after))
    return ("service_settings", service), entity.SerializeToString()


def diff(*upserts: tuple[tuple[str, str], bytes], deletes: tuple[tuple[str, str], ...] = ()) -> Diff:
    return Diff(None, None, dict(upserts), deletes)


def fences(*upserts: tuple[tuple[str, str], bytes], now: float = 100.0) -> Fences:
    made = Fences(now)
    made.follow(diff(*upserts))
    return made


def fenced_at(made: Fences, now: float) -> set[str]:
    made.tick(now)
    return set(made.fenced)


def test_each_service_has_its_own_time_since_the_last_word() -> None:
    made = fences(settings("a", 10), settings("b", 30), settings("c", None))
    made.heard(200.0)
    assert fenced_at(made, 1000.0) == set(), "the control plane is there"
    made.heard(1000.0)
    made.lost()
    assert fenced_at(made, 1009.9) == set()
    assert fenced_at(made, 1010.0) == {"a"}
    assert made.fenced_since("a") == 1010.0
    assert fenced_at(made, 1031.0) == {"a", "b"}


def test_a_fence_falls_when_the_node_has_caught_up_and_not_before() -> None:
    made = fences(settings("a", 10))
    assert fenced_at(made, 110.0) == {"a"}
    made.heard(120.0)
    assert fenced_at(made, 121.0) == {"a"}
    made.lost()
    assert fenced_at(made, 122.0) == {"a"}
    made.caught_up(130.0)
    assert fenced_at(made, 500.0) == set()


def test_a_change_of_the_settings_counts_from_the_same_word() -> None:
    made = fences(settings("a", 10))
    assert fenced_at(made, 110.0) == {"a"}
    made.follow(diff(settings("a", None), settings("b", 5)))
    assert fenced_at(made, 110.0) == {"b"}
    made.follow(diff(deletes=(("service_settings", "b"),)))
    assert fenced_at(made, 1000.0) == set()
    assert not made.wanted


def test_a_restart_goes_on_counting() -> None:
    made = fences(settings("a", 10))
    made.last_heard(95.0)
    assert fenced_at(made, 104.0) == set()
    assert fenced_at(made, 105.0) == {"a"}
    made = Fences(100.0)
    made.last_heard(float("-inf"))
    made.follow(diff(settings("a", 10)))
    assert fenced_at(made, 100.0) == {"a"}, "nobody knows how long that was"


def test_the_last_word_is_kept_on_disk(tmp_path: Path) -> None:
    contact = Contact(tmp_path / "last-contact")
    assert contact.age_s() is None
    contact.now()
    assert contact.age_s() is not None
    os.utime(tmp_path / "last-contact", times=(time.time() + 3600, time.time() + 3600))
    assert contact.age_s() == float("inf"), "a clock that went back says nothing"
    Contact(tmp_path / "none" / "x").now()
