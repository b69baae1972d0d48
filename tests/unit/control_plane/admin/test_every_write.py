"""Every path that writes, taken from the path table: guarded edits and dry runs hold on all of them.

A path that is new in the table and says that it writes is tested here from then on. Where its body does not follow from
the entity that it leads to, `BODIES` must say one; the tests fail until it does.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from control_plane.admin.operations import Operation
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.snapshot.consistency import check_changes
from tests.support.fresh_store import fresh_sqlite
from tests.support.paths_reference import operations
from tests.support.tls import self_signed_authority
from tests.unit.control_plane.admin.conftest import Client, make_api, tree
from tests.unit.control_plane.admin.fake_fleet import FakeFleet

PAIR = self_signed_authority()
OTHER = self_signed_authority("another")


def _id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


CERTIFICATE = _id(1)
CONSUMER: EntityBody = {"id": _id(8)}
WORLD: Mapping[str, tuple[str, str, EntityBody]] = {
    "certificates": ("one.test", "/certificates", {"id": CERTIFICATE, "cert": PAIR.cert, "key": PAIR.key}),
    "snis": ("one.test", "/snis", {"name": "one.test", "certificate": {"id": CERTIFICATE}}),
    "ca_certificates": (_id(2), "/ca_certificates", {"id": _id(2), "cert": PAIR.cert}),
    "services": (
        "one",
        "/services",
        {"name": "one", "url": "https://one", "client_certificate": {"id": CERTIFICATE}, "ca_certificates": [_id(2)]},
    ),
    "routes": ("one", "/services/one/routes", {"name": "one", "paths": ["/"]}),
    "upstreams": (
        "one",
        "/upstreams",
        {
            "name": "one",
            "client_certificate": {"id": CERTIFICATE},
            "healthchecks": {"active": {"healthy": {"interval": 1}}},
        },
    ),
    "targets": ("one:80", "/upstreams/one/targets", {"target": "one:80"}),
    "consumers": ("one", "/consumers", {"id": CONSUMER["id"], "username": "one"}),
    "keyauth_credentials": ("one", "/consumers/one/key-auth", {"key": "one"}),
    "basicauth_credentials": ("one", "/consumers/one/basic-auth", {"username": "one", "password": "p"}),
    "hmacauth_credentials": ("one", "/consumers/one/hmac-auth", {"username": "one"}),
    "jwt_secrets": ("one", "/consumers/one/jwt", {"key": "one"}),
    "acls": (_id(9), "/consumers/one/acls", {"id": _id(9), "group": "one"}),
    "oauth2_credentials": ("one", "/consumers/one/oauth2", {"name": "one", "client_id": "one"}),
}
"""One entity of each kind: its key in a path, where it is made, and of what. Parents stand first."""
SINGULARS = {
    "service": "services",
    "route": "routes",
    "upstream": "upstreams",
    "certificate": "certificates",
    "client_certificate": "certificates",
    "consumer": "consumers",
}
NEW: Mapping[str, EntityBody] = {
    "certificates": {"cert": OTHER.cert, "key": OTHER.key},
    "snis": {"name": "new.test", "certificate": {"id": CERTIFICATE}},
    "ca_certificates": {"cert": OTHER.cert},
    "services": {"name": "new", "url": "https://new"},
    "routes": {"name": "new", "paths": ["/new"]},
    "upstreams": {"name": "new"},
    "targets": {"target": "new:80"},
    "consumers": {"username": "new"},
    "keyauth_credentials": {"key": "new", "consumer": CONSUMER},
    "basicauth_credentials": {"username": "new", "password": "p", "consumer": CONSUMER},
    "hmacauth_credentials": {"username": "new", "consumer": CONSUMER},
    "jwt_secrets": {"key": "new", "consumer": CONSUMER},
    "acls": {"group": "new", "consumer": CONSUMER},
    "oauth2_credentials": {"name": "new", "consumer": CONSUMER},
}
"""A body for POST and PUT."""
NO_PLUGINS = "plugins"
"""There are none, so nothing about them can be written."""
FILE: EntityBody = {"_format_version": "3.0", "services": [{"name": "filed", "host": "filed"}]}
BODIES: Mapping[str, JsonValue] = {
    "/batch": {"operations": [{"method": "POST", "path": "/services", "body": {"name": "new", "host": "new"}}]},
    "/config": FILE,
    "/config/sync": FILE,
    "/config/apply": FILE,
    "/versions/{version}/rollback": {"reason": "because"},
    "/fleet/upstreams/{upstreams}/settings": {"slow_start": 5},
    "/fleet/services/{services}/settings": {"partition": "fence"},
    "/fleet/services/{services}/preview": {"to": "one", "header": "x-preview", "value": "1"},
    "/fleet/services/{services}/mirror": {"to": "one", "share": 500},
}
"""Bodies of paths that lead to no entity of Kong's."""
BELOW = {
    "key-auth": "keyauth_credentials",
    "basic-auth": "basicauth_credentials",
    "hmac-auth": "hmacauth_credentials",
    "jwt": "jwt_secrets",
    "oauth2": "oauth2_credentials",
    "key-auths": "keyauth_credentials",
    "basic-auths": "basicauth_credentials",
    "hmac-auths": "hmacauth_credentials",
    "jwts": "jwt_secrets",
}
FILLED = {"version": "1", "address": "127.0.0.1:80"}
IN_USE = {
    ("DELETE", name)
    for name in (
        "/services/{services}",
        "/certificates/{certificates}",
        "/certificates/{certificates}/services/{services}",
        "/ca_certificates/{ca_certificates}",
    )
}
"""Deletes that a reference forbids in this world, so 400 is right."""


def writing() -> list[tuple[str, str, Operation]]:
    return [
        (template, method, operation)
        for template, method, operation in operations()
        if operation.writes and NO_PLUGINS not in template
    ]


def collection_of(template: str) -> str | None:
    """The collection of what the path leads to, None = it is not an entity of Kong's."""
    segments = template.strip("/").split("/")
    if segments[0] == "fleet":
        return None
    last = segments[-1]
    if last.startswith("{"):
        last = segments[-2]
    last = SINGULARS.get(last, BELOW.get(last, last))
    return last if last in NEW else None


def body_of(template: str, method: str) -> JsonValue:
    if method == "DELETE":
        return None
    if template in BODIES:
        return BODIES[template]
    collection = collection_of(template)
    if collection is None:
        return None  # healthy, drain and their like
    if method == "PATCH" or (method == "PUT" and collection == "targets"):
        return {"tags": ["changed"]}
    body = dict(NEW[collection])
    if template.startswith("/consumers/"):
        body.pop("consumer", None)
    return body


def filled(template: str) -> str:
    def key(found: re.Match[str]) -> str:
        return FILLED[found[1]] if found[1] in FILLED else WORLD[found[1]][0]

    return re.sub(r"\{([^}]*)\}", key, template)


_made: dict[str, bytes] = {}
"""Content of the store's file and of its keyring, by how their names end."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Client]:
    """The API over the world, made once and copied for each test."""
    path = tmp_path / "store.db"
    if not _made:
        store = await fresh_sqlite(path, before_commit=check_changes)
        making = Client(make_api(store, FakeFleet()), store, FakeFleet())
        for _, where, body in WORLD.values():
            made = await making.ask("POST", where, body)
            assert made.status == 201, (where, made.body)
        await store.close()
        _keep(path)
    _copy(path)
    store, fleet = await fresh_sqlite(path, before_commit=check_changes), FakeFleet()
    yield Client(make_api(store, fleet), store, fleet)
    await store.close()


def _keep(path: Path) -> None:
    _made.update((end, path.with_name(path.name + end).read_bytes()) for end in ("", ".keyring"))


def _copy(path: Path) -> None:
    for end, content in _made.items():
        copy = path.with_name(path.name + end)
        copy.unlink(missing_ok=True)
        copy.write_bytes(content)
        copy.chmod(0o600)


WRITING = writing()


@pytest.mark.parametrize(("template", "method", "operation"), WRITING, ids=[f"{one[1]} {one[0]}" for one in WRITING])
async def test_a_dry_run_writes_nothing(world: Client, template: str, method: str, operation: Operation) -> None:
    del operation
    before = await everything(world)
    target, body = filled(template), body_of(template, method)
    answer = await world.ask(method, f"{target}?dry_run=1", body)
    if answer.status == 400 and (method, template) in IN_USE:
        assert tree(answer)["name"] in ("foreign key violation", "referenced by others")
    else:
        assert answer.status == 200, answer.body
        told = tree(answer)
        assert told["dry_run"] is True
        assert "X-Pointsman-Version" not in answer.headers
    assert await everything(world) == before
    real = await world.ask(method, target, body)
    rehearsed = tree(answer).get("status", 400)
    assert real.status == rehearsed, real.body


GUARDED = [one for one in WRITING if one[2].guarded]


@pytest.mark.parametrize(("template", "method", "operation"), GUARDED, ids=[f"{one[1]} {one[0]}" for one in GUARDED])
async def test_a_stale_tag_writes_nothing(world: Client, template: str, method: str, operation: Operation) -> None:
    del operation
    before = await everything(world)
    target, body = filled(template), body_of(template, method)
    refused = await world.ask(method, target, body, headers={"If-Match": '"stale"'})
    assert refused.status == 412, refused.body
    assert await everything(world) == before
    tag = tree(refused)["etag"]
    done = await world.ask(method, target, body, headers={"If-Match": str(tag)})
    assert done.status in ((400,) if (method, template) in IN_USE else (200, 204)), done.body


def test_every_write_to_one_entity_is_guarded() -> None:
    unguarded = [
        f"{method} {template}"
        for template, method, operation in WRITING
        if method in ("PUT", "PATCH", "DELETE") and not operation.guarded
    ]
    assert unguarded == []


async def test_every_entity_that_can_be_read_has_a_tag(world: Client) -> None:
    for template in {template for template, method, _ in GUARDED if method == "PATCH"}:
        shown = await world.ask("GET", filled(template))
        assert shown.status == 200, (template, shown.body)
        assert shown.headers["ETag"].startswith('"'), template


async def everything(client: Client) -> tuple[int, JsonValue]:
    """The version, and all entities with our own settings."""
    dump = await client.tree("GET", "/config/dump?format=json&with_ids=1&with_keys=1")
    return await client.store.head(), dump
