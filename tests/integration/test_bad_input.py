"""Bad input to a running fleet: an error that says where and what to do, and nothing else changes.

Goal: each kind of mistake is answered with entity, field and remedy; no version is made, traffic goes on by the old
config. Method: real processes under light load. What a control plane never lets through is put into its database while
it is stopped, as a control plane of another release might have left it there.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from control_plane.entities.types import EntityBody
from control_plane.store.contract import Origin, Transaction
from control_plane.store.opening import open_store
from tests.support import ledger
from tests.support.load import Destination, OpenLoop
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.postgres import KEYRING
from tests.support.processes import Fleet

ROOT = Path(__file__).parents[2]
RATE = 100.0
JSON = "application/json"
YAML = "application/yaml"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with Fleet(tmp_path, nodes=1) as fleet:
        await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await ledger.apply_example(fleet)
        yield fleet


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is sent, and what the answer must name."""

    name: str
    path: str
    body: str
    status: int
    content_type: str = YAML
    problem: dict[str, object] | None = None  # facts of the first entry of `problems`, for files
    field: str = ""  # a key of `fields`, for entities
    says: str = ""


MISTAKES = [
    Mistake(
        "broken YAML",
        "/config/sync",
        "services:\n  - name: a\n    host: [never closed\n",
        400,
        problem={"line": 4, "remedy": "correct the YAML there"},
    ),
    Mistake(
        "broken JSON",
        "/config/sync",
        '{"services": [',
        400,
        content_type=JSON,
        problem={"line": 1, "remedy": "correct the JSON at that place"},
    ),
    Mistake(
        "unknown field in a file",
        "/config/apply",
        "services:\n  - name: a\n    host: h\n    hots: h\n",
        400,
        problem={"entity_type": "service", "entity_name": "a", "field": "hots", "message": "unknown field"},
    ),
    Mistake(
        "unknown kind of entity",
        "/config/sync",
        "serivces: []\n",
        400,
        problem={"path": "serivces", "message": "unknown top-level key 'serivces'"},
        says="known are: ",
    ),
    Mistake(
        "dangling reference in a file",
        "/config/apply",
        "routes:\n  - name: r\n    paths: [/]\n    service: nobody\n",
        400,
        problem={
            "entity_type": "route",
            "entity_name": "r",
            "field": "service",
            "remedy": "add the service 'nobody' to the file, or correct the name",
        },
    ),
    Mistake(
        "name twice in a file",
        "/config/sync",
        "services:\n  - {name: a, host: h}\n  - {name: a, host: i}\n",
        400,
        problem={
            "entity_type": "service",
            "entity_name": "a",
            "line": 3,
            "remedy": "remove this one or the one at services[0]",
        },
    ),
    Mistake(
        "regex that does not compile, in a file",
        "/config/apply",
        "routes:\n  - name: r\n    paths: ['~/x(']\n    service: example-service\n",
        400,
        problem={"entity_type": "route", "entity_name": "r", "field": "paths[0]"},
        says="missing closing parenthesis",
    ),
    Mistake(
        "unknown field",
        "/services",
        json.dumps({"name": "a", "host": "h", "hots": "h"}),
        400,
        content_type=JSON,
        field="hots",
        says="unknown field",
    ),
    Mistake(
        "dangling reference",
        "/routes",
        json.dumps({"name": "r", "paths": ["/"], "service": {"name": "nobody"}}),
        400,
        content_type=JSON,
        field="service",
        says="nobody",
    ),
    Mistake(
        "name taken",
        "/services",
        json.dumps({"name": "example-service", "host": "h"}),
        409,
        content_type=JSON,
        field="name",
        says="UNIQUE violation",
    ),
    Mistake(
        "regex that does not compile",
        "/routes",
        json.dumps({"name": "r", "paths": ["~/x("], "service": {"name": "example-service"}}),
        400,
        content_type=JSON,
        field="paths",
        says="missing closing parenthesis",
    ),
    Mistake("broken entity", "/services", "{", 400, content_type=JSON, says="Cannot parse JSON body"),
    Mistake("20 MiB of a file", "/config/sync", "#" * (20 << 20), 413, says="declarative_bytes_max"),
    Mistake("20 MiB of an entity", "/services", " " * (20 << 20), 413, content_type=JSON, says="body_bytes_max"),
]


async def head(fleet: Fleet) -> int:
    answer = await fleet.admin("GET", "/versions?size=1")
    assert isinstance(answer.body, dict)
    return int(answer.body["data"][0]["version"])


def _check(mistake: Mistake, status: int, body: dict[str, object]) -> None:
    assert status == mistake.status, body
    assert mistake.says in json.dumps(body)
    assert body["message"]
    if mistake.field:
        fields = body["fields"]
        assert isinstance(fields, dict)
        assert mistake.field in fields
    if mistake.problem is not None:
        problems = body["problems"]
        assert isinstance(problems, list)
        first = problems[0]
        assert {name: first[name] for name in mistake.problem} == mistake.problem
        assert first["message"]
        assert first["remedy"]


@pytest.mark.parametrize("module", ["control_plane", "data_plane"])
def test_a_setting_that_can_not_be_used_stops_the_start_and_says_which(module: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "POINTSMAN_LOG_LEVEL": "loud"},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 64
    assert "setting log_level (from POINTSMAN_LOG_LEVEL): 'loud' is none of" in ended.stderr
    assert list(tmp_path.iterdir()) == [], "nothing was opened"


async def test_each_mistake_is_named_and_changes_nothing(fleet: Fleet) -> None:
    before = await head(fleet)
    load = OpenLoop([Destination(*fleet.nodes[0].proxy_address)], rate=RATE, host=ledger.HOST)
    load.start()
    async with aiohttp.ClientSession() as session:
        for mistake in MISTAKES:
            async with session.post(
                fleet.control_plane.url + mistake.path,
                data=io.BytesIO(mistake.body.encode()),
                headers={"Content-Type": mistake.content_type},
            ) as answer:
                _check(mistake, answer.status, await answer.json())
    await load.stop()
    result = ledger.settle(load, [], revolutions=1, duplicates=await ledger.count_duplicates(fleet))
    assert result.failures == []
    assert await head(fleet) == before
    assert await fleet.node_version(fleet.nodes[0]) == before
    nodes = await fleet.admin("GET", "/fleet/nodes")
    assert isinstance(nodes.body, dict)
    assert [(node["state"], node["faults"]) for node in nodes.body["data"]] == [("current", [])]


async def _plant(database: str) -> str:
    """Writes a route with a regex that no node can compile past all checks; returns its id."""
    store = await open_store(database, keyring=KEYRING if "://" in database else None)

    def work(tx: Transaction) -> str:
        good = next(iter(tx.each("routes")))
        bad: EntityBody = {
            **good,
            "id": "0bad0bad-0bad-4bad-8bad-0bad0bad0bad",
            "name": "planted",
            "paths": ["~/never(closed"],
        }
        tx.insert("routes", bad)
        return str(bad["id"])

    try:
        return (await store.write(work, Origin(author="another release"))).result
    finally:
        await store.close()


async def _node(fleet: Fleet) -> dict[str, object]:
    answer = await fleet.admin("GET", f"/fleet/nodes/{fleet.nodes[0].node_id}")
    assert isinstance(answer.body, dict)
    return answer.body


async def _until_state(fleet: Fleet, state: str) -> dict[str, object]:
    async with asyncio.timeout(PATIENCE_S):
        while (node := await _node(fleet)).get("state") != state:
            await asyncio.sleep(0.02)
    return node


async def test_a_snapshot_that_no_node_can_apply_is_refused_with_its_reason_and_traffic_goes_on(fleet: Fleet) -> None:
    good = await head(fleet)
    load = OpenLoop([Destination(*fleet.nodes[0].proxy_address)], rate=RATE, host=ledger.HOST)
    load.start()
    assert await fleet.control_plane.stop() == 0
    planted = await _plant(fleet.control_plane.database)
    await fleet.control_plane.up()

    node = await _until_state(fleet, "rejected")
    assert (node["version"], node["rejected_version"], node["rejected_stage"]) == (good, good + 1, "build")
    faults = node["faults"]
    assert isinstance(faults, list)
    assert [
        (fault["code"], fault["collection"], fault["entity_id"], fault["entity_name"], fault["field"])
        for fault in faults
    ] == [("BAD_REGEX", "routes", planted, "planted", "paths")]
    assert "missing )" in faults[0]["message"]
    assert await fleet.node_version(fleet.nodes[0]) == good

    # A writer who waits is told at once, not after the minute it would wait: the test's own timeout is shorter.
    async with asyncio.timeout(PATIENCE_S):
        waited = await fleet.admin("PATCH", "/services/example-service", {"host": "green"}, {"Prefer": PREFER})
    assert waited.status == 202
    assert isinstance(waited.body, dict)
    assert waited.body["nodes"]["rejected"] == [fleet.nodes[0].node_id]
    (lagging,) = waited.body["nodes"]["lagging"]
    assert (lagging["state"], lagging["version"]) == ("rejected", good)
    assert lagging["faults"][0]["entity_name"] == "planted"
    assert waited.body["entity"]["host"] == "green"

    await load.stop()
    result = ledger.settle(load, [], revolutions=1, duplicates=await ledger.count_duplicates(fleet))
    assert result.failures == []
    assert {record.colour for record in load.records} == {"blue"}, "the old config"

    # The remedy that the fault points to ends it.
    repaired = await fleet.admin("DELETE", f"/routes/{planted}", None, {"Prefer": PREFER})
    assert repaired.status == 204
    node = await _until_state(fleet, "current")
    assert node["version"] == good + 3
    assert node["faults"] == []
