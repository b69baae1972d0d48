"""Declarative files over HTTP: one file, one version, all or nothing."""

from __future__ import annotations

import pytest

from control_plane.admin.limits import Limits
from control_plane.fleet.waiting import NodeProgress, Outcome
from tests.unit.control_plane.admin.conftest import Client, tree

FIRST = b"""
services:
  - name: example-service
    host: blue
    path: "/anything"
    routes:
      - name: example-route
        hosts:
          - "example.domain.com"
upstreams:
  - name: blue
    targets:
    - target: 192.168.34.15:80
      weight: 100
  - name: green
    targets:
    - target: 192.168.34.17:80
"""
SECOND = b"""
services:
  - name: example-service
    host: green
"""
YAML = "application/yaml"


@pytest.mark.parametrize("content_type", [YAML, "text/yaml", "application/x-yaml", None])
async def test_the_users_two_files(client: Client, content_type: str | None) -> None:
    answer = await client.ask("POST", "/config/sync", FIRST, content_type=content_type)
    assert answer.status == 200
    assert answer.headers["X-Pointsman-Version"] == "1"
    assert (tree(answer)["created"], tree(answer)["deleted"]) == (6, 0)
    answer = await client.ask("POST", "/config/apply", SECOND, content_type=content_type)
    assert answer.headers["X-Pointsman-Version"] == "2"
    assert (tree(answer)["updated"], tree(answer)["deleted"]) == (1, 0)
    service = await client.tree("GET", "/services/example-service")
    assert (service["host"], service["path"]) == ("green", "/anything")
    version = await client.tree("GET", "/versions/2")
    assert (version["source"], version["change_count"]) == ("apply", 1)


async def test_json_files(client: Client) -> None:
    body = await client.tree("POST", "/config/sync", {"_format_version": "3.0", "upstreams": [{"name": "u"}]})
    assert body["created"] == 1


async def test_diff_changes_nothing(client: Client) -> None:
    answer = await client.ask("POST", "/config/diff", FIRST, content_type=YAML)
    assert (answer.status, tree(answer)["created"]) == (200, 6)
    assert "X-Pointsman-Version" not in answer.headers
    assert await client.store.head() == 0


async def test_diff_by_mode(client: Client) -> None:
    await client.ask("POST", "/config/sync", FIRST, content_type=YAML)
    as_sync = tree(await client.ask("POST", "/config/diff", SECOND, content_type=YAML))
    as_apply = tree(await client.ask("POST", "/config/diff?mode=apply", SECOND, content_type=YAML))
    assert (as_sync["deleted"], as_apply["deleted"]) == (5, 0)
    assert (await client.ask("POST", "/config/diff?mode=odd", SECOND, content_type=YAML)).status == 400


async def test_dump_and_sync_back(client: Client) -> None:
    await client.ask("POST", "/config/sync", FIRST, content_type=YAML)
    dumped = await client.ask("GET", "/config/dump")
    assert dumped.content_type.startswith("application/yaml")
    again = await client.ask("POST", "/config/sync", dumped.body, content_type=YAML)
    assert (tree(again)["unchanged"], again.headers["X-Pointsman-Version"]) == (6, "1")
    as_json = await client.tree("GET", "/config/dump?format=json")
    assert as_json["_format_version"] == "3.0"
    assert (await client.ask("GET", "/config/dump?format=xml")).status == 400


async def test_select_tags(client: Client) -> None:
    await client.ask("POST", "/config/sync", FIRST, content_type=YAML)
    answer = await client.ask("POST", "/config/sync?select_tags=team", b"upstreams: [{name: u}]", content_type=YAML)
    assert (tree(answer)["created"], tree(answer)["deleted"]) == (1, 0)
    assert (await client.tree("GET", "/upstreams/u"))["tags"] == ["team"]


@pytest.mark.parametrize(
    "file",
    [
        b"services: [",
        b"services: [{name: a, host: h, nonsense: 1}]",
        b"routes: [{name: r, paths: [/], service: {name: gone}}]",
        b"services: [{name: a, host: h}, {name: a, host: h}]",
        b"services: [{name: a, host: h, routes: [{name: r, paths: ['~/(']}]}]",
        b"nonsense: []",
    ],
)
@pytest.mark.parametrize("verb", ["sync", "apply", "diff"])
async def test_refused_files_say_why_and_change_nothing(client: Client, verb: str, file: bytes) -> None:
    answer = await client.ask("POST", f"/config/{verb}", file, content_type=YAML)
    assert answer.status == 400
    body = tree(answer)
    assert body["code"] == 14
    problems = body["problems"]
    assert isinstance(problems, list)
    assert problems
    for problem in problems:
        assert isinstance(problem, dict)
        assert problem["message"]
        assert problem["remedy"]
    assert await client.store.head() == 0


async def test_an_empty_body(client: Client) -> None:
    answer = await client.ask("POST", "/config/sync", b" \n", content_type=YAML)
    assert answer.status == 400
    assert "expected a declarative configuration" in str(tree(answer)["message"])


async def test_files_have_their_own_limit(client: Client) -> None:
    limits = Limits(body_bytes_max=10, file_bytes_max=100)
    assert (await client.ask("POST", "/config/sync", SECOND + b"#" * 200, limits=limits)).status == 413
    small = await client.ask("POST", "/config/sync", b"upstreams: [{name: u}]", content_type=YAML, limits=limits)
    assert small.status == 200


async def test_a_large_file_is_parsed_beside_the_loop(client: Client) -> None:
    text = "upstreams:\n" + "".join(f"- name: upstream-{number}\n" for number in range(2_000))
    answer = await client.ask("POST", "/config/sync", text.encode(), content_type=YAML)
    assert tree(answer)["created"] == 2_000
    assert tree(answer)["omitted"] == 1_000
    version = await client.tree("GET", "/versions/1")
    assert (version["change_count"], version["changes_omitted"]) == (2_000, 1_000)


async def test_waiting_keeps_the_summary(client: Client) -> None:
    client.fleet.progress = (NodeProgress("n", "one", Outcome.LAGGING, 0, reason="slow"),)
    answer = await client.ask("POST", "/config/sync", FIRST, content_type=YAML, headers={"Prefer": "wait=3"})
    body = tree(answer)
    assert answer.status == 202
    assert (body["created"], body["version"]) == (6, 1)
    assert body["nodes"]


async def test_kongs_config_path_is_for_another_mode(client: Client) -> None:
    body = await client.tree("GET", "/config", status=400)
    assert "not use a database" in str(body["message"])


TAGGED = b"""
_info: {select_tags: [shop]}
services:
  - {name: shop, host: blue}
"""


async def test_two_jobs_do_not_overwrite_one_another(client: Client) -> None:
    await client.ask("POST", "/config/sync", FIRST, content_type=YAML)
    first = await client.ask("POST", "/config/diff", SECOND, content_type=YAML)
    epoch = (await client.store.epoch()).hex()[:8]
    assert tree(first)["version"] == 1
    assert tree(first)["compared_with"] == f"1-{epoch}"
    assert first.headers["ETag"] == f'"version-1-{epoch}"'
    await client.tree("PATCH", "/services/example-service", {"retries": 9})

    guarded = {"If-Match": first.headers["ETag"]}
    answer = await client.ask("POST", "/config/sync", SECOND, content_type=YAML, headers=guarded)
    assert answer.status == 412
    refusal = tree(answer)
    assert refusal["etag"] == f'"version-2-{epoch}"'
    assert refusal["complete"] is True
    changes = refusal["changes"]
    assert isinstance(changes, list)
    (change,) = changes
    assert isinstance(change, dict)
    assert (change["name"], change["fields"]) == (
        "example-service",
        [{"field": "retries", "before": 5, "after": 9}],
    )
    assert "example-service" in str(refusal["message"])
    assert await client.store.head() == 2

    guarded = {"If-Match": (await client.ask("GET", "/config/dump")).headers["ETag"]}
    answer = await client.ask("POST", "/config/sync", SECOND, content_type=YAML, headers=guarded)
    assert (answer.status, answer.headers["ETag"]) == (200, f'"version-3-{epoch}"')


async def test_teams_that_share_a_gateway_by_tags_do_not_stop_one_another(client: Client) -> None:
    answer = await client.ask("POST", "/config/sync", TAGGED, content_type=YAML)
    guarded = {"If-Match": answer.headers["ETag"]}
    await client.tree("POST", "/services", {"name": "other", "host": "x", "tags": ["pay"]}, status=201)
    again = await client.ask("POST", "/config/sync", TAGGED, content_type=YAML, headers=guarded)
    assert again.status == 200
    await client.tree("PATCH", "/services/shop", {"tags": []})  # it no longer carries the tag, and did
    again = await client.ask("POST", "/config/sync", TAGGED, content_type=YAML, headers=guarded)
    assert again.status == 412


@pytest.mark.parametrize("path", ["/config/sync", "/config/apply", "/versions/1/rollback"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": '"version-1"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"version-7"'}, 412),
        ({"If-Match": '"version-0"'}, 412),
        ({"If-Match": '"version-1-0123abcd"'}, 412),
        ({"If-Match": '"version-1-"'}, 400),
        ({"If-Match": "1"}, 400),
        ({"If-None-Match": "*"}, 412),
    ],
)
async def test_what_a_guard_may_say(client: Client, path: str, headers: dict[str, str], status: int) -> None:
    await client.ask("POST", "/config/sync", FIRST, content_type=YAML)
    body, content_type = (None, None) if "rollback" in path else (FIRST, YAML)
    answer = await client.ask("POST", path, body, content_type=content_type, headers=headers)
    assert answer.status == status, answer.body


async def test_settings_of_our_own_do_not_stop_a_file(client: Client) -> None:
    answer = await client.ask("POST", "/config/sync", FIRST, content_type=YAML)
    await client.tree("PATCH", "/fleet/upstreams/blue/settings", {"slow_start": 5})
    guarded = {"If-Match": answer.headers["ETag"]}
    assert (await client.ask("POST", "/config/sync", FIRST, content_type=YAML, headers=guarded)).status == 200
