"""Text to trees: what YAML and JSON mean, and that hostile or broken text ends in one clear refusal."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.declarative.problems import FileRefused, Problem
from control_plane.declarative.text import ALIASED_NODES_MAX, DEPTH_MAX, Located, read
from control_plane.declarative.yaml_writer import to_yaml
from control_plane.entities.types import JsonValue


def refusal(text: str | bytes, content_type: str = "application/yaml") -> Problem:
    with pytest.raises(FileRefused) as caught:
        read(text.encode() if isinstance(text, str) else text, content_type)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("", None),
        ("null", None),
        ("yes", True),
        ("Off", False),
        ("TRUE", True),
        ("y", "y"),
        ("0", 0),
        ("-17", -17),
        ("+3", 3),
        ("0x1F", 31),
        ("0o17", "0o17"),
        ("0755", "0755"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.0e+3", 1000.0),
        ("1e5", "1e5"),
        (".inf", ".inf"),
        ("12:30:45", "12:30:45"),
        ("192.168.34.15:80", "192.168.34.15:80"),
        ("2024-05-06", "2024-05-06"),
        ("~/v[0-9]+", "~/v[0-9]+"),
        ("'80'", "80"),
        ('"yes"', "yes"),
        ("!!str 80", "80"),
        ("!!int '80'", 80),
        ("9" * 19, 10**19 - 1),
        ("9" * 99, "9" * 99),
        ("1.0e+999", "1.0e+999"),
    ],
)
def test_scalars(text: str, value: JsonValue) -> None:
    (tree,) = read(f"a: {text}\n".encode(), "text/yaml")
    assert isinstance(tree, dict)
    assert tree["a"] == value
    assert type(tree["a"]) is type(value)


def test_keys_are_texts() -> None:
    assert read(b"1: a\non: b\nnull: c\n", "text/yaml") == [{"1": "a", "on": "b", "null": "c"}]


def test_mappings_know_their_line() -> None:
    (tree,) = read(b"services:\n\n- name: a\n- name: b\n", "text/yaml")
    assert isinstance(tree, dict)
    services = tree["services"]
    assert isinstance(services, list)
    lines = [entity.line for entity in services if isinstance(entity, Located)]
    assert lines == [3, 4]


def test_anchors_and_merge_keys() -> None:
    text = b"base: &b {port: 1, host: x}\nlist:\n- {<<: *b, host: y}\n- {<<: [*b, {path: /}], port: 2}\n- *b\n"
    (tree,) = read(text, "text/yaml")
    assert isinstance(tree, dict)
    assert tree["list"] == [
        {"port": 1, "host": "y"},
        {"port": 2, "host": "x", "path": "/"},
        {"port": 1, "host": "x"},
    ]


def test_documents_of_a_stream_and_a_byte_order_mark() -> None:
    assert read("\ufeffa: 1\n---\n---\nb: 2\n".encode(), "text/yaml") == [{"a": 1}, None, {"b": 2}]


def test_json_is_told_by_its_type_or_its_brace() -> None:
    assert read(b'{"a": 1}', "application/json; charset=utf-8") == [{"a": 1}]
    assert read(b' {"a": 1}', "") == [{"a": 1}]
    assert read(b"a: 1", "") == [{"a": 1}]


def test_duplicate_keys_are_refused_with_their_line() -> None:
    problem = refusal("services:\n- name: a\n  host: b\n  name: c\n")
    assert problem.line == 4
    assert problem.message == "duplicate key 'name' at line 4"
    assert "duplicate key 'a'" in refusal('{"a": 1, "a": 2}', "application/json").message
    assert "duplicate key '<<'" in refusal("b: &b {c: 1}\na:\n  <<: *b\n  <<: *b\n").message


@pytest.mark.parametrize(
    ("text", "says", "line"),
    [
        ("a: [1, 2\nb: 3\n", "failed parsing the file as YAML", 2),
        ("a: b: c\n", "failed parsing the file as YAML", 1),
        ("a:\n\t- b\n", "failed parsing the file as YAML", 2),
        ("a: *nowhere\n", "alias '*nowhere' has no anchor", 1),
        ("a: &a [*a]\n", "alias '*a' has no anchor", 1),
        ("x: &x 1\n*x : 2\n", "alias stands where a key belongs", 2),
        ("? [a, b]\n: c\n", "mapping key is itself", 1),
        ("a: !!python/object:os.system {}\n", "tag 'tag:yaml.org,2002:python/object:os.system'", 1),
        ("a: !!binary aGk=\n", "tag 'tag:yaml.org,2002:binary'", 1),
        ("a: !vault x\n", "tag '!vault'", 1),
        ("a: {<<: 3}\n", "'<<' needs a mapping", 1),
    ],
)
def test_broken_yaml(text: str, says: str, line: int) -> None:
    problem = refusal(text)
    assert says in problem.message
    assert problem.line == line
    assert problem.remedy


def test_broken_json_and_numbers_that_json_does_not_have() -> None:
    problem = refusal('{"a": 1,\n "b" 2}', "application/json")
    assert "line 2, column 6" in problem.message
    assert problem.line == 2
    assert "NaN" in refusal('{"a": NaN}', "application/json").message
    assert "surrogate" in refusal('{"a": "\\ud800"}', "application/json").message
    assert read(b'{"a": "\\ud83d\\ude00"}', "application/json") == [{"a": "\U0001f600"}]


def test_bytes_that_are_not_utf8() -> None:
    problem = refusal(b"a: 1\nb: \xff\n")
    assert "not UTF-8" in problem.message
    assert problem.line == 2
    assert "failed parsing" in refusal("a: \x01\n").message


def test_depth_is_limited_in_both_formats() -> None:
    assert "nested deeper" in refusal("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1)).message
    assert "nested deeper" in refusal("[" * (DEPTH_MAX + 2) + "]" * (DEPTH_MAX + 2), "application/json").message
    assert "nested deeper" in refusal("[" * 200_000, "application/json").message
    fits = "[" * DEPTH_MAX + "]" * DEPTH_MAX
    assert read(fits.encode(), "text/yaml") == read(fits.encode(), "application/json")


def test_aliases_of_aliases_are_limited() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    problem = refusal("\n".join(lines))
    assert f"{ALIASED_NODES_MAX:,}" in problem.message


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**39), 10**39)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(
        ["0o17", "010", "1e5", "1:30", "yes", "no", "~", "=", "<<", "2024-01-01", "0x", ".5", "-", "a: b", "a #b"]
    )
)
_keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.just("k" * 2_000)
_trees = st.recursive(
    _scalars, lambda below: st.lists(below, max_size=4) | st.dictionaries(_keys, below, max_size=4), max_leaves=12
)


@settings(deadline=None)
@given(st.dictionaries(_keys, _trees, max_size=5))
def test_what_we_write_as_yaml_reads_back(tree: dict[str, JsonValue]) -> None:
    assert read(to_yaml(tree), "application/yaml") == [tree]


@settings(deadline=None)
@given(_trees)
def test_yaml_reads_json_alike(tree: JsonValue) -> None:
    text = json.dumps({"a": tree})
    assert read(text.encode(), "application/json") == [{"a": tree}]


@settings(deadline=None)
@given(st.text(st.sampled_from(list("a:-[]{}&*!|>'\"#%@`,? \n\t~0159.xe+<=")), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(FileRefused):
        read(text.encode(), "application/yaml")
