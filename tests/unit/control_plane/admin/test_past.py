"""History over HTTP: differences between versions, the way back, batches, and the audit trail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from sqlalchemy import create_engine, text

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Transaction
from control_plane.store.retention import ALWAYS_KEPT, Retention, drop_old_versions
from tests.support.tls import issued
from tests.unit.control_plane.admin.conftest import Client, tree

COLLECTIONS = ("certificates", "snis", "services", "routes", "upstreams", "targets", "upstream_settings")


async def state(client: Client) -> dict[str, list[EntityBody]]:
    def work(tx: Transaction) -> dict[str, list[EntityBody]]:
        return {collection: list(tx.each(collection)) for collection in COLLECTIONS}

    return await client.store.read(work)


async def write(client: Client, *steps: tuple[str, str, EntityBody | None]) -> None:
    for method, path, body in steps:
        answer = await client.ask(method, path, body)
        assert answer.status < 300, answer.body


def operations(*steps: tuple[str, str, EntityBody | None]) -> EntityBody:
    found: list[JsonValue] = [{"method": method, "path": path, "body": body} for method, path, body in steps]
    return {"operations": found}


def rows(body: EntityBody, name: str) -> Sequence[EntityBody]:
    found: list[EntityBody] = json.loads(json.dumps(body[name]))
    return found


async def test_any_two_versions_can_be_compared(client: Client) -> None:
    await write(
        client,
        ("POST", "/services", {"name": "a", "host": "blue"}),
        ("PATCH", "/services/a", {"host": "green"}),
        ("POST", "/services", {"name": "b", "host": "x"}),
        ("PATCH", "/services/a", {"host": "blue", "retries": 1}),
        ("DELETE", "/services/b", None),
    )
    body = await client.tree("GET", "/versions/4/diff?against=1")
    told = [(row["operation"], row["name"], rows(row, "fields")) for row in rows(body, "changes")]
    assert told == [
        ("update", "a", [{"field": "retries", "before": 5, "after": 1}]),
        ("create", "b", []),
    ]
    back = await client.tree("GET", "/versions/1/diff?against=4")
    assert [row["operation"] for row in rows(back, "changes")] == ["update", "delete"]
    same = await client.tree("GET", "/versions/5/diff?against=3")
    assert [(row["operation"], row["name"]) for row in rows(same, "changes")] == [("update", "a"), ("delete", "b")]
    assert (await client.tree("GET", "/versions/2/diff"))["against"] == 1
    assert (await client.tree("GET", "/versions/0/diff"))["changes"] == []
    assert (await client.ask("GET", "/versions/9/diff")).status == 404


async def test_a_rollback_restores_to_the_last_field(client: Client) -> None:
    one, two = issued("a.example"), issued("b.example")
    await write(
        client,
        ("POST", "/certificates", {"cert": one.cert, "key": one.key, "snis": ["a.example"]}),
        ("POST", "/services", {"name": "a", "host": "blue"}),
        ("POST", "/services/a/routes", {"name": "r", "paths": ["/"]}),
        ("POST", "/upstreams", {"name": "blue"}),
        ("POST", "/upstreams/blue/targets", {"target": "t:80"}),
        ("PATCH", "/fleet/upstreams/blue/settings", {"slow_start": 5}),
    )
    before = await state(client)
    await write(
        client,
        ("PATCH", "/certificates/a.example", {"cert": two.cert, "key": two.key, "snis": ["b.example"]}),
        ("DELETE", "/routes/r", None),
        ("DELETE", "/services/a", None),
        ("POST", "/services", {"name": "a", "host": "other"}),
        ("POST", "/services/a/routes", {"name": "r", "paths": ["/x"]}),
        ("DELETE", "/upstreams/blue", None),
        ("POST", "/upstreams", {"name": "blue", "slots": 100}),
    )
    after = await state(client)
    answer = await client.tree("POST", "/versions/6/rollback", {"reason": "it was better"})
    assert (answer["rolled_back_to"], await state(client)) == (6, before)
    assert "PRIVATE KEY" not in json.dumps(answer)
    head = await client.store.version(await client.store.head())
    assert head is not None
    assert (head.number, head.origin.source, head.origin.reason) == (14, "rollback", "it was better")
    assert (await client.tree("GET", "/versions/14/diff?against=6"))["changes"] == []

    await client.tree("POST", "/versions/13/rollback")
    assert await state(client) == after
    again = await client.tree("POST", "/versions/13/rollback")
    assert (again["change_count"], await client.store.head()) == (0, 15)
    await client.tree("POST", "/versions/0/rollback")
    assert not any((await state(client)).values())


async def test_names_that_moved_round_move_back(client: Client) -> None:
    for name in "abc":
        await write(client, ("POST", "/services", {"name": name, "host": "h"}))
    before = await state(client)
    for old, new in (("a", "x"), ("b", "a"), ("c", "b"), ("x", "c")):
        await write(client, ("PATCH", f"/services/{old}", {"name": new}))
    await client.tree("POST", "/versions/3/rollback")
    assert await state(client) == before


async def test_a_rehearsed_rollback_shows_what_it_would_do(client: Client) -> None:
    await write(
        client,
        ("POST", "/services", {"name": "a", "host": "blue"}),
        ("PATCH", "/services/a", {"host": "green"}),
    )
    body = await client.tree("POST", "/versions/1/rollback?dry_run=1")
    (change,) = rows(body, "changes")
    assert change["fields"] == [{"field": "host", "before": "green", "after": "blue"}]
    assert (body["dry_run"], await client.store.head()) == (True, 2)


async def test_writes_of_one_commit_are_part_of_the_past(client: Client) -> None:
    """A rollback that shares its commit with writes before it takes them back too."""
    await write(client, ("POST", "/services", {"name": "a", "host": "blue"}))
    before = await state(client)
    answers = await asyncio.gather(
        *(client.ask("PATCH", "/services/a", {"retries": number}) for number in range(10)),
        client.ask("POST", "/versions/1/rollback"),
    )
    assert {answer.status for answer in answers} == {200}
    assert await state(client) == before
    assert await client.store.head() == int(answers[-1].headers["X-Pointsman-Version"]) == 12


async def test_what_was_dropped_is_refused_by_name(client: Client) -> None:
    await write(client, ("POST", "/services", {"name": "a", "host": "h"}))
    for number in range(ALWAYS_KEPT + 10):
        await write(client, ("PATCH", "/services/a", {"retries": number}))
    head = await client.store.head()
    assert await drop_old_versions(client.store, Retention(), now=0) == 0
    assert await drop_old_versions(client.store, Retention(versions=5), now=0) == head - ALWAYS_KEPT
    assert await drop_old_versions(client.store, Retention(versions=5), now=0) == 0
    oldest = head - ALWAYS_KEPT + 1
    for path in ("/versions/3", "/versions/3/diff"):
        answer = await client.ask("GET", path)
        assert (answer.status, f"the oldest that is, is {oldest}" in str(tree(answer)["message"])) == (410, True)
    assert (await client.ask("POST", "/versions/3/rollback")).status == 410
    assert (await client.ask("POST", f"/versions/{oldest - 1}/rollback")).status == 200
    assert (await client.ask("GET", f"/versions/{head + 5}")).status == 404
    assert (await client.tree("GET", "/audit/verify"))["valid"] is True


async def test_a_batch_is_one_version_and_sees_itself(client: Client) -> None:
    body = operations(
        ("POST", "/services", {"name": "a", "host": "blue"}),
        ("POST", "/services/a/routes", {"name": "r", "paths": ["/"]}),
        ("PUT", "/upstreams/blue", {}),
        ("POST", "/upstreams/blue/targets", {"target": "t:80"}),
        ("PATCH", "/services/a", {"retries": 1}),
        ("DELETE", "/routes/none", None),
    )
    answer = await client.ask("POST", "/batch", body)
    assert (answer.status, answer.headers["X-Pointsman-Version"]) == (200, "1")
    assert [row["status"] for row in rows(tree(answer), "results")] == [201, 201, 200, 201, 200, 204]
    assert (await client.tree("GET", "/services/a"))["retries"] == 1


async def test_a_batch_that_is_refused_names_the_operation_and_changes_nothing(client: Client) -> None:
    good: tuple[str, str, EntityBody] = ("POST", "/services", {"name": "a", "host": "blue"})
    cases: list[tuple[tuple[str, str, EntityBody | None], int]] = [
        (("POST", "/services", {"name": "b"}), 400),
        (("POST", "/services", {"name": "a", "host": "h"}), 409),
        (("PATCH", "/services/none", {"host": "h"}), 404),
        (("POST", "/nothing", {}), 404),
        (("PUT", "/services", {}), 405),
        (("GET", "/services", None), 400),
        (("POST", "/batch", operations(good)), 400),
        (("POST", "/config/sync", {"services": []}), 400),
        (("POST", "/config/diff", {"services": []}), 400),
        (("POST", "/versions/0/rollback", None), 400),
        (("POST", "/routes", {"paths": ["/"], "service": {"name": "none"}}), 400),
    ]
    for bad, status in cases:
        answer = await client.ask("POST", "/batch", operations(good, bad))
        assert (answer.status, tree(answer)["operation"]) == (status, 1), (bad, answer.body)
        assert str(tree(answer)["message"]).startswith(f"operation 1 ({bad[0]} {bad[1]}): ")
    assert (await client.ask("POST", "/batch", {"operations": []})).status == 400
    assert (await client.ask("POST", "/batch", operations(*[good] * 1_001))).status == 413
    assert await client.store.head() == 0


async def test_a_batch_is_guarded_rehearsed_and_repeated_like_a_write(client: Client) -> None:
    await write(client, ("POST", "/services", {"name": "a", "host": "blue"}))
    body: EntityBody = {
        "operations": [{"method": "PATCH", "path": "/services/a", "body": {"retries": 1}, "if_match": '"stale"'}]
    }
    refused = await client.ask("POST", "/batch", body)
    assert (refused.status, tree(refused)["operation"]) == (412, 0)
    good = operations(("PATCH", "/services/a", {"retries": 1}))
    assert (await client.tree("POST", "/batch?dry_run=1", good))["updated"] == 1
    assert await client.store.head() == 1
    answers = [await client.ask("POST", "/batch", good, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert await client.store.head() == 2


async def test_the_audit_trail_has_who_did_what_and_no_secret(client: Client) -> None:
    pair = issued("a.example")
    headers = {"X-Pointsman-Author": "anna", "X-Pointsman-Reason": "new"}
    await client.ask("POST", "/certificates", {"cert": pair.cert, "key": pair.key}, headers=headers)
    await client.ask("POST", "/services", {"name": "a", "host": "h"})
    await client.ask("PATCH", "/services/a", {"host": "x"}, headers={"If-Match": '"stale"'})
    await client.ask("PATCH", "/services/a", {"hots": "x"})  # a mistake is no concern of an audit
    body = await client.tree("GET", "/audit?size=2")
    newest, second = rows(body, "data")
    assert (newest["outcome"], newest["action"], newest["details"]) == (
        "refused",
        "PATCH /services/{services}",
        {"status": 412},
    )
    assert (second["version"], second["outcome"]) == (2, "done")
    (first,) = rows(await client.tree("GET", str(body["next"])), "data")
    assert (first["author"], first["address"], first["action"]) == ("anna", "127.0.0.1", "POST /certificates")
    assert "PRIVATE KEY" not in json.dumps(first)
    assert "BEGIN" not in json.dumps(first)


async def test_refusals_are_recorded_at_a_bounded_rate(client: Client) -> None:
    for _ in range(100):
        await client.ask("PUT", "/services/a", {"host": "h"}, headers={"If-Match": "*"})
    records = rows(await client.tree("GET", "/audit"), "data")
    assert 10 <= len(records) < 100


async def test_an_altered_removed_or_inserted_record_is_found(client: Client) -> None:
    for number in range(5):
        await client.ask("PUT", "/services/a", {"host": f"h{number}"})
    whole = await client.tree("GET", "/audit/verify")
    assert (whole["valid"], whole["records"]) == (True, 5)
    damages = {
        "UPDATE audit SET author = 'bert' WHERE number = 2": "record 2 was altered",
        "UPDATE audit SET details = '{}' WHERE number = 2": "record 2 was altered",
        "DELETE FROM audit WHERE number = 3": "record 3 is missing",
        "DELETE FROM audit WHERE number = 5": "the newest records are missing: 5 to 5",
        "INSERT INTO audit SELECT 6, at, author, source, address, action, outcome, version, details, hash, hash "
        "FROM audit WHERE number = 5": "record 6 was altered",
        "UPDATE audit SET hash = 'x' WHERE number = 1": "record 2 does not follow from the record before it",
    }
    engine = create_engine(f"sqlite:///{client.store._path}")  # type: ignore[attr-defined]  # the damage is done to it
    for damage, message in damages.items():
        with engine.begin() as connection:
            kept = connection.execute(text("SELECT * FROM audit ORDER BY number")).all()
            connection.execute(text(damage))
        body = await client.tree("GET", "/audit/verify")
        assert body["valid"] is False
        assert message in [row["message"] for row in rows(body, "problems")], (damage, body)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM audit"))
            for row in kept:
                values = ", ".join(f":v{at}" for at in range(len(row)))
                connection.execute(
                    text(f"INSERT INTO audit VALUES ({values})"), {f"v{at}": value for at, value in enumerate(row)}
                )
    engine.dispose()
    assert (await client.tree("GET", f"/audit/verify?expect={whole['newest']}"))["valid"] is True
    other = f"5:{'0' * 64}"
    assert (await client.tree("GET", f"/audit/verify?expect={other}"))["valid"] is False
    assert (await client.ask("GET", "/audit/verify?expect=x")).status == 400
