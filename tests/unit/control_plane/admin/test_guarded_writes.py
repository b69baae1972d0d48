"""Guarded edits, dry runs and repeated requests: what is checked inside the transaction of a write."""

from __future__ import annotations

import json

import pytest

from control_plane.admin.repeats import fingerprint
from control_plane.entities.types import EntityBody, JsonValue
from tests.support.tls import issued
from tests.unit.control_plane.admin.calls import call
from tests.unit.control_plane.admin.conftest import Client, tree

SERVICE: EntityBody = {"name": "a", "host": "blue"}


async def etag(client: Client, target: str) -> str:
    return (await client.ask("GET", target)).headers["ETag"]


async def test_a_write_answers_with_the_tag_that_a_read_shows(client: Client) -> None:
    created = await client.ask("POST", "/services", SERVICE)
    assert created.headers["ETag"] == await etag(client, "/services/a")
    patched = await client.ask("PATCH", "/services/a", {"retries": 1})
    assert patched.headers["ETag"] == await etag(client, "/services/a") != created.headers["ETag"]


async def test_a_reader_who_has_it_gets_304(client: Client) -> None:
    await client.ask("POST", "/services", SERVICE)
    tag = await etag(client, "/services/a")
    answer = await client.ask("GET", "/services/a", headers={"If-None-Match": f'"other", W/{tag}'})
    assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    assert (await client.ask("GET", "/services/a", headers={"If-None-Match": '"other"'})).status == 200


async def test_the_second_of_two_editors_sees_what_the_first_did(client: Client) -> None:
    await client.ask("POST", "/services", SERVICE)
    tag = await etag(client, "/services/a")
    edits: list[tuple[str, EntityBody]] = [("anna", {"host": "green"}), ("bert", {"retries": 2, "host": "red"})]
    for author, edit in edits:
        await client.ask("PATCH", "/services/a", edit, headers={"X-Pointsman-Author": author})
    refused = await client.ask("PATCH", "/services/a", {"port": 81}, headers={"If-Match": tag})
    assert refused.status == 412
    body = tree(refused)
    assert body["etag"] == await etag(client, "/services/a")
    assert body["complete"] is True
    assert "bert changed it last, in version 3 (host, retries)" in str(body["message"])
    changes = json.loads(refused.body)["changes"]
    told = [(at["version"], at["author"], [field["field"] for field in at["fields"]]) for at in changes]
    assert told == [(3, "bert", ["host", "retries"]), (2, "anna", ["host"])]
    assert await client.store.head() == 3
    merged = await client.ask("PATCH", "/services/a", {"port": 81}, headers={"If-Match": str(body["etag"])})
    assert merged.status == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/services/a", "/routes/r", "/services/a/routes/r", "/routes/r/service", "/upstreams/u/targets/t:80"]
)
async def test_every_path_to_an_entity_is_guarded(client: Client, method: str, path: str) -> None:
    await client.ask("POST", "/services", SERVICE)
    await client.ask("POST", "/services/a/routes", {"name": "r", "paths": ["/"]})
    await client.ask("POST", "/upstreams", {"name": "u"})
    await client.ask("POST", "/upstreams/u/targets", {"target": "t:80"})
    head = await client.store.head()
    if (method, path) == ("DELETE", "/routes/r/service"):
        return  # never deletes
    answer = await client.ask(method, path, {"tags": ["x"]}, headers={"If-Match": '"stale"'})
    assert (answer.status, await client.store.head()) == (412, head)
    body: EntityBody = {"host": "h", "paths": ["/x"]} if method == "PUT" else {"tags": ["x"]}
    if "target" in path:
        body = {"weight": 1}
    elif path.endswith("/a") or path.endswith("service"):
        body.pop("paths", None)
    else:
        body.pop("host", None)
    tag = await etag(client, path)
    answer = await client.ask(method, path, None if method == "DELETE" else body, headers={"If-Match": tag})
    assert answer.status in ((400,) if (method, path) == ("DELETE", "/services/a") else (200, 204)), answer.body


async def test_what_is_not_there_matches_nothing_and_may_be_created_once(client: Client) -> None:
    assert (await client.ask("PUT", "/services/a", SERVICE, headers={"If-Match": "*"})).status == 412
    assert (await client.ask("PUT", "/services/a", SERVICE, headers={"If-None-Match": "*"})).status == 200
    assert (await client.ask("PUT", "/services/a", SERVICE, headers={"If-None-Match": "*"})).status == 412
    assert (await client.ask("PUT", "/services/a", {"host": "green"}, headers={"If-Match": "*"})).status == 200
    assert (await client.ask("POST", "/services", SERVICE, headers={"If-Match": "*"})).status == 412
    assert (await client.ask("PUT", "/services/a", SERVICE, headers={"If-Match": "a"})).status == 400
    assert await client.store.head() == 2


async def test_a_certificate_s_tag_changes_with_its_names(client: Client) -> None:
    pair = issued("a.example")
    await client.ask("POST", "/certificates", {"cert": pair.cert, "key": pair.key, "snis": ["a.example"]})
    tag = await etag(client, "/certificates/a.example")
    await client.ask("PATCH", "/certificates/a.example", {"snis": ["a.example", "b.example"]})
    refused = await client.ask("PATCH", "/certificates/a.example", {"tags": ["x"]}, headers={"If-Match": tag})
    assert refused.status == 412
    assert b"PRIVATE KEY" not in refused.body


async def test_a_dry_run_says_all_and_does_nothing(client: Client) -> None:
    await client.ask("POST", "/services", SERVICE)
    body = await client.tree("PATCH", "/services/a?dry_run=1", {"host": "green"})
    changes: list[JsonValue] = [
        {
            "operation": "update",
            "entity_type": "service",
            "id": (await client.tree("GET", "/services/a"))["id"],
            "name": "a",
            "parent": None,
            "fields": [{"field": "host", "before": "blue", "after": "green"}],
        }
    ]
    assert (body["dry_run"], body["status"], body["changes"]) == (True, 200, changes)
    assert (await client.tree("GET", "/services/a"))["host"] == "blue"
    assert await client.store.head() == 1
    assert (await client.ask("DELETE", "/services/a?dry_run=true")).status == 200
    assert (await client.ask("DELETE", "/services/a?dry_run=maybe")).status == 400


async def test_a_dry_run_refuses_what_the_write_would_refuse(client: Client) -> None:
    cases: list[tuple[str, EntityBody, int]] = [
        ("/services", {"name": "x"}, 400),
        ("/routes", {"paths": ["/"], "service": {"name": "none"}}, 400),
        ("/routes", {"paths": ["/"], "service": {"id": "00000000-0000-4000-8000-000000000001"}}, 400),
        ("/routes", {"paths": ["~/("]}, 400),
        ("/services", SERVICE, 409),
    ]
    await client.ask("POST", "/services", SERVICE)
    for path, body, status in cases:
        real = await client.ask("POST", path, body)
        rehearsed = await client.ask("POST", f"{path}?dry_run=1", body)
        assert (rehearsed.status, rehearsed.body) == (real.status, real.body)
        assert real.status == status


async def test_a_repeated_request_gets_its_answer_and_does_nothing(client: Client) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = await client.ask("POST", "/services", SERVICE, headers=headers)
    await client.ask("PATCH", "/services/a", {"host": "green"})
    again = await client.ask("POST", "/services", SERVICE, headers=headers)
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["X-Pointsman-Version"] == first.headers["X-Pointsman-Version"] == "1"
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert await client.store.head() == 2


async def test_a_key_stands_for_one_request(client: Client) -> None:
    headers = {"Idempotency-Key": "k1"}
    await client.ask("POST", "/services", SERVICE, headers=headers)
    others: list[tuple[str, str, EntityBody]] = [
        ("POST", "/services", {"name": "b", "host": "blue"}),
        ("POST", "/services?x=1", SERVICE),
        ("PUT", "/services/a", SERVICE),
    ]
    for method, path, body in others:
        assert (await client.ask(method, path, body, headers=headers)).status == 409
    assert (await client.ask("POST", "/services", SERVICE, headers={"Idempotency-Key": "k" * 256})).status == 400
    assert await client.store.head() == 1


async def test_a_refused_request_may_be_sent_again_with_its_key(client: Client) -> None:
    headers = {"Idempotency-Key": "k1"}
    body: EntityBody = {"name": "r", "paths": ["/"], "service": {"name": "a"}}
    assert (await client.ask("POST", "/routes", body, headers=headers)).status == 400
    await client.ask("POST", "/services", SERVICE)
    assert (await client.ask("POST", "/routes", body, headers=headers)).status == 201


async def test_kept_answers_hold_no_private_key(client: Client) -> None:
    pair = issued("a.example")
    body: EntityBody = {"cert": pair.cert, "key": pair.key}
    first = await client.ask("POST", "/certificates", body, headers={"Idempotency-Key": "k1"})
    kept = await client.store.read(lambda tx: tx.records.answer("k1"))
    assert kept is not None
    assert "PRIVATE KEY" not in kept.body
    again = await client.ask("POST", "/certificates", body, headers={"Idempotency-Key": "k1"})
    assert (again.status, again.body) == (201, first.body)
    assert tree(again)["key"] == pair.key


async def test_old_answers_are_forgotten(client: Client) -> None:
    client.api.writes.now = lambda: 1_000_000.0
    await client.ask("DELETE", "/services/x", headers={"Idempotency-Key": "k1"})
    client.api.writes.now = lambda: 1_000_000.0 + 25 * 3600
    await client.ask("DELETE", "/services/y", headers={"Idempotency-Key": "k2"})
    assert await client.store.read(lambda tx: tx.records.answer("k1")) is None
    assert await client.store.read(lambda tx: tx.records.answer("k2")) is not None


async def test_what_tells_two_requests_apart_is_kept_under_the_databases_key(client: Client) -> None:
    body: EntityBody = {"name": "a", "host": "weak-secret"}
    await client.ask("POST", "/services", body, headers={"Idempotency-Key": "k1"})
    kept = await client.store.read(lambda tx: tx.records.answer("k1"))
    assert kept is not None
    sent = call("POST", "/services", content_type="application/json")
    sent.received = json.dumps(body).encode()
    guess = fingerprint(sent, "")
    assert kept.fingerprint != guess, "whoever has a copy of the database could try passwords"
    assert kept.fingerprint == await client.store.read(lambda tx: tx.records.keyed_digest(guess))
