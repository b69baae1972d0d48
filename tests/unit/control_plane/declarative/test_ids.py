"""Ids that follow from a file: Kong's rule, worked out by hand here from what the rule says."""

from __future__ import annotations

import uuid

from control_plane.declarative import parse, sync
from tests.unit.control_plane.declarative.memory import MemoryTransaction

KONG = uuid.UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5")
FILE = b"""
services: [{name: a, host: h, routes: [{name: r, paths: [/]}]}]
upstreams: [{name: u, targets: [{target: "t:80"}]}]
"""


def v5(collection: str, key: str) -> str:
    return str(uuid.uuid5(uuid.uuid5(KONG, collection), key))


def test_ids_follow_from_names_and_are_the_same_in_every_store() -> None:
    for _ in range(2):
        tx = MemoryTransaction()
        sync(tx, parse(FILE), now=1)
        upstream = v5("upstreams", "u")
        assert tx.named("services", "a")["id"] == v5("services", "a")
        assert tx.named("routes", "r")["id"] == v5("routes", "r")
        assert tx.named("upstreams", "u")["id"] == upstream
        assert tx.named("targets", "t:80")["id"] == v5("targets", f"targets:*:{upstream}:t:80")


def test_an_id_that_a_renamed_entity_kept_is_not_given_twice() -> None:
    tx = MemoryTransaction()
    sync(tx, parse(b"services: [{name: a, host: h}]"), now=1)
    held = str(tx.named("services", "a")["id"])
    sync(tx, parse(f"services: [{{name: b, host: h, id: {held}}}]".encode()), now=2)
    sync(tx, parse(f"services: [{{name: b, host: h, id: {held}}}, {{name: a, host: h}}]".encode()), now=3)
    assert tx.named("services", "b")["id"] == held != tx.named("services", "a")["id"]


def test_what_has_no_key_gets_an_id_of_its_own() -> None:
    tx = MemoryTransaction()
    sync(tx, parse(b"routes: [{paths: [/a]}, {paths: [/b]}]"), now=1)
    assert len(tx.rows["routes"]) == 2
