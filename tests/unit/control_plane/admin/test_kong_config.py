"""Kong's `POST /config`: the forms it takes, and its two shapes of errors."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from control_plane.entities.types import EntityBody
from tests.unit.control_plane.admin.conftest import Client, tree

YAML = b'_format_version: "3.0"\nservices:\n- name: a\n  host: blue\n  routes:\n  - {name: r, paths: [/]}\n'
START = "should start with: / (fixed path) or ~/ (regex path)"
DOCUMENT: EntityBody = {"_format_version": "3.0", "services": [{"name": "a", "host": "blue"}]}


async def test_a_file_replaces_everything_in_one_version(client: Client) -> None:
    await client.ask("POST", "/upstreams", {"name": "old"})
    answer = await client.ask("POST", "/config", YAML, content_type="text/yaml")
    assert (answer.status, answer.headers["X-Pointsman-Version"]) == (201, "2")
    body = tree(answer)
    assert body.keys() == {"services", "routes"}
    (service,) = json.loads(answer.body)["services"].values()
    assert (service["name"], service["retries"], service["path"]) == ("a", 5, None)
    assert (await client.tree("GET", "/upstreams"))["data"] == []


async def test_the_file_may_come_in_any_of_kong_s_forms(client: Client) -> None:
    for content, content_type in (
        (YAML, "application/yaml"),
        (json.dumps({"config": YAML.decode()}).encode(), "application/json"),
        (urlencode({"config": YAML.decode()}).encode(), "application/x-www-form-urlencoded"),
    ):
        answer = await client.ask("POST", "/config", content, content_type=content_type)
        assert answer.status == 201, answer.body
    assert (await client.ask("POST", "/config", DOCUMENT)).status == 201
    assert (await client.tree("GET", "/routes"))["data"] == []
    assert await client.store.head() == 2


async def test_the_same_text_is_not_loaded_twice(client: Client) -> None:
    async def load() -> int:
        return (await client.ask("POST", "/config?check_hash=1", YAML, content_type="text/yaml")).status

    assert [await load(), await load()] == [201, 304]
    await client.ask("PATCH", "/services/a", {"host": "green"})
    assert await load() == 201  # it is no longer what runs
    assert (await client.tree("GET", "/services/a"))["host"] == "blue"


async def test_without_a_file_it_is_kong_with_a_database(client: Client) -> None:
    for method in ("GET", "POST"):
        assert (await client.ask(method, "/config", {} if method == "POST" else None)).status == 400


async def test_errors_stand_where_the_file_has_the_value(client: Client) -> None:
    document: EntityBody = {
        "_format_version": "3.0",
        "colour": [],
        "services": [{"name": "a", "host": "h"}, {"name": "b", "routes": [{"paths": ["/", "x"]}]}],
    }
    body = await client.tree("POST", "/config", document, status=400)
    assert body["code"] == 14
    fields = json.loads(json.dumps(body["fields"]))
    assert "unknown top-level key" in fields["colour"]
    assert fields["services"][0] is None
    assert fields["services"][1]["host"] == "required field missing"
    assert fields["services"][1]["routes"][0]["paths"][1] == START
    assert await client.store.head() == 0


async def test_flattened_errors_tell_each_entity_as_it_was_sent(client: Client) -> None:
    document: EntityBody = {
        "_format_version": "3.0",
        "colour": [],
        "services": [{"name": "b", "tags": ["t"], "routes": [{"name": "r", "paths": ["/", "x"]}]}],
    }
    body = await client.tree("POST", "/config?flatten_errors=1", document, status=400)
    flat = {at["entity_name"]: at for at in json.loads(json.dumps(body["flattened_errors"]))}
    assert flat["b"] == {
        "entity_type": "service",
        "entity": {"name": "b", "tags": ["t"]},
        "entity_name": "b",
        "entity_tags": ["t"],
        "errors": [{"type": "field", "field": "host", "message": "required field missing"}],
    }
    assert flat["r"]["errors"] == [{"type": "field", "field": "paths.2", "message": START}]
    assert flat["r"]["entity"].keys() == {"name", "paths", "service"}
    assert isinstance(body["fields"], dict)
    assert body["fields"].keys() == {"colour"}


async def test_a_text_that_cannot_be_read(client: Client) -> None:
    answer = await client.ask("POST", "/config", b"a: [", content_type="text/yaml")
    assert answer.status == 400
    assert "failed parsing declarative configuration" in str(tree(answer)["message"])


async def test_an_unknown_key_does_not_hide_the_other_problems(client: Client) -> None:
    answer = await client.ask(
        "POST", "/config/sync", b"colour: red\nservices: [{name: a}]\n", content_type="application/yaml"
    )
    places = [(problem["path"], problem["field"]) for problem in json.loads(answer.body)["problems"]]
    assert (answer.status, places) == (400, [("colour", ""), ("services[0]", "host")])
