"""Plugins: what the registry gives to the Admin API, proved with a plugin that only these tests have.

Goal: a plugin that joins the registry has its schema, defaults, paths, rules of scope, uniqueness and protocols from
that alone.
"""

from __future__ import annotations

import pytest

from control_plane.entities.fields import Array, Boolean, Integer, Map, Record, String, between, one_of
from control_plane.entities.plugin import PLUGINS, PluginKind
from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.admin.conftest import Client, tree

STAMP = PluginKind(
    name="stamp",
    version="1.2.3",
    priority=801,
    config=Record(
        fields={
            "text": String(required=True),
            "times": Integer(default=1, has_default=True, rules=(between(1, 9),)),
            "where": Record(
                fields={
                    "side": String(default="left", has_default=True, rules=(one_of("left", "right"),)),
                    "deep": Boolean(default=False, has_default=True),
                }
            ),
            "words": Array(elements=String()),
            "named": Map(keys=String(), values=Integer()),
        }
    ),
)
WEB = PluginKind(
    name="web",
    version="1",
    priority=5,
    config=Record(fields={}),
    scopes=("service", "route"),
    protocols=("http", "https"),
)
DEEP: EntityBody = {"side": "left", "deep": True}
FORM = "application/x-www-form-urlencoded"
CONFIG: EntityBody = {
    "text": "a", "times": 1, "where": {"side": "left", "deep": False}, "words": None, "named": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(PLUGINS, dict)
    for kind in (STAMP, WEB):
        monkeypatch.setitem(PLUGINS, kind.name, kind)


async def made(client: Client, body: EntityBody, path: str = "/plugins") -> EntityBody:
    return await client.tree("POST", path, body, status=201)


async def parents(client: Client) -> None:
    await client.tree("POST", "/services", {"name": "s", "host": "h"}, status=201)
    await client.tree("POST", "/services/s/routes", {"name": "r", "paths": ["/"]}, status=201)
    await client.tree("POST", "/consumers", {"username": "ann"}, status=201)


async def test_what_the_registry_is_shown_as(client: Client) -> None:
    assert await client.tree("GET", "/plugins/enabled") == {"enabled_plugins": ["stamp", "web"]}
    about = (await client.tree("GET", "/"))["plugins"]
    assert isinstance(about, dict)
    assert about["available_on_server"] == {
        "stamp": {"version": "1.2.3", "priority": 801},
        "web": {"version": "1", "priority": 5},
    }
    assert about["enabled_in_cluster"] == []
    schema = await client.tree("GET", "/schemas/plugins/stamp")
    fields = schema["fields"]
    assert isinstance(fields, list)
    shown = {name: facts for field in fields if isinstance(field, dict) for name, facts in field.items()}
    assert set(shown) == {"consumer", "route", "service", "protocols", "config"}
    config = shown["config"]
    assert isinstance(config, dict)
    assert config["default"] == {"times": 1, "where": {"side": "left", "deep": False}}
    only = await client.tree("GET", "/plugins/schema/stamp")
    assert only["fields"] == config["fields"]
    web = await client.tree("GET", "/schemas/plugins/web")
    assert '"default":["http","https"]' in str(web).replace("'", '"').replace(" ", "")


async def test_defaults_are_filled_level_by_level(client: Client) -> None:
    plugin = await made(client, {"name": "stamp", "config": {"text": "a"}})
    assert plugin["config"] == CONFIG
    assert (plugin["enabled"], plugin["protocols"]) == (True, ["grpc", "grpcs", "http", "https"])
    assert (plugin["route"], plugin["service"], plugin["consumer"]) == (None, None, None)
    about = (await client.tree("GET", "/"))["plugins"]
    assert isinstance(about, dict)
    assert about["enabled_in_cluster"] == ["stamp"]
    assert (await made(client, {"name": "web"}))["protocols"] == ["http", "https"]


async def test_all_that_is_wrong_is_told_at_once(client: Client) -> None:
    body: EntityBody = {
        "name": "stamp", "tags": 5, "config": {"times": 10, "where": {"side": "up"}, "other": 1}, "more": 1,
    }  # fmt: skip
    for path in ("/plugins", "/schemas/plugins/validate"):
        refused = await client.tree("POST", path, body, status=400)
        assert refused["fields"] == {
            "tags": "expected a set",
            "more": "unknown field",
            "config": {
                "text": "required field missing",
                "times": "value should be between 1 and 9",
                "where": {"side": "expected one of: left, right"},
                "other": "unknown field",
            },
        }


async def test_a_patch_merges_the_settings_record_by_record(client: Client) -> None:
    plugin = await made(client, {"name": "stamp", "config": {"text": "a", "named": {"x": 1}, "words": ["a", "b"]}})
    patch: EntityBody = {"config": {"where": {"deep": True}, "named": {"y": 2}}}
    patched = await client.tree("PATCH", f"/plugins/{plugin['id']}", patch)
    assert patched["config"] == {
        **CONFIG, "where": DEEP, "named": {"y": 2}, "words": ["a", "b"],
    }  # fmt: skip
    refused = await client.tree("PATCH", f"/plugins/{plugin['id']}", {"name": "web"}, status=400)
    assert isinstance(refused["fields"], dict)
    assert set(refused["fields"]) >= {"config"}
    replaced = await client.tree("PUT", f"/plugins/{plugin['id']}", {"name": "stamp", "config": {"text": "b"}})
    assert replaced["config"] == {**CONFIG, "text": "b"}


async def test_a_form_is_typed_by_the_plugin(client: Client) -> None:
    form = b"name=stamp&config.text=5&config.times=3&config.where.deep=true&config.words[]=a&config.words[]=b"
    answer = await client.ask("POST", "/plugins", form, content_type=FORM)
    assert answer.status == 201, answer.body
    assert tree(answer)["config"] == {
        **CONFIG, "text": "5", "times": 3, "where": DEEP, "words": ["a", "b"],
    }  # fmt: skip


async def test_one_of_a_kind_for_each_scope(client: Client) -> None:
    await parents(client)
    config: EntityBody = {"name": "stamp", "config": {"text": "a"}}
    for path in ("/plugins", "/services/s/plugins", "/routes/r/plugins", "/consumers/ann/plugins"):
        first = await made(client, config, path)
        refused = await client.tree("POST", path, config, status=409)
        assert refused["code"] == 5
        assert refused["fields"] == {name: first[name] for name in ("consumer", "name", "route", "service")}
        listed = await client.tree("GET", path)
        assert isinstance(listed["data"], list)
        assert first in listed["data"]
    await made(client, {**config, "consumer": {"username": "ann"}, "route": {"name": "r"}})
    for path in ("/routes/r", "/consumers/ann", "/services/s"):
        assert (await client.ask("DELETE", path)).status == 204
    left = await client.tree("GET", "/plugins")
    assert isinstance(left["data"], list)
    assert len(left["data"]) == 1


async def test_an_instance_is_found_by_its_name(client: Client) -> None:
    await parents(client)
    body: EntityBody = {"name": "stamp", "config": {"text": "a"}}
    put = await client.tree("PUT", "/plugins/mine", body)
    assert (put["instance_name"], await client.tree("GET", "/plugins/mine")) == ("mine", put)
    moved = await client.tree("PUT", "/services/s/plugins/mine", body)
    service = await client.tree("GET", "/plugins/mine/service")
    assert (moved["id"], moved["service"]) == (put["id"], {"id": service["id"]})
    assert (await client.ask("DELETE", "/services/s/plugins/mine")).status == 204
    assert (await client.ask("DELETE", "/services/s/plugins/mine")).status == 404


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"name": "web", "consumer": {"username": "ann"}}, {"consumer": "value must be null"}),
        (
            {"name": "web", "protocols": ["tcp"]},
            {"protocols": ["expected one of: http, https"]},
        ),
        (
            {"name": "stamp", "config": {"text": "a"}, "protocols": ["tcp"], "route": {"name": "r"}},
            {"protocols": "must match the associated route's protocols"},
        ),
        (
            {"name": "stamp", "config": {"text": "a"}, "protocols": ["tcp"], "service": {"name": "s"}},
            {"protocols": "must match the protocols of at least one route pointing to this Plugin's service"},
        ),
    ],
)
async def test_a_plugin_goes_only_where_it_can_work(client: Client, body: EntityBody, fields: JsonValue) -> None:
    await parents(client)
    for method, path in (("POST", "/plugins"), ("PUT", "/plugins/mine")):
        assert (await client.tree(method, path, body, status=400))["fields"] == fields


async def test_files_take_the_registry_s_plugins(client: Client) -> None:
    file = b"""
services:
  - name: s
    host: h
    plugins: [{name: stamp, config: {text: a}}]
plugins:
  - {name: web}
"""
    answer = await client.ask("POST", "/config/sync", file, content_type="application/yaml")
    assert (answer.status, tree(answer).get("created")) == (200, 3), answer.body
    (plugin,) = (row for row in await rows(client, "/services/s/plugins"))
    assert plugin["config"] == CONFIG
    dump = (await client.ask("GET", "/config/dump")).body
    again = await client.ask("POST", "/config/sync", dump, content_type="application/yaml")
    assert (tree(again)["unchanged"], tree(again)["changes"]) == (3, [])


async def test_settings_that_plugins_of_a_file_share(client: Client) -> None:
    file = b"""
plugins:
  - {name: stamp, _config: shared, config: {text: mine}}
---
_plugin_configs:
  shared: {text: theirs, times: 4, where: {side: right}}
services:
  - name: s
    host: h
    plugins: [{name: stamp, _config: shared}]
"""
    answer = await client.ask("POST", "/config/sync", file, content_type="application/yaml")
    assert answer.status == 200, answer.body
    shared: EntityBody = {**CONFIG, "text": "theirs", "times": 4, "where": {"side": "right", "deep": False}}
    configs = [row["config"] for row in await rows(client, "/plugins")]
    assert shared in configs
    assert {**shared, "text": "mine"} in configs
    assert (await rows(client, "/services/s/plugins"))[0]["config"] == shared


async def rows(client: Client, path: str) -> list[EntityBody]:
    data = (await client.tree("GET", path))["data"]
    assert isinstance(data, list)
    return [row for row in data if isinstance(row, dict)]


@pytest.mark.parametrize("above", ["", "/services/s"])
async def test_a_form_that_does_not_name_the_plugin_has_the_types_of_the_one_that_is_there(
    client: Client, above: str
) -> None:
    await parents(client)
    plugin = await made(client, {"name": "stamp", "service": {"name": "s"}, "config": {"text": "a"}})
    path = f"{above}/plugins/{plugin['id']}"
    form = b"config.times=3&config.where.deep=true&config.words=x&enabled=false"
    answer = await client.ask("PATCH", path, form, content_type=FORM)
    assert (answer.status, tree(answer)["enabled"]) == (200, False), answer.body
    assert tree(answer)["config"] == {**CONFIG, "times": 3, "where": DEEP, "words": ["x"]}
    answer = await client.ask("PATCH", path, b"config.times=x", content_type=FORM)
    assert (answer.status, tree(answer)["fields"]) == (400, {"config": {"times": "expected an integer"}})
    answer = await client.ask("PATCH", f"{above}/plugins/none", b"config.times=3", content_type=FORM)
    assert answer.status == 404
