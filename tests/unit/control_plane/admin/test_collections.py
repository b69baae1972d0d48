"""What each method does on each kind of path: flat, nested, and the parent of an entity."""

from __future__ import annotations

import pytest

from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.admin.conftest import Client, tree

MISSING = "00000000-0000-4000-8000-00000000dead"


async def service(client: Client, name: str) -> str:
    made = await client.tree("POST", "/services", {"name": name, "host": "h"}, status=201)
    return str(made["id"])


def rows(page: EntityBody) -> list[EntityBody]:
    data = page["data"]
    assert isinstance(data, list)
    return [row for row in data if isinstance(row, dict)]


async def test_every_schema_has_its_paths(client: Client) -> None:
    templates = set(client.api.table.templates())
    for collection in SCHEMAS:
        if collection != "targets":
            path = SCHEMAS[collection].path
            assert {f"/{path}", f"/{path}/{{{collection}}}"} <= templates
    assert {"/services/{services}/routes", "/routes/{routes}/service"} <= templates
    assert "/upstreams/{upstreams}/targets/{targets}" in templates
    assert "/targets" not in templates


async def test_create_and_read_by_name_and_id(client: Client) -> None:
    made = await client.tree("POST", "/services", {"name": "a", "host": "h", "tags": ["ü"]}, status=201)
    assert await client.tree("GET", "/services/a") == made
    assert await client.tree("GET", f"/services/{made['id']}/") == made
    assert made["created_at"] == made["updated_at"]


async def test_what_is_missing_is_404(client: Client) -> None:
    await service(client, "s")
    for target in ("/services/x", f"/services/{MISSING}", "/services/x/routes", "/routes/x/service", "/targets", "/x"):
        answer = await client.ask("GET", target)
        assert (answer.status, tree(answer)) == (404, {"message": "Not found"})
    for method, target in (
        ("POST", "/services/x/routes"),
        ("PUT", "/services/x/routes/r"),
        ("PATCH", "/services/s/routes/r"),
        ("DELETE", "/services/s/routes/r"),
        ("PUT", "/routes/x/service"),
        ("DELETE", "/upstreams/u/targets/t:1"),
    ):
        answer = await client.ask(method, target, {})
        assert (answer.status, tree(answer)) == (404, {"message": "Not found"}), (method, target)


async def test_patch_of_what_is_missing_has_kongs_code(client: Client) -> None:
    body = await client.tree("PATCH", "/services/x", {}, status=404)
    assert (body["code"], body["message"]) == (6, "could not find the entity with '{name=\"x\"}'")
    body = await client.tree("PATCH", f"/services/{MISSING}", {}, status=404)
    assert body["message"] == f"could not find the entity with primary key '{{id=\"{MISSING}\"}}'"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("DELETE", "/services"),
        ("PUT", "/services"),
        ("POST", "/services/a"),
        ("POST", "/status"),
        ("DELETE", "/config/dump"),
        ("OTHER", "/services"),
        ("PATCH", "/upstreams/u/targets"),
    ],
)
async def test_methods_that_are_not_there(client: Client, method: str, target: str) -> None:
    answer = await client.ask(method, target)
    assert (answer.status, tree(answer)) == (405, {"message": "Method not allowed"})


async def test_put_creates_and_replaces(client: Client) -> None:
    first = await client.tree("PUT", "/services/a", {"host": "h", "retries": 1, "tags": ["t"], "name": "ignored"})
    assert (first["name"], first["retries"]) == ("a", 1)
    second = await client.tree("PUT", "/services/a", {"host": "h2"})
    assert (second["id"], second["retries"], second["tags"]) == (first["id"], 5, None)
    by_id = await client.tree("PUT", f"/services/{MISSING}", {"host": "h"})
    assert (by_id["id"], by_id["name"]) == (MISSING, None)


async def test_patch_merges(client: Client) -> None:
    await service(client, "a")
    merged = await client.tree("PATCH", "/services/a", {"url": "https://x.test/p"})
    assert (merged["protocol"], merged["host"], merged["port"], merged["path"]) == ("https", "x.test", 443, "/p")


async def test_flat_delete_is_idempotent_and_nested_is_not(client: Client) -> None:
    await service(client, "s")
    await client.tree("POST", "/services/s/routes", {"name": "r", "paths": ["/"]}, status=201)
    assert (await client.ask("DELETE", "/services/s/routes/r")).status == 204
    assert (await client.ask("DELETE", "/services/s/routes/r")).status == 404
    for _ in range(2):
        answer = await client.ask("DELETE", "/services/s")
        assert (answer.status, answer.body) == (204, b"")


async def test_a_parent_in_use_stays(client: Client) -> None:
    await service(client, "s")
    await client.tree("POST", "/services/s/routes", {"paths": ["/"]}, status=201)
    body = await client.tree("DELETE", "/services/s", status=400)
    assert (body["code"], body["fields"]) == (4, {"@referenced_by": "routes"})


async def test_nested_children_belong_to_their_parent(client: Client) -> None:
    one, two = await service(client, "one"), await service(client, "two")
    made = await client.tree(
        "POST", "/services/one/routes", {"name": "r", "paths": ["/"], "service": {"id": two}}, status=201
    )
    assert made["service"] == {"id": one}
    assert (await client.ask("GET", "/services/two/routes/r")).status == 404
    assert rows(await client.tree("GET", "/services/two/routes")) == []
    moved = await client.tree("PUT", "/services/two/routes/r", {"paths": ["/"]})
    assert (moved["id"], moved["service"]) == (made["id"], {"id": two})
    back = await client.tree("PATCH", "/services/two/routes/r", {"service": {"name": "one"}})
    assert back["service"] == {"id": one}


async def test_the_parent_of_an_entity(client: Client) -> None:
    await service(client, "s")
    await client.tree("POST", "/routes", {"name": "r", "paths": ["/"], "service": {"name": "s"}}, status=201)
    assert (await client.tree("GET", "/routes/r/service"))["name"] == "s"
    assert (await client.tree("PATCH", "/routes/r/service", {"retries": 1}))["retries"] == 1
    replaced = await client.tree("PUT", "/routes/r/service", {"host": "other"})
    assert (replaced["name"], replaced["retries"]) == (None, 5)
    assert (await client.ask("DELETE", "/routes/r/service")).status == 405


async def test_the_parent_of_an_entity_that_has_none(client: Client) -> None:
    await client.tree("POST", "/routes", {"name": "r", "paths": ["/"]}, status=201)
    for method in ("GET", "PATCH", "DELETE"):
        assert (await client.ask(method, "/routes/r/service", {})).status == 404
    made = await client.tree("PUT", "/routes/r/service", {"name": "new", "host": "h"})
    assert (await client.tree("GET", "/routes/r"))["service"] == {"id": made["id"]}


async def test_pages(client: Client) -> None:
    for number in range(5):
        await client.tree("POST", "/services", {"host": "h", "tags": ["t", f"n{number}"]}, status=201)
    first = await client.tree("GET", "/services?size=2&tags=t")
    second = await client.tree("GET", str(first["next"]))
    third = await client.tree("GET", str(second["next"]))
    assert [len(rows(page)) for page in (first, second, third)] == [2, 2, 1]
    assert (third["next"], "offset" in third) == (None, False)
    ids = [str(row["id"]) for page in (first, second, third) for row in rows(page)]
    assert ids == sorted(set(ids))
    assert len(rows(await client.tree("GET", "/services?tags=n1/n2"))) == 2
    assert rows(await client.tree("GET", "/services?tags=n1,n2")) == []


async def test_a_page_shows_each_entity_as_its_own_page_does(client: Client) -> None:
    """Byte for byte, although pages are not decoded on their way from the store."""
    tagged: dict[str, list[JsonValue]] = {"a": [], "b": ["ü", 'quote"d', "back\\slash", "\U0001f680"], "c": ["del"]}
    for name, tags in tagged.items():
        await client.tree("POST", "/services", {"name": name, "host": "h", "tags": tags}, status=201)
    await client.tree("POST", "/services/b/routes", {"name": "r", "paths": ["/b"], "tags": ["ü"]}, status=201)
    for path, collection, count in (
        ("/services?size=2", "services", 2),
        ("/services?size=3", "services", 3),
        ("/services?size=9&tags=%C3%BC", "services", 1),
        ("/services/b/routes?size=9", "routes", 1),
    ):
        answer = await client.ask("GET", path)
        listed = rows(tree(answer))
        assert len(listed) == count
        for row in listed:
            assert (await client.ask("GET", f"/{collection}/{row['id']}")).body in answer.body


@pytest.mark.parametrize(
    ("query", "code"),
    [("size=x", 9), ("size=0", 9), ("offset=!", 7), ("offset=WyJ4Il0", 7), ("tags=", 11), ("tags=a,b/c", 11)],
)
async def test_bad_page_arguments(client: Client, query: str, code: int) -> None:
    assert (await client.tree("GET", f"/services?{query}", status=400))["code"] == code


async def test_nested_pages_keep_only_the_offset(client: Client) -> None:
    await service(client, "s")
    for _ in range(3):
        await client.tree("POST", "/services/s/routes", {"paths": ["/"]}, status=201)
    page = await client.tree("GET", "/services/s/routes?size=2&tags=ignored")
    assert page["next"] == f"/services/s/routes?offset={page['offset']}"


async def test_targets(client: Client) -> None:
    await client.tree("POST", "/upstreams", {"name": "u"}, status=201)
    await client.tree("POST", "/upstreams", {"name": "v"}, status=201)
    made = await client.tree("POST", "/upstreams/u/targets", {"target": "a.test"}, status=201)
    assert made["target"] == "a.test:8000"
    await client.tree("POST", "/upstreams/u/targets", {"target": "b.test:1", "created_at": 1.5}, status=201)
    assert (await client.tree("POST", "/upstreams/u/targets", {"target": "a.test"}, status=409))["code"] == 5
    newest = rows(await client.tree("GET", "/upstreams/u/targets"))
    assert [row["target"] for row in newest] == ["a.test:8000", "b.test:1"]
    page = await client.tree("GET", "/upstreams/u/targets?size=1")
    assert (page["offset"], page["next"]) == ("1", "/upstreams/u/targets?offset=1")
    assert len(rows(await client.tree("GET", "/upstreams/u/targets?size=5000"))) == 2
    assert len(rows(await client.tree("GET", "/upstreams/u/targets/all"))) == 2
    assert (await client.ask("GET", "/upstreams/u/targets/a.test")).status == 404
    assert await client.tree("GET", "/upstreams/u/targets/a.test:8000") == made
    assert (await client.ask("GET", f"/upstreams/v/targets/{made['id']}")).status == 404
    assert (await client.tree("PUT", "/upstreams/u/targets/a.test:8000", {"weight": 7}))["weight"] == 7
    assert (await client.ask("PUT", f"/upstreams/u/targets/{MISSING}", {"target": "c:1"})).status == 404
    assert (await client.ask("DELETE", f"/upstreams/u/targets/{made['id']}")).status == 204
    assert (await client.ask("DELETE", f"/upstreams/u/targets/{made['id']}")).status == 404


async def test_health_without_verdicts(client: Client) -> None:
    await client.tree("POST", "/upstreams", {"name": "u"}, status=201)
    made = await client.tree("POST", "/upstreams/u/targets", {"target": "a.test:1"}, status=201)
    page = await client.tree("GET", "/upstreams/u/health")
    assert page == {"node_id": "00000000-0000-4000-8000-000000000001", "data": [made], "next": None}
    assert "data" not in await client.tree("GET", "/upstreams/u/health?balancer_health=1")
    assert (await client.ask("GET", "/upstreams/x/health?balancer_health=1")).status == 404


async def test_forms_are_typed_by_the_schema(client: Client) -> None:
    answer = await client.ask(
        "POST",
        "/services",
        b"name=f&host=h&port=81&tags=a&enabled=false",
        content_type="application/x-www-form-urlencoded",
    )
    made = tree(answer)
    assert (made["port"], made["tags"], made["enabled"]) == (81, ["a"], False)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "a"}, 400, 2),
        ({"host": "h", "nonsense": 1}, 400, 2),
        ({"host": "h", "name": "taken"}, 409, 5),
    ],
)
async def test_errors_change_nothing(client: Client, body: JsonValue, status: int, code: int) -> None:
    await service(client, "taken")
    head = await client.store.head()
    assert (await client.tree("POST", "/services", body, status=status))["code"] == code
    assert await client.store.head() == head


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("/", "GET, HEAD, OPTIONS"),
        ("/services", "GET, HEAD, OPTIONS, POST"),
        ("/services/x", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/routes/x/service", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/upstreams/x/health", "GET, HEAD, OPTIONS"),
    ],
)
async def test_options(client: Client, target: str, allowed: str) -> None:
    answer = await client.ask("OPTIONS", target, headers={"Access-Control-Request-Headers": "X-A, X-B"})
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers == {
        "Allow": allowed,
        "Access-Control-Allow-Methods": allowed,
        "Access-Control-Allow-Headers": "X-A, X-B",
    }


async def test_options_of_unknown_paths(client: Client) -> None:
    assert (await client.ask("OPTIONS", "/nowhere")).status == 404


async def test_head_is_answered_like_get(client: Client) -> None:
    assert (await client.ask("HEAD", "/services")).body == (await client.ask("GET", "/services")).body


@pytest.mark.parametrize("collection", ["vaults", "keys", "key-sets"])
async def test_collections_that_clients_read_first(client: Client, collection: str) -> None:
    assert await client.tree("GET", f"/{collection}?size=1000&tags=a") == {"data": [], "next": None}
    assert (await client.ask("GET", f"/{collection}/x")).status == 404
    for method, target in (("POST", f"/{collection}"), ("PUT", f"/{collection}/x"), ("DELETE", f"/{collection}/x")):
        answer = await client.ask(method, target, {})
        assert answer.status == 405
        assert "not supported yet" in str(tree(answer)["message"])


@pytest.mark.parametrize(
    "path",
    ["partials", "consumer_groups", "mtls-auths", "degraphql_routes", "graphql-rate-limiting-advanced/costs",
     "workspaces", "keyauth_credentials"],
)  # fmt: skip
async def test_collections_that_are_unknown(client: Client, path: str) -> None:
    assert await client.tree("GET", f"/{path}", status=404) == {"message": "Not found"}


@pytest.mark.parametrize("path", ["/filter-chains", "/filter-chains/x", "/services/s/filter-chains"])
async def test_filter_chains_need_what_is_not_there(client: Client, path: str) -> None:
    refused = await client.tree("GET", path, status=400)
    assert refused == {"message": "this endpoint is only available when wasm is enabled"}


async def test_nothing_is_cached(client: Client) -> None:
    assert (await client.ask("DELETE", "/cache")).status == 204
    assert (await client.ask("GET", "/cache/x")).status == 404


async def test_plugins_below_their_parents(client: Client) -> None:
    await service(client, "s")
    assert rows(await client.tree("GET", "/services/s/plugins")) == []
    assert (await client.ask("GET", "/services/x/plugins")).status == 404
    assert await client.tree("GET", "/plugins/enabled") == {"enabled_plugins": []}


async def test_a_fault_of_ours_tells_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> int:
        raise RuntimeError("secret")

    monkeypatch.setattr(type(client.store), "head", fail)
    answer = await client.ask("GET", "/")
    assert (answer.status, tree(answer)) == (500, {"message": "An unexpected error occurred"})
    assert "secret" in caplog.text
