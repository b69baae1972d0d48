"""Clients made for Kong, unmodified or call by call, against a real control plane."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from kong.client import Kong
from kong.components import KongResponseError

from control_plane.entities.types import EntityBody, JsonValue
from tests.support.deck_calls import Deck
from tests.support.postgres import PostgresServer
from tests.support.processes import ControlPlane
from tests.support.tls import authority_pem, issued


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder, database = tmp_path_factory.mktemp("plane"), ""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        database = server.create(folder.name)
    plane = ControlPlane(folder, "--admin-origins", "http://manager.test:8002", database=database)
    try:
        asyncio.run(plane.up())
        yield plane
    finally:
        plane.destroy()


@pytest.fixture
async def deck(plane: ControlPlane) -> AsyncIterator[Deck]:
    async with aiohttp.ClientSession() as session:
        deck = Deck(session, plane.url)
        await deck.reset()
        yield deck
        await deck.reset()


@pytest.fixture
async def kong(plane: ControlPlane, deck: Deck) -> AsyncIterator[Kong]:
    async with Kong(url=plane.url) as kong:
        yield kong


def identity(number: int) -> str:
    return str(uuid.UUID(int=(4 << 76) + (2 << 62) + number))


def wanted(*, host: str = "blue", targets: int = 3) -> dict[str, dict[str, EntityBody]]:
    """A configuration of every kind that decK writes."""
    pem = issued("a.test")
    ann: JsonValue = {"id": identity(1)}
    hashed = hashlib.sha1(f"p{identity(1)}".encode(), usedforsecurity=False).hexdigest()
    state: dict[str, dict[str, EntityBody]] = {
        "certificates": {identity(2): {"cert": pem.cert, "key": pem.key}},
        "ca_certificates": {identity(3): {"cert": authority_pem()}},
        "consumers": {identity(1): {"username": "ann", "custom_id": "7", "tags": ["b", "a"]}},
        "snis": {identity(4): {"name": "a.test", "certificate": {"id": identity(2)}}},
        "services": {
            identity(5): {"name": "shop", "host": host, "path": "/anything", "retries": 0},
            identity(6): {"name": "off", "host": "other", "enabled": False},
        },
        "upstreams": {
            identity(7): {"name": "blue", "healthchecks": {"active": {"healthy": {"interval": 5}}}},
            identity(8): {
                "name": "green", "algorithm": "consistent-hashing", "hash_on": "header", "hash_on_header": "x",
            },
        },
        "key-auths": {identity(9): {"consumer": ann, "key": "k"}},
        "basic-auths": {identity(10): {"consumer": ann, "username": "ann", "password": hashed}},
        "hmac-auths": {identity(11): {"consumer": ann, "username": "ann", "secret": "s"}},
        "jwts": {identity(12): {"consumer": ann, "key": "iss", "secret": "s", "algorithm": "HS256"}},
        "acls": {identity(13): {"consumer": ann, "group": "staff"}},
        "oauth2": {
            identity(14): {
                "consumer": ann, "name": "app", "client_id": "c", "client_secret": "s", "client_type": "public",
                "hash_secret": False,
            }
        },
        "routes": {
            identity(15): {"name": "r", "service": {"id": identity(5)}, "paths": ["/b", "/a"], "methods": ["GET"]},
            identity(16): {"name": "alone", "hosts": ["x.test"]},
        },
        "targets": {
            identity(100 + number): {"upstream": {"id": identity(7)}, "target": f"10.0.0.{number}:80", "weight": number}
            for number in range(targets)
        },
    }  # fmt: skip
    return state


async def test_deck_syncs_and_sees_no_difference_afterwards(deck: Deck) -> None:
    state = wanted()
    del state["basic-auths"]  # a password is hashed on its way in, which decK knows of; see below
    first = await deck.sync(state)
    assert len(first.puts) == sum(map(len, state.values()))
    assert len(await deck.diff(state)) == 0

    changed = wanted(host="green", targets=2)
    del changed["basic-auths"], changed["routes"][identity(16)]
    second = await deck.sync(changed)
    assert [path for path, _ in second.puts] == ["services"]
    assert sorted(path for path, _ in second.deletes) == ["routes", "targets"]
    assert len(await deck.diff(changed)) == 0


async def test_deck_writes_a_password_once(deck: Deck) -> None:
    state = wanted()
    sent: EntityBody = {"consumer": {"id": identity(1)}, "username": "ann", "password": "p"}
    await deck.sync({**state, "basic-auths": {identity(10): sent}})
    assert len(await deck.diff(state)) == 0  # as a dump would have it


async def test_deck_replaces_a_target_by_put(deck: Deck) -> None:
    await deck.sync(wanted())
    state = wanted()
    state["targets"][identity(101)]["weight"] = 7
    assert [path for path, _ in (await deck.sync(state)).puts if path == "targets"] == ["targets"]
    del state["basic-auths"]
    assert [path for path, _ in (await deck.diff(state)).puts] == []


async def test_deck_selects_by_tags(deck: Deck) -> None:
    await deck.sync(wanted())
    state = await deck.dump(tags=("a", "b"))
    assert list(state["consumers"]) == [identity(1)]
    assert state["services"] == {}


async def test_deck_resets_everything(deck: Deck) -> None:
    await deck.sync(wanted())
    await deck.reset()
    assert not any((await deck.dump()).values())


async def test_aio_kong_drives_services_and_routes(kong: Kong) -> None:
    made = await kong.services.create(name="shop", host="example.test", port=8080)
    assert await kong.services.has("shop")
    assert not await kong.services.has("nothing")
    assert (await kong.services.update(made.id, retries=2))["retries"] == 2
    route = await made.routes.create(name="r", hosts=["a.test"], paths=["/x"])
    assert [one.id for one in await made.routes.get_full_list()] == [route.id]
    assert (await kong.routes.get("r"))["service"] == {"id": made.id}
    assert await made.plugins.get_list() == []
    with pytest.raises(KongResponseError) as caught:
        await made.plugins.create(name="cors")
    assert caught.value.status == 400
    assert "plugin 'cors' not enabled" in str(caught.value)
    await kong.services.delete(made.id)
    assert await kong.routes.get_full_list() == []


async def test_aio_kong_applies_json_twice(kong: Kong) -> None:
    config: EntityBody = {
        "services": [{"name": "shop", "host": "h.test", "routes": [{"name": "r", "paths": "/x", "methods": "GET"}]}],
        "consumers": [
            {"username": "ann", "groups": ["staff", "admin"], "auths": [{"type": "key-auth", "config": {"key": "k"}}]}
        ],
    }
    for _ in range(2):
        done = await kong.apply_json(config)
        assert (len(done["services"]), len(done["consumers"])) == (1, 1)
    groups = await (await kong.consumers.get("ann")).acls.get_list()
    assert sorted(str(group["group"]) for group in groups) == ["admin", "staff"]


async def test_aio_kong_drives_consumers_and_their_credentials(kong: Kong) -> None:
    ann = await kong.consumers.create(username="ann")
    assert (ann["custom_id"], ann.username) == (None, "ann")
    jwt = await ann.jwts.create()
    assert await ann.jwts.get(jwt["id"]) == jwt
    assert jwt["consumer"] == {"id": ann.id}
    key = await ann.keyauths.create()
    assert await ann.keyauths.delete(key["id"])
    with pytest.raises(KongResponseError) as caught:
        await ann.keyauths.delete(key["id"])
    assert caught.value.status == 404
    await ann.basicauths.create(username="ann", password="p")
    acl = await ann.acls.create(group="g")
    assert acl["group"] == "g"
    await kong.consumers.delete("ann")
    assert await kong.acls.get_list() == []


async def test_aio_kong_drives_certificates_and_snis(kong: Kong) -> None:
    pem = issued("b.test")
    made = await kong.certificates.create(cert=pem.cert, key=pem.key)
    assert made["snis"] == []
    assert await made.snis.get_list() == []
    sni = await kong.snis.create(name="b.test", certificate={"id": made.id})
    assert set(sni) == {"id", "name", "certificate", "tags", "created_at", "updated_at"}
    other = await kong.certificates.create(cert=pem.cert, key=pem.key)
    moved = await kong.snis.apply_json([{"name": "b.test", "certificate": {"id": other.id}}])
    assert moved[0]["certificate"] == {"id": other.id}
    for one in (made, other):
        await kong.certificates.delete(one.id)
    assert await kong.snis.get_list() == []


MANAGER = {"Origin": "http://manager.test:8002"}
MANAGER_READS = (
    "/", "/services?size=30", "/routes?size=30", "/consumers?size=30", "/plugins?size=30", "/upstreams?size=30",
    "/certificates?size=30", "/ca_certificates?size=30", "/snis?size=30", "/vaults?size=30", "/keys?size=30",
    "/key-sets?size=30", "/services/shop", "/services/shop/routes?size=30", "/services/shop/plugins?size=30",
    "/routes/r/plugins?size=30", "/consumers/ann/plugins?size=30", "/consumers/ann/key-auth?size=30",
    "/consumers/ann/basic-auth?size=30", "/consumers/ann/hmac-auth?size=30", "/consumers/ann/jwt?size=30",
    "/consumers/ann/acls?size=30", "/consumers/ann/oauth2?size=30", "/upstreams/blue/targets?size=30",
    "/schemas/keyauth_credentials", "/schemas/consumers",
)  # fmt: skip


async def test_kong_manager_gets_its_answers_across_origins(plane: ControlPlane, deck: Deck) -> None:
    await deck.sync(wanted())
    async with aiohttp.ClientSession(plane.url, headers=MANAGER) as manager:
        for path in MANAGER_READS:
            async with manager.get(path) as answer:
                assert (answer.status, answer.content_type) == (200, "application/json"), path
                assert answer.headers["Access-Control-Allow-Origin"] == MANAGER["Origin"]
                assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        for path, status in (("/services/nothing", 404), ("/services?size=x", 400), ("/schemas/vaults/env", 404)):
            async with manager.get(path) as answer:
                assert answer.status == status
                assert isinstance((await answer.json())["message"], str)
                assert answer.headers["Access-Control-Allow-Origin"] == MANAGER["Origin"]
        asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "content-type"}
        async with manager.options("/services/shop", headers=asked) as answer:
            assert answer.status == 204
            assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
            assert answer.headers["Access-Control-Allow-Headers"] == "content-type"


async def test_kong_manager_validates_then_writes_with_nulls(plane: ControlPlane, deck: Deck) -> None:
    await deck.sync(wanted())
    consumer: EntityBody = {"username": "bob", "custom_id": None, "tags": []}
    target: EntityBody = {"target": "10.1.0.1:80", "weight": 100, "tags": [], "upstream": {"id": identity(7)}}
    async with aiohttp.ClientSession(plane.url, headers=MANAGER) as manager:
        for collection, body in (("consumers", consumer), ("targets", target)):
            async with manager.post(f"/schemas/{collection}/validate", json=body) as answer:
                assert answer.status == 200, await answer.text()
        async with manager.post("/consumers", json=consumer) as answer:
            assert answer.status == 201
            assert (await answer.json())["tags"] == []
        async with manager.post(f"/upstreams/{identity(7)}/targets", json=target) as answer:
            assert answer.status == 201
            target_id = (await answer.json())["id"]
        async with manager.put(f"/upstreams/{identity(7)}/targets/{target_id}/unhealthy") as answer:
            assert answer.status in (204, 400)  # 400 where the upstream has no checks, in Kong's words
        async with manager.patch("/consumers/bob", json={**consumer, "custom_id": "8"}) as answer:
            assert answer.status == 200
        async with manager.delete("/consumers/bob") as answer:
            assert answer.status == 204


async def test_a_page_of_another_origin_may_not_write(plane: ControlPlane) -> None:
    async with aiohttp.ClientSession(plane.url, headers={"Origin": "http://evil.test"}) as page:
        async with page.post("/consumers", data={"username": "mallory"}) as answer:
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
        async with page.get("/consumers") as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers
