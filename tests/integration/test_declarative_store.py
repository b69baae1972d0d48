"""Files against the real store: one version a file, all of it or nothing, and the history says what a file did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from control_plane.declarative import FileRefused, Mode, Summary, apply, diff, dump, parse, sync, to_yaml
from control_plane.store.contract import Operation, Origin, Store, Transaction, Written
from tests.support.fresh_store import fresh_sqlite

EXAMPLES = Path(__file__).parents[2] / "examples"
NOW = 1_700_000_000.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await fresh_sqlite(tmp_path / "store.db")
    yield opened
    await opened.close()


async def write(store: Store, work: Callable[[Transaction], Summary]) -> Written[Summary]:
    return await store.write(work, Origin(source="sync", reason="test"))


async def sync_text(store: Store, text: bytes) -> Written[Summary]:
    document = parse(text)
    return await write(store, lambda tx: sync(tx, document, now=NOW))


async def test_the_examples_are_two_versions(store: Store) -> None:
    first = await sync_text(store, (EXAMPLES / "blue-green.yaml").read_bytes())
    assert (first.version, len(first.changes), first.result.count(Operation.CREATE)) == (1, 8, 8)

    to_green = parse((EXAMPLES / "to-green.yaml").read_bytes())
    second = await write(store, lambda tx: apply(tx, to_green, now=NOW + 5))
    assert second.version == 2
    (change,) = second.changes
    assert change.before is not None
    assert change.after == {**change.before, "host": "green", "updated_at": int(NOW + 5)}


async def test_a_file_that_changes_nothing_takes_no_version(store: Store) -> None:
    text = (EXAMPLES / "blue-green.yaml").read_bytes()
    await sync_text(store, text)
    again = await sync_text(store, text)
    assert (again.version, again.changes, again.result.unchanged) == (1, (), 8)


async def test_diff_works_on_a_read_only_view_and_dump_reads_back(store: Store) -> None:
    document = parse((EXAMPLES / "blue-green.yaml").read_bytes())
    planned = await store.read(lambda tx: diff(tx, document, mode=Mode.SYNC, now=NOW))
    assert planned.count(Operation.CREATE) == 8
    assert await store.head() == 0
    await write(store, lambda tx: sync(tx, document, now=NOW))
    text = to_yaml(await store.read(dump))
    assert (await sync_text(store, text)).changes == ()
    flat = parse(text)
    assert (await store.read(lambda tx: diff(tx, flat, now=NOW))).changes == []


async def test_a_refused_file_leaves_everything_as_it_was(store: Store) -> None:
    await sync_text(store, (EXAMPLES / "blue-green.yaml").read_bytes())
    before = await store.read(dump)
    with pytest.raises(FileRefused) as caught:
        await sync_text(
            store, b"services:\n- {name: a, host: h}\n- {name: b, hots: h}\nroutes:\n- {name: r, service: x}\n"
        )
    assert {problem.path for problem in caught.value.problems} == {"services[1]", "routes[0]"}
    assert await store.read(dump) == before
    assert await store.head() == 1


async def test_names_swap_and_ids_change_under_the_real_constraints(store: Store) -> None:
    await sync_text(
        store,
        b"services:\n- {name: a, host: h, routes: [{name: r, paths: [/]}]}\n- {name: b, host: h}\n"
        b"upstreams:\n- {name: u, targets: [{target: 'x:1'}, {target: 'y:1'}]}",
    )
    ids = {str(body["name"]): str(body["id"]) for body in await store.read(lambda tx: list(tx.each("services")))}
    targets = {str(body["target"]): str(body["id"]) for body in await store.read(lambda tx: list(tx.each("targets")))}
    written = await sync_text(
        store,
        f"""
        services:
        - {{id: {ids["a"]}, name: b, host: h}}
        - {{id: 0a0a0a0a-0000-4000-8000-000000000001, name: a, host: h, routes: [{{name: r, paths: [/]}}]}}
        upstreams:
        - name: u
          targets:
          - {{id: {targets["x:1"]}, target: "y:1"}}
          - {{id: {targets["y:1"]}, target: "x:1"}}
        """.encode(),
    )
    operations = sorted((change.operation.value, change.collection) for change in written.changes)
    assert operations == [
        ("create", "services"),
        ("delete", "services"),
        ("update", "routes"),
        ("update", "services"),
        ("update", "targets"),
        ("update", "targets"),
    ]
    renamed = await store.read(lambda tx: tx.find("services", {"name": "b"}))
    assert renamed is not None
    assert renamed["id"] == ids["a"]
    version = await store.version(2)
    assert version is not None
    assert not any("parked" in str(change.after) for change in version.changes), "temporary keys are not history"


async def test_a_small_apply_asks_the_store_for_what_it_names(store: Store) -> None:
    await sync_text(store, (EXAMPLES / "blue-green.yaml").read_bytes())
    more = parse(b"routes:\n- {name: more, paths: [/more], service: example-service}\n")
    written = await write(store, lambda tx: apply(tx, more, now=NOW))
    (change,) = written.result.changes
    assert (change.operation, change.parent) == (Operation.CREATE, ("service", "example-service"))
