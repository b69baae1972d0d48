"""Kong's rules as requests and answers: `rules/*.yaml`, written from its documentation, run without a socket.

A step is `[method, path, body, status, expected, captures]`. A body is JSON, or a text `TYPE|...` with the content
type (`form`, `json`, `none` or the type itself). `expected` is a part of the answer; of an error without `code`,
`message` or `fields` in it, it is all of the answer's `fields`. `{HEADERS: {...}}` stands for headers. `captures` gives
names to places of the answer, which later steps write as `{{name}}`. The steps of a scenario share a store.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from control_plane.admin.messages import Answer
from control_plane.entities.types import JsonValue
from tests.support.tls import authority, issued
from tests.unit.control_plane.admin.conftest import Client

RULES = Path(__file__).parent / "rules"
SCENARIOS = [scenario for file in sorted(RULES.glob("*.yaml")) for scenario in yaml.safe_load(file.read_text())]
TYPES = {"form": "application/x-www-form-urlencoded", "json": "application/json", "none": None}
ERROR_PARTS = {"code", "message", "fields"}


def pems() -> dict[str, str]:
    """Certificates and keys by the names that steps have for them, also as forms write them."""
    a, b, rsa = issued("a.example"), issued("b.example"), issued("a.example", ecdsa=False)
    found = {
        "cert_a": a.cert,
        "key_a": a.key,
        "cert_b": b.cert,
        "key_b": b.key,
        "cert_rsa": rsa.cert,
        "key_rsa": rsa.key,
    }
    found["ca"] = authority("one").cert_pem.bytes().decode()
    found["ca_other"] = authority("two").cert_pem.bytes().decode()
    return found | {f"{name}_quoted": urllib.parse.quote(text) for name, text in found.items()}


def filled(tree: JsonValue, known: Mapping[str, str]) -> JsonValue:
    if isinstance(tree, str):
        for name, text in known.items():
            tree = tree.replace("{{" + name + "}}", text)
        return tree
    if isinstance(tree, list):
        return [filled(item, known) for item in tree]
    if isinstance(tree, dict):
        return {name: filled(item, known) for name, item in tree.items()}
    return tree


def missing(expected: JsonValue, came: JsonValue, place: str = "") -> Iterator[str]:
    """What of `expected` the answer does not say."""
    if isinstance(expected, dict) and isinstance(came, dict):
        for name, value in expected.items():
            if name in came:
                yield from missing(value, came[name], f"{place}.{name}")
            else:
                yield f"{place}.{name} is not there"
    elif isinstance(expected, list) and isinstance(came, list) and len(expected) == len(came):
        for position, (one, other) in enumerate(zip(expected, came, strict=True)):
            yield from missing(one, other, f"{place}[{position}]")
    elif expected != "<any>" and (expected != came or type(expected) is not type(came)):
        yield f"{place}: {expected!r} expected, {came!r} came"


def problems(answer: Answer, status: int, expected: JsonValue) -> list[str]:
    came: JsonValue = json.loads(answer.body) if answer.body else None
    if answer.status != status:
        return [f"status {status} expected, {answer.status} came: {came}"]
    if not isinstance(expected, dict) or not expected:
        return []
    headers = expected.get("HEADERS")
    if isinstance(headers, dict):
        return list(missing(headers, dict(answer.headers)))
    if status >= 400 and isinstance(came, dict) and not ERROR_PARTS & expected.keys():
        return [] if came.get("fields") == expected else [f"{expected} expected, {came.get('fields', came)} came"]
    return list(missing(expected, came))


def at(tree: JsonValue, place: str) -> str:
    """What stands at `a.b` of an answer."""
    for part in place.split("."):
        assert isinstance(tree, dict)
        tree = tree[part]
    return str(tree)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario["scenario"]))
async def test_kongs_rules(client: Client, scenario: dict[str, list[list[JsonValue]]]) -> None:
    known = pems()
    found: list[str] = []
    for step in scenario["steps"]:
        method, path, body, status = (filled(part, known) for part in step[:4])
        expected = filled(step[4], known) if len(step) > 4 else None
        captures = step[5] if len(step) > 5 else None
        assert isinstance(method, str)
        assert isinstance(path, str)
        assert isinstance(status, int)
        raw: JsonValue | bytes = body
        content_type: str | None = None
        if isinstance(body, str):
            name, _, text = body.partition("|")
            raw, content_type = text.encode(), TYPES.get(name, name)
        answer = await client.ask(method, path, raw, content_type=content_type)
        found += [f"{method} {path} {str(body)[:200]}: {problem}" for problem in problems(answer, status, expected)]
        if isinstance(captures, dict):
            known |= {name: at(json.loads(answer.body), str(place)) for name, place in captures.items()}
    assert found == []


def test_there_are_rules_of_every_kind() -> None:
    assert sum(len(scenario["steps"]) for scenario in SCENARIOS) > 500
