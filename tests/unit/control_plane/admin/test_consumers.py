"""Consumers, what they prove themselves with, and plugins that are not there."""

from __future__ import annotations

import hashlib
import re

import pytest

from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.admin.conftest import Client, tree

CREDENTIALS: list[tuple[str, str, EntityBody, set[str]]] = [
    ("key-auth", "key-auths", {}, {"key", "ttl"}),
    ("basic-auth", "basic-auths", {"username": "u", "password": "p"}, {"username", "password"}),
    ("hmac-auth", "hmac-auths", {"username": "u"}, {"username", "secret"}),
    ("jwt", "jwts", {}, {"key", "secret", "rsa_public_key", "algorithm"}),
    ("acls", "acls", {"group": "g"}, {"group"}),
    ("oauth2", "oauth2", {"name": "app"},
     {"name", "client_id", "client_secret", "hash_secret", "redirect_uris", "client_type"}),
]  # fmt: skip


async def consumer(client: Client, name: str = "ann") -> str:
    made = await client.tree("POST", "/consumers", {"username": name}, status=201)
    return str(made["id"])


@pytest.mark.parametrize(("below", "flat", "body", "own"), CREDENTIALS)
async def test_a_credential_lives_below_its_consumer(
    client: Client, below: str, flat: str, body: EntityBody, own: set[str]
) -> None:
    owner = await consumer(client)
    made = await client.tree("POST", f"/consumers/ann/{below}", body, status=201)

    assert set(made) == {"id", "created_at", "consumer", "tags"} | own
    assert made["consumer"] == {"id": owner}
    here = f"/consumers/ann/{below}/{made['id']}"
    assert await client.tree("GET", here) == made
    assert await client.tree("GET", f"/{flat}/{made['id']}") == made
    assert (await client.tree("GET", f"/{flat}/{made['id']}/consumer"))["username"] == "ann"
    assert (await client.tree("GET", f"/consumers/{owner}/{below}"))["data"] == [made]
    assert (await client.tree("PATCH", here, {"tags": ["a"]})) == {**made, "tags": ["a"]}
    assert (await client.ask("DELETE", here)).status == 204
    assert (await client.ask("DELETE", here)).status == 404


async def test_credentials_go_with_their_consumer(client: Client) -> None:
    await consumer(client)
    for below, _, body, _ in CREDENTIALS:
        await client.tree("POST", f"/consumers/ann/{below}", body, status=201)
    assert (await client.ask("DELETE", "/consumers/ann")).status == 204
    for _, flat, _, _ in CREDENTIALS:
        assert (await client.tree("GET", f"/{flat}"))["data"] == []


async def test_a_put_by_id_makes_the_credential(client: Client) -> None:
    owner = await consumer(client)
    wanted = "00000001-0000-4000-8000-000000000001"
    made = await client.tree("PUT", f"/consumers/{owner}/key-auth/{wanted}", {"key": "k"})
    assert (made["id"], made["key"], made["consumer"]) == (wanted, "k", {"id": owner})


async def test_keys_are_random_and_unique(client: Client) -> None:
    await consumer(client)
    made = [await client.tree("POST", "/consumers/ann/key-auth", {}, status=201) for _ in range(2)]
    keys = {str(one["key"]) for one in made}
    assert len(keys) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9]{32}", key) for key in keys)
    taken = await client.tree("POST", "/consumers/ann/key-auth", {"key": made[0]["key"]}, status=409)
    assert taken["code"] == 5


async def test_a_password_is_kept_as_kongs_hash(client: Client) -> None:
    owner = await consumer(client)
    hashed = hashlib.sha1(f"secret{owner}".encode(), usedforsecurity=False).hexdigest()
    body: EntityBody = {"username": "ann", "password": "secret"}
    made = await client.tree("POST", "/consumers/ann/basic-auth", body, status=201)
    assert made["password"] == hashed
    renamed = await client.tree("PATCH", f"/consumers/ann/basic-auth/{made['id']}", {"username": "anna"})
    assert renamed["password"] == hashed


async def test_an_application_s_secret_is_hashed_when_asked_for(client: Client) -> None:
    await consumer(client)
    body: EntityBody = {"name": "app", "client_secret": "s3cret", "hash_secret": True}
    made = await client.tree("POST", "/consumers/ann/oauth2", body, status=201)
    assert re.fullmatch(r"\$pbkdf2-sha512\$i=10000,l=32\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+", str(made["client_secret"]))
    again = await client.tree("PATCH", f"/oauth2/{made['id']}", {"hash_secret": True})
    assert again["client_secret"] == made["client_secret"]


async def test_a_key_may_end(client: Client) -> None:
    await consumer(client)
    now = [1_700_000_000.0]
    client.api.writes.now = lambda: now[0]
    made = await client.tree("POST", "/consumers/ann/key-auth", {"key": "k", "ttl": 60}, status=201)
    assert made["ttl"] == 60
    now[0] += 20
    assert (await client.tree("GET", f"/key-auths/{made['id']}"))["ttl"] == 40
    assert (await client.tree("PATCH", "/key-auths/k", {"tags": ["a"]}))["ttl"] == 40
    now[0] += 40
    assert (await client.ask("GET", "/key-auths/k")).status == 404
    assert (await client.tree("GET", "/consumers/ann/key-auth"))["data"] == []
    again = await client.tree("POST", "/consumers/ann/key-auth", {"key": "k"}, status=201)
    assert again["id"] != made["id"]
    too_long = await client.tree("POST", "/consumers/ann/key-auth", {"ttl": -1}, status=400)
    assert too_long["fields"] == {"ttl": "value should be between 0 and 100000000"}


async def test_groups_are_addressed_below_their_consumer(client: Client) -> None:
    await consumer(client)
    await consumer(client, "bob")
    made = await client.tree("PUT", "/consumers/ann/acls/staff", {})
    assert (made["group"], await client.tree("GET", "/consumers/ann/acls/staff")) == ("staff", made)
    await client.tree("POST", "/consumers/bob/acls", {"group": "staff"}, status=201)
    assert (await client.tree("POST", "/consumers/bob/acls", {"group": "staff"}, status=409))["code"] == 5
    assert (await client.tree("GET", "/acls/staff", status=400))["code"] == 1


async def test_a_public_key_is_needed_where_it_is_used(client: Client) -> None:
    await consumer(client)
    refused = await client.tree("POST", "/consumers/ann/jwt", {"algorithm": "RS256"}, status=400)
    assert refused["fields"] == {
        "@entity": ["failed conditional validation given value of field 'algorithm'"],
        "rsa_public_key": "required field missing",
    }


async def test_a_consumer_by_its_custom_id(client: Client) -> None:
    made = await client.tree("POST", "/consumers", {"custom_id": "42"}, status=201)
    assert await client.tree("GET", "/consumers?custom_id=42") == {"data": [made], "next": None}
    assert await client.tree("GET", "/consumers?custom_id=43") == {"data": [], "next": None}
    for query in ("custom_id=", "custom_id", "custom_id=1&custom_id=2"):
        refused = await client.tree("GET", f"/consumers?{query}", status=400)
        assert refused == {"message": "custom_id must be an unempty string"}


async def test_an_update_says_that_it_broke_the_rule(client: Client) -> None:
    await consumer(client)
    text = "at least one of these fields must be non-empty: 'custom_id', 'username'"
    assert (await client.tree("POST", "/consumers", {}, status=400))["fields"] == {"@entity": [text]}
    refused = await client.tree("PATCH", "/consumers/ann", {"username": None}, status=400)
    assert refused["fields"] == {"@entity": [f"when updating, {text}"]}


async def test_secrets_are_not_in_the_history(client: Client) -> None:
    await consumer(client)
    planted: list[tuple[str, EntityBody]] = [
        ("key-auth", {"key": "planted-1"}),
        ("basic-auth", {"username": "u", "password": "planted-2"}),
        ("hmac-auth", {"username": "u", "secret": "planted-3"}),
        ("jwt", {"key": "iss", "secret": "planted-4"}),
        ("oauth2", {"name": "a", "client_secret": "planted-5"}),
    ]
    for below, body in planted:
        await client.tree("POST", f"/consumers/ann/{below}", body, status=201)
    for number in range(1, await client.store.head() + 1):
        assert b"planted" not in (await client.ask("GET", f"/versions/{number}")).body
    dump = (await client.ask("GET", "/config/dump")).body
    assert b"planted" not in dump
    assert b"ann" in dump


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"name": "required field missing"}),
        ({"name": 5}, {"name": "expected a string"}),
        (
            {"name": "x", "config": 1, "nonsense": 2},
            {"name": "plugin 'x' not enabled; add it to the 'plugins' configuration property"},
        ),
    ],
)
async def test_a_plugin_that_is_not_there_is_refused(client: Client, body: JsonValue, fields: EntityBody) -> None:
    await client.tree("POST", "/services", {"name": "s", "host": "h"}, status=201)
    head = await client.store.head()
    for method, path in (
        ("POST", "/plugins"), ("POST", "/services/s/plugins"), ("PUT", "/plugins/x"), ("PUT", "/services/s/plugins/y"),
        ("POST", "/schemas/plugins/validate"),
    ):  # fmt: skip
        refused = await client.tree(method, path, body, status=400)
        assert (refused["code"], refused["fields"]) == (2, fields)
    assert await client.store.head() == head
    assert (await client.tree("PATCH", "/plugins/x", {}, status=404))["code"] == 6
    assert (await client.ask("DELETE", "/plugins/x")).status == 204
    for path in ("/schemas/plugins/x", "/plugins/schema/x"):
        assert await client.tree("GET", path, status=404) == {"message": "No plugin named 'x'"}


async def test_lists_of_plugins(client: Client) -> None:
    await client.tree("POST", "/services", {"name": "s", "host": "h"}, status=201)
    await consumer(client)
    for path in ("/plugins", "/services/s/plugins", "/consumers/ann/plugins"):
        assert await client.tree("GET", path) == {"data": [], "next": None}
    assert (await client.ask("GET", "/consumers/nobody/plugins")).status == 404
    answer = await client.ask("HEAD", "/consumers")
    assert (answer.status, len(tree(answer))) == (200, 2)
