"""From any state to any file: `sync` arrives, in an order that keys and references allow, and has then nothing to do.

Names and ids are drawn from small pools, so that files collide with the state before in every way there is: renames,
swaps, chains, names that move to another id, children that change parents, parents that go.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.declarative import FileRefused, Mode, apply, diff, dump, parse, sync, to_yaml
from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.declarative.memory import MemoryTransaction

NOW = 1_700_000_000.0


def _ids(prefix: str) -> st.SearchStrategy[dict[str, JsonValue]]:
    pool = [f"{prefix}0000000-0000-4000-8000-00000000000{number}" for number in range(4)]
    none: dict[str, JsonValue] = {}
    return st.one_of(st.just(none), st.sampled_from(pool).map(lambda text: {"id": text}))


def _entities(
    prefix: str, fields: dict[str, st.SearchStrategy[JsonValue]], children: dict[str, st.SearchStrategy[JsonValue]]
) -> st.SearchStrategy[JsonValue]:
    one = st.tuples(_ids(prefix), st.fixed_dictionaries(fields), st.fixed_dictionaries({}, optional=children))
    # Mostly without duplicates in one list: a file that is refused at once tests little.
    key = "target" if "target" in fields else "name"
    unique = (lambda body: str(body[key]), lambda body: str(body.get("id", body[key])))
    return st.lists(one.map(lambda parts: {**parts[0], **parts[1], **parts[2]}), max_size=4, unique_by=unique)


_names = st.sampled_from(["a", "b", "c", "d"])
_routes = _entities("1", {"name": _names, "paths": st.sampled_from([["/a"], ["/b"]])}, {})
_targets = _entities("2", {"target": st.sampled_from(["x:1", "y:1", "z:1", "x"])}, {"weight": st.integers(0, 2)})
_files = st.fixed_dictionaries(
    {
        "services": _entities("3", {"name": _names, "host": st.sampled_from(["h", "i"])}, {"routes": _routes}),
        "upstreams": _entities("4", {"name": _names}, {"targets": _targets}),
    }
)


def _write(tx: MemoryTransaction, file: EntityBody, mode: Mode) -> bool:
    """Carries a file out; False if it was refused, which must leave no trace."""
    tx.writes.clear()
    document = parse(to_yaml(file))
    try:
        (sync if mode is Mode.SYNC else apply)(tx, document, now=NOW)
    except FileRefused:
        assert tx.writes == []
        return False
    return True


@settings(deadline=None)
@given(st.lists(st.tuples(_files, st.sampled_from(Mode)), max_size=3), _files)
def test_sync_arrives_from_anywhere(history: list[tuple[EntityBody, Mode]], file: EntityBody) -> None:
    tx = MemoryTransaction()
    for earlier, mode in history:
        _write(tx, earlier, mode)
    fresh = MemoryTransaction()
    possible = _write(fresh, file, Mode.SYNC)
    assert _write(tx, file, Mode.SYNC) is possible, "whether a whole file is right does not depend on what was there"
    if not possible:
        return
    assert to_yaml(dump(tx)) == to_yaml(dump(fresh))
    assert diff(tx, parse(to_yaml(file)), now=NOW + 1).changes == []
    again = parse(to_yaml(dump(tx, with_ids=True)))
    assert diff(tx, again, now=NOW + 1).changes == []


@settings(deadline=None)
@given(_files, _files)
def test_apply_deletes_nothing_and_is_done_after_once(before: EntityBody, file: EntityBody) -> None:
    tx = MemoryTransaction()
    _write(tx, before, Mode.SYNC)
    ids = {collection: set(rows) for collection, rows in tx.rows.items()}
    if _write(tx, file, Mode.APPLY):
        assert diff(tx, parse(to_yaml(file)), mode=Mode.APPLY, now=NOW + 1).changes == []
    for collection, rows in tx.rows.items():
        assert ids[collection] <= set(rows)


@pytest.mark.parametrize("mode", list(Mode))
def test_diff_and_write_tell_the_same(mode: Mode) -> None:
    tx = MemoryTransaction()
    _write(tx, {"services": [{"name": "a", "host": "h"}, {"name": "b", "host": "h"}]}, Mode.SYNC)
    document = parse(b"services: [{name: b, host: i}, {name: c, host: h}]")
    planned = diff(tx, document, mode=mode, now=NOW)
    done = (sync if mode is Mode.SYNC else apply)(tx, document, now=NOW)
    told = [[(change.operation, change.name, change.fields()) for change in each.changes] for each in (planned, done)]
    assert told[0] == told[1]
