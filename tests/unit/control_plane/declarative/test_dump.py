"""`dump` writes one text for one state, and reading it back changes nothing."""

from __future__ import annotations

import pytest

from control_plane.declarative import dump, parse, sync, to_yaml
from tests.unit.control_plane.declarative.memory import MemoryTransaction

NOW = 1_700_000_000.0

EVERYTHING = """
services:
- name: shop
  host: blue
  path: /anything
  retries: null
  tags: [z, a]
  routes:
  - {name: b-route, paths: [/b, "~/r[0-9]+"], headers: {x-a: [one, two]}, strip_path: false}
  - {name: a-route, hosts: [a.example, "*.b.example"], methods: []}
  - {paths: [/nameless]}
- host: 10.0.0.1
- {name: 'on', host: h, enabled: false}
routes:
- {name: alone, paths: [/alone], service: null}
upstreams:
- name: green
- name: blue
  algorithm: consistent-hashing
  hash_on: header
  hash_on_header: x-user
  slots: null
  healthchecks: {active: {timeout: null, healthy: {interval: 5, http_statuses: []}}, threshold: 55.5}
  targets:
  - {target: 'b:80', weight: null}
  - {target: 'a:80', weight: 0, tags: []}
  - target: '::1'
"""


@pytest.fixture
def filled() -> MemoryTransaction:
    tx = MemoryTransaction()
    sync(tx, parse(EVERYTHING.encode()), now=NOW)
    return tx


@pytest.mark.parametrize("with_ids", [False, True])
def test_a_dump_read_back_changes_nothing(filled: MemoryTransaction, with_ids: bool) -> None:
    text = to_yaml(dump(filled, with_ids=with_ids))
    summary = sync(filled, parse(text, "application/yaml"), now=NOW + 1)
    assert summary.changes == []
    assert to_yaml(dump(filled, with_ids=with_ids)) == text


@pytest.mark.parametrize("with_ids", [False, True])
def test_a_dump_makes_the_same_state_in_an_empty_store(filled: MemoryTransaction, with_ids: bool) -> None:
    text = to_yaml(dump(filled, with_ids=with_ids))
    fresh = MemoryTransaction()
    sync(fresh, parse(text), now=NOW)
    assert to_yaml(dump(fresh, with_ids=with_ids)) == text
    if with_ids:
        assert {c: rows.keys() for c, rows in fresh.rows.items()} == {c: rows.keys() for c, rows in filled.rows.items()}


def test_an_empty_gateway_is_one_line() -> None:
    assert to_yaml(dump(MemoryTransaction())) == b'_format_version: "3.0"\n'


def test_form_and_order() -> None:
    tx = MemoryTransaction()
    sync(
        tx,
        parse(
            b"""
            services:
            - {name: b, host: h, routes: [{name: z, paths: [/z]}, {name: a, paths: [/a]}]}
            - {name: a, host: h}
            upstreams:
            - {name: u, targets: [{target: 'b:1'}, {target: 'a:1', weight: 5}]}
            """
        ),
        now=NOW,
    )
    file = dump(tx)
    assert list(file) == ["_format_version", "services", "upstreams"]
    services = file["services"]
    assert isinstance(services, list)
    first, second = services
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first == {
        "name": "a",
        "host": "h",
        "protocol": "http",
        "port": 80,
        "retries": 5,
        "connect_timeout": 60000,
        "read_timeout": 60000,
        "write_timeout": 60000,
        "enabled": True,
    }
    routes = second["routes"]
    assert isinstance(routes, list)
    assert [route["name"] for route in routes if isinstance(route, dict)] == ["a", "z"]
    upstreams = file["upstreams"]
    assert isinstance(upstreams, list)
    assert isinstance(upstreams[0], dict)
    assert upstreams[0]["targets"] == [{"target": "a:1", "weight": 5}, {"target": "b:1", "weight": 100}]


def test_a_dump_by_tags_reads_back_to_itself(filled: MemoryTransaction) -> None:
    mine = b"services: [{name: mine, host: h, tags: [x]}]\nupstreams: [{name: mine, targets: [{target: 'm:1'}]}]"
    sync(filled, parse(mine), select_tags=("team-a",), now=NOW)
    # A route of mine below a service that is not mine, and a target of mine in an upstream that is not.
    sync(
        filled,
        parse(mine + b"\nroutes: [{name: r, paths: [/r], service: shop}]\ntargets: [{target: 'n:1', upstream: blue}]"),
        select_tags=("team-a",),
        now=NOW,
    )
    file = dump(filled, select_tags=("team-a",))
    assert file["_info"] == {"defaults": {}, "select_tags": ["team-a"]}
    text = to_yaml(file)
    assert b"  tags:\n  - x\n" in text
    assert b"service:\n    name: shop" in text
    assert b"upstream:\n    name: blue" in text
    assert sync(filled, parse(text), now=NOW + 1).changes == []
