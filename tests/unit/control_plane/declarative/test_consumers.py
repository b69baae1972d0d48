"""Consumers and their credentials in files; a secret never leaves by the way."""

from __future__ import annotations

import json

import pytest

from control_plane.declarative import FileRefused, dump, parse, sync, to_yaml
from tests.unit.control_plane.declarative.memory import MemoryTransaction

NOW = 1_700_000_000.0
FILE = b"""
_format_version: "3.0"
consumers:
- username: ann
  custom_id: "42"
  keyauth_credentials:
  - key: planted-1
  basicauth_credentials:
  - {username: ann, password: planted-2}
  acls:
  - group: staff
  - group: admin
- username: bob
  hmacauth_credentials:
  - {username: bob, secret: planted-3}
  acls:
  - group: staff
"""


@pytest.fixture
def filled() -> MemoryTransaction:
    tx = MemoryTransaction()
    summary = sync(tx, parse(FILE), now=NOW)
    assert "planted" not in json.dumps(summary.to_json())
    return tx


def test_the_same_file_again_changes_nothing(filled: MemoryTransaction) -> None:
    assert sync(filled, parse(FILE), now=NOW + 60).changes == []


@pytest.mark.parametrize("with_keys", [False, True])
@pytest.mark.parametrize("with_ids", [False, True])
def test_a_dump_read_back_changes_nothing(filled: MemoryTransaction, with_ids: bool, with_keys: bool) -> None:
    text = to_yaml(dump(filled, with_ids=with_ids, with_keys=with_keys)).decode()
    assert ("planted-3" in text) is with_keys
    assert "planted-2" not in text  # a password is known as its hash only
    assert sync(filled, parse(text.encode()), now=NOW + 60).changes == []


def test_a_dump_with_keys_makes_the_same_store_elsewhere(filled: MemoryTransaction) -> None:
    text = to_yaml(dump(filled, with_ids=True, with_keys=True)).decode()
    elsewhere = MemoryTransaction()
    sync(elsewhere, parse(text.encode()), now=NOW)
    assert elsewhere.rows["basicauth_credentials"] == filled.rows["basicauth_credentials"]


def test_a_credential_with_an_end_keeps_it(filled: MemoryTransaction) -> None:
    tx = MemoryTransaction()
    sync(tx, parse(b"consumers: [{username: a, keyauth_credentials: [{key: k, ttl: 60}]}]"), now=NOW)
    text = to_yaml(dump(tx, with_keys=True)).decode()
    assert sync(tx, parse(text.encode()), now=NOW + 10).changes == []
    (row,) = tx.rows["keyauth_credentials"].values()
    assert row["ttl"] == int(NOW) + 60


def test_a_plugin_that_is_not_there_is_refused_with_its_place() -> None:
    text = b"services: [{name: s, host: h, plugins: [{name: cors}]}]"
    with pytest.raises(FileRefused) as caught:
        sync(MemoryTransaction(), parse(text), now=NOW)
    (problem,) = caught.value.problems
    assert (problem.path, problem.field) == ("services[0].plugins[0]", "name")
    assert "plugin 'cors' not enabled" in problem.message
