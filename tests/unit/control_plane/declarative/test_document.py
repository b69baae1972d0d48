"""A file's shape: what may stand where, and that everything else is refused by name and place."""

from __future__ import annotations

import pytest

from control_plane.declarative import FileRefused, Problem, parse
from control_plane.declarative.problems import PROBLEMS_MAX


def problems(text: str) -> list[Problem]:
    with pytest.raises(FileRefused) as caught:
        parse(text.encode())
    return list(caught.value.problems)


def test_nested_entities_are_taken_apart() -> None:
    document = parse(
        b"""services:
- name: a
  host: h
  routes:
  - name: r
    paths: [/]
upstreams:
- name: blue
  targets:
  - target: x:1
"""
    )
    (service,) = document.entities["services"]
    (route,) = document.entities["routes"]
    (target,) = document.entities["targets"]
    assert service.body == {"name": "a", "host": "h"}
    assert (route.parent, route.parent_field, route.path, route.line) == (
        service,
        "service",
        "services[0].routes[0]",
        5,
    )
    assert (target.parent_field, target.key, target.path) == ("upstream", "x:1", "upstreams[0].targets[0]")
    assert document.entity_count == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '_format_version: "3.0"',
        "_comment: hello\n_ignore: [1]\nservices:",
        "_transform: false\n_workspace: default\n_info: {default_lookup_tags: {services: [a]}}",
        "plugins: []\nconsumers: null\nservices:\n- {name: a, host: h, plugins: [], _comment: x, routes: null}",
    ],
)
def test_files_that_are_fine(text: str) -> None:
    parse(text.encode())


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("[]", "", "a list, not a mapping"),
        ("service: []", "service", "unknown top-level key 'service'"),
        ("_konnect: {}", "_konnect", "unknown top-level key"),
        ("_format_version: 3.0", "_format_version", "expected a string, found a number"),
        ('_format_version: "4.0"', "_format_version", "'4.0' is not supported"),
        ("_workspace: other", "_workspace", "one workspace"),
        ("_transform: 3", "_transform", "expected a boolean"),
        ("_info: []", "_info", "expected a mapping"),
        ("_info: {tags: []}", "_info.tags", "unknown field"),
        ("_info: {select_tags: a}", "_info.select_tags", "expected a list of tags"),
        ("_info: {defaults: {vault: {}}}", "_info.defaults.vault", "no defaults for 'vault'"),
        ("_info: {defaults: {service: {name: a}}}", "_info.defaults.service.name", "can't have a default"),
        ("vaults: [{name: env}]", "vaults", "not supported yet"),
        ("_plugin_configs: {a: 1}", "_plugin_configs", "a mapping of names to settings"),
        ("plugins: [{name: x, _config: a}]", "plugins[0]", "no 'a' in '_plugin_configs'"),
        ("services: {name: a}", "services", "expected a list, found a mapping"),
        ("services: [a]", "services[0]", "expected a mapping, found a string"),
        ("services: [{name: a, routes: r}]", "services[0].routes", "expected a list, found a string"),
        ("_info: {select_tags: [a]}\n---\n_info: {select_tags: [b]}", "_info.select_tags", "different select_tags"),
    ],
)
def test_files_that_are_not(text: str, path: str, says: str) -> None:
    (problem,) = problems(text)
    assert problem.path == path
    assert says in problem.message
    assert problem.remedy


def test_later_entities_are_refused_at_their_parent() -> None:
    (problem,) = problems("services:\n- name: a\n  filter_chains: [{name: f}]\n")
    place = (problem.entity_type, problem.entity_name, problem.field, problem.line)
    assert place == ("service", "a", "filter_chains", 2)
    assert problem.message == "'filter_chains' are not supported yet"


def test_a_nested_child_may_not_name_its_parent() -> None:
    (problem,) = problems("services:\n- name: a\n  routes:\n  - {name: r, service: a}\n")
    assert (problem.path, problem.field) == ("services[0].routes[0]", "service")


def test_documents_of_a_stream_are_one_configuration() -> None:
    document = parse(b"services: [{name: a}]\n---\nservices: [{name: b}]\n_info: {select_tags: [x]}\n")
    assert [entity.key for entity in document.entities["services"]] == ["a", "b"]
    assert document.select_tags == ("x",)


def test_a_long_list_of_problems_is_cut_and_counted() -> None:
    text = "services:\n" + "- 1\n" * (PROBLEMS_MAX + 5)
    with pytest.raises(FileRefused) as caught:
        parse(text.encode())
    assert (len(caught.value.problems), caught.value.omitted) == (PROBLEMS_MAX, 5)
    told = caught.value.to_json()
    assert (told["code"], told["name"], told["problems_omitted"]) == (14, "invalid declarative configuration", 5)
    first = told["problems"]
    assert isinstance(first, list)
    assert first[0] == {
        "entity_type": "",
        "entity_name": "",
        "path": "services[0]",
        "line": 1,
        "field": "",
        "message": "expected a mapping, found a number",
        "remedy": "write the service as properties: 'name: ...'",
    }


@pytest.mark.parametrize("version", ["1.1", "2.1"])
def test_paths_of_older_formats_are_marked_as_the_regexes_they_were(version: str) -> None:
    text = f"_format_version: \"{version}\"\nservices: [{{name: a, routes: [{{paths: [/a/%41b, '/x\\d+', '~/y']}}]}}]\n"
    document = parse(text.encode())
    (route,) = document.entities["routes"]
    assert route.body["paths"] == ["/a/Ab", "~/x\\d+", "~/y"]


def test_paths_of_the_present_format_are_left_alone() -> None:
    document = parse(b"_format_version: \"3.0\"\nroutes: [{paths: ['/x\\d+']}]\n")
    assert document.entities["routes"][0].body["paths"] == ["/x\\d+"]


def test_what_only_kong_itself_needs_is_let_through() -> None:
    document = parse(b"_transform: false\nparameters: [{key: cluster_id, value: x}]\nworkspaces: [{name: default}]\n")
    assert document.entity_count == 0
