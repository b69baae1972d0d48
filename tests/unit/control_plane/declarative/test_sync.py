"""`sync` makes the store equal to the file, in an order that the store's rules allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.declarative import FileRefused, Mode, Problem, Summary, apply, diff, parse, sync
from control_plane.entities.types import EntityBody
from control_plane.store.contract import Operation
from tests.unit.control_plane.declarative.memory import MemoryTransaction

NOW = 1_700_000_000.0
LATER = NOW + 3600

EXAMPLES = Path(__file__).parents[4] / "examples"


def run_sync(tx: MemoryTransaction, text: str, *, tags: tuple[str, ...] = (), now: float = NOW) -> Summary:
    return sync(tx, parse(text.encode()), select_tags=tags, now=now)


def run_apply(tx: MemoryTransaction, text: str, *, tags: tuple[str, ...] = (), now: float = NOW) -> Summary:
    return apply(tx, parse(text.encode()), select_tags=tags, now=now)


def counts(summary: Summary) -> tuple[int, int, int, int]:
    created, updated, deleted = (summary.count(operation) for operation in Operation)
    return created, updated, deleted, summary.unchanged


def refused(tx: MemoryTransaction, text: str, *, tags: tuple[str, ...] = ()) -> list[Problem]:
    tx.writes.clear()
    with pytest.raises(FileRefused) as caught:
        run_sync(tx, text, tags=tags)
    assert tx.writes == []
    assert all(problem.remedy for problem in caught.value.problems)
    return list(caught.value.problems)


def refused_by_apply(tx: MemoryTransaction, text: str, *, tags: tuple[str, ...] = ()) -> list[Problem]:
    tx.writes.clear()
    with pytest.raises(FileRefused) as caught:
        run_apply(tx, text, tags=tags)
    assert tx.writes == []
    return list(caught.value.problems)


@pytest.fixture
def tx() -> MemoryTransaction:
    return MemoryTransaction()


@pytest.fixture
def filled(tx: MemoryTransaction) -> MemoryTransaction:
    sync(tx, parse((EXAMPLES / "blue-green.yaml").read_bytes()), now=NOW)
    tx.writes.clear()
    return tx


def test_the_example_creates_everything_and_its_second_file_flips_the_host(tx: MemoryTransaction) -> None:
    summary = sync(tx, parse((EXAMPLES / "blue-green.yaml").read_bytes()), now=NOW)
    assert counts(summary) == (8, 0, 0, 0)
    service = tx.named("services", "example-service")
    assert (service["host"], service["path"], service["port"]) == ("blue", "/anything", 80)
    assert tx.named("routes", "example-route")["service"] == {"id": service["id"]}
    assert tx.names("targets") == ["192.168.34.15:80", "192.168.34.16:80", "192.168.34.17:80", "192.168.34.18:80"]
    assert tx.named("targets", "192.168.34.16:80")["weight"] == 50

    summary = apply(tx, parse((EXAMPLES / "to-green.yaml").read_bytes()), now=LATER)
    assert counts(summary) == (0, 1, 0, 0)
    (change,) = summary.changes
    assert [(field.field, field.before, field.after) for field in change.fields()] == [("host", "blue", "green")]
    after = tx.named("services", "example-service")
    assert after == {**service, "host": "green", "updated_at": int(LATER)}


def test_the_same_file_again_changes_nothing(filled: MemoryTransaction) -> None:
    summary = sync(filled, parse((EXAMPLES / "blue-green.yaml").read_bytes()), now=LATER)
    assert counts(summary) == (0, 0, 0, 8)
    assert filled.writes == []


def test_what_a_file_leaves_out_goes_children_first(filled: MemoryTransaction) -> None:
    summary = run_sync(filled, "upstreams:\n- name: green\n  targets:\n  - target: 192.168.34.17:80\n")
    assert counts(summary) == (0, 0, 6, 2)
    assert [change.entity_type for change in summary.changes] == [
        "target", "target", "target", "upstream", "route", "service",
    ]  # fmt: skip
    assert filled.names("upstreams") == ["green"]
    assert run_sync(filled, "").count(Operation.DELETE) == 2
    assert not any(filled.rows.values())


def test_a_property_that_a_file_leaves_out_goes_back_to_its_default(filled: MemoryTransaction) -> None:
    text = (EXAMPLES / "blue-green.yaml").read_text().replace('    path: "/anything"\n', "")
    created_at = filled.named("services", "example-service")["created_at"]
    summary = run_sync(filled, text, now=LATER)
    assert counts(summary) == (0, 1, 0, 7)
    service = filled.named("services", "example-service")
    assert service["path"] is None
    assert service["created_at"] == created_at
    assert service["updated_at"] == int(LATER)


def test_flat_files_refer_by_name_or_id_or_object(tx: MemoryTransaction) -> None:
    service_id = "0a0a0a0a-0000-4000-8000-000000000001"
    run_sync(
        tx,
        f"""
        routes:
        - {{name: by-text, paths: [/a], service: one}}
        - {{name: by-name, paths: [/b], service: {{name: one}}}}
        - {{name: by-id, paths: [/c], service: {{id: {service_id}}}}}
        - {{name: by-id-text, paths: [/d], service: {service_id.upper()}}}
        - {{name: alone, paths: [/e]}}
        services:
        - {{name: one, id: {service_id}, url: "https://example.com/base"}}
        targets:
        - {{target: "10.0.0.1:80", upstream: blue}}
        upstreams:
        - name: blue
        """,
    )
    for name in ("by-text", "by-name", "by-id", "by-id-text"):
        assert tx.named("routes", name)["service"] == {"id": service_id}
    assert tx.named("routes", "alone")["service"] is None
    assert tx.named("services", "one")["port"] == 443
    assert tx.named("targets", "10.0.0.1:80")["upstream"] == {"id": tx.named("upstreams", "blue")["id"]}


def test_names_resolve_in_the_store_after_the_file(filled: MemoryTransaction) -> None:
    run_apply(filled, "routes:\n- {name: more, paths: [/more], service: example-service}")
    assert filled.named("routes", "more")["service"] == {"id": filled.named("services", "example-service")["id"]}


def test_targets_are_matched_by_their_normal_form(tx: MemoryTransaction) -> None:
    text = "upstreams:\n- {name: blue, targets: [{target: api}, {target: '010.0.0.1:80'}, {target: '::1'}]}"
    run_sync(tx, text)
    before = {body["target"]: body["id"] for body in tx.rows["targets"].values()}
    assert counts(run_sync(tx, text, now=LATER)) == (0, 0, 0, 4)
    run_apply(tx, "targets:\n- {target: api, upstream: blue, weight: 7}", now=LATER)
    assert tx.named("targets", "api:8000")["weight"] == 7
    assert {body["target"]: body["id"] for body in tx.rows["targets"].values()} == before


def test_an_id_in_the_file_renames_its_entity(filled: MemoryTransaction) -> None:
    service_id = filled.named("services", "example-service")["id"]
    summary = run_apply(filled, f"services:\n- {{id: {service_id}, name: renamed}}")
    assert counts(summary) == (0, 1, 0, 0)
    assert filled.named("services", "renamed")["id"] == service_id


def test_two_entities_swap_names(tx: MemoryTransaction) -> None:
    run_sync(tx, "services:\n- {name: a, host: ha}\n- {name: b, host: hb}")
    ids = {name: tx.named("services", name)["id"] for name in "ab"}
    swapped = f"services:\n- {{id: {ids['a']}, name: b, host: ha}}\n- {{id: {ids['b']}, name: a, host: hb}}"
    assert counts(run_sync(tx, swapped)) == (0, 2, 0, 0)
    assert {name: tx.named("services", name)["id"] for name in "ab"} == {"a": ids["b"], "b": ids["a"]}


def test_a_name_moves_to_a_new_id_while_routes_still_refer_to_the_old_one(filled: MemoryTransaction) -> None:
    new_id = "0a0a0a0a-0000-4000-8000-000000000002"
    text = (
        (EXAMPLES / "blue-green.yaml")
        .read_text()
        .replace("- name: example-service", f"- id: {new_id}\n    name: example-service")
    )
    route_id = filled.named("routes", "example-route")["id"]
    summary = run_sync(filled, text, now=LATER)
    assert counts(summary) == (1, 1, 1, 6)
    assert filled.named("services", "example-service")["id"] == new_id
    route = filled.named("routes", "example-route")
    assert (route["id"], route["service"]) == (route_id, {"id": new_id})


def test_a_route_moves_away_from_a_service_that_goes(filled: MemoryTransaction) -> None:
    run_sync(
        filled, "services:\n- name: other\n  host: green\n  routes:\n  - {name: example-route, hosts: [a.example]}"
    )
    assert filled.names("services") == ["other"]
    assert filled.named("routes", "example-route")["service"] == {"id": filled.named("services", "other")["id"]}


def test_a_target_moves_to_another_upstream_by_its_id(filled: MemoryTransaction) -> None:
    target_id = filled.named("targets", "192.168.34.15:80")["id"]
    run_apply(filled, f"upstreams:\n- name: green\n  targets:\n  - {{id: {target_id}, target: '192.168.34.15:80'}}")
    target = filled.rows["targets"][str(target_id)]
    assert (target["upstream"], target["weight"]) == ({"id": filled.named("upstreams", "green")["id"]}, 100)


def test_apply_merges_records_and_replaces_lists(tx: MemoryTransaction) -> None:
    run_sync(
        tx,
        """
        upstreams:
        - {name: blue, tags: [a, b], healthchecks: {active: {timeout: 3, healthy: {interval: 5}}}}
        """,
    )
    summary = run_apply(
        tx, "upstreams:\n- {name: blue, tags: [c], healthchecks: {active: {healthy: {successes: 2}}}}", now=LATER
    )
    upstream = tx.named("upstreams", "blue")
    checks = upstream["healthchecks"]
    assert isinstance(checks, dict)
    active = checks["active"]
    assert isinstance(active, dict)
    assert isinstance(active["healthy"], dict)
    assert (active["timeout"], active["healthy"]["interval"], active["healthy"]["successes"]) == (3, 5, 2)
    assert upstream["tags"] == ["c"]
    changed = {field.field: (field.before, field.after) for field in summary.changes[0].fields()}
    assert changed == {"healthchecks.active.healthy.successes": (0, 2), "tags": (["a", "b"], ["c"])}


def test_apply_sets_null_only_where_the_file_says_null(filled: MemoryTransaction) -> None:
    run_apply(filled, "services:\n- {name: example-service, path: null}")
    assert filled.named("services", "example-service")["path"] is None


def test_apply_creates_nested_children_of_what_is_there(filled: MemoryTransaction) -> None:
    summary = run_apply(filled, "upstreams:\n- name: green\n  targets:\n  - target: 192.168.34.19:80\n")
    assert counts(summary) == (1, 0, 0, 1)
    assert summary.changes[0].parent == ("upstream", "green")


def test_a_small_apply_does_not_read_the_whole_store(filled: MemoryTransaction) -> None:
    filled.loads = 0
    run_apply(filled, (EXAMPLES / "to-green.yaml").read_text())
    assert filled.loads == 0


def test_defaults_of_the_file_lie_below_its_entities(tx: MemoryTransaction) -> None:
    text = """
    _info:
      defaults:
        service: {protocol: https, port: 443, retries: 1}
        upstream: {healthchecks: {active: {timeout: 9, concurrency: 2}}}
    services:
    - {name: a, host: h, retries: 3}
    upstreams:
    - {name: blue, healthchecks: {active: {concurrency: 4}}}
    """
    run_sync(tx, text)
    service = tx.named("services", "a")
    assert (service["protocol"], service["port"], service["retries"]) == ("https", 443, 3)
    checks = tx.named("upstreams", "blue")["healthchecks"]
    assert isinstance(checks, dict)
    assert isinstance(checks["active"], dict)
    assert (checks["active"]["timeout"], checks["active"]["concurrency"]) == (9, 4)
    run_apply(tx, text.replace("retries: 3", "port: 8443"))
    assert tx.named("services", "a")["retries"] == 3, "on a merge only what the entity itself says counts"


# --- select tags ---


def test_entities_without_the_tags_are_neither_seen_nor_touched(filled: MemoryTransaction) -> None:
    run_sync(filled, "services:\n- {name: mine, host: h}", tags=("team-a",))
    assert filled.named("services", "mine")["tags"] == ["team-a"]
    summary = run_sync(filled, "_info: {select_tags: [team-a]}\nservices:\n- {name: mine, host: h, tags: [x]}")
    assert counts(summary) == (0, 1, 0, 0)
    assert filled.named("services", "mine")["tags"] == ["x", "team-a"]
    summary = run_sync(filled, "", tags=("team-a",))
    assert [change.name for change in summary.changes] == ["mine"]
    assert filled.names("services") == ["example-service"]


def test_a_name_held_outside_the_tags_is_told(filled: MemoryTransaction) -> None:
    (problem,) = refused(filled, "services:\n- {name: example-service, host: h}", tags=("team-a",))
    assert problem.field == "name"
    assert "taken by the service with id" in problem.message
    assert "tag that one" in problem.remedy
    service_id = filled.named("services", "example-service")["id"]
    problems = refused(filled, f"services:\n- {{id: {service_id}, host: h}}", tags=("team-a",))
    assert problems[0].field == "id"


def test_a_service_can_not_go_while_a_route_outside_the_tags_needs_it(filled: MemoryTransaction) -> None:
    run_sync(filled, "services:\n- {name: mine, host: h}", tags=("team-a",))
    run_apply(filled, "routes:\n- {name: theirs, paths: [/], service: mine}")
    (problem,) = refused(filled, "", tags=("team-a",))
    assert (problem.entity_type, problem.entity_name) == ("service", "mine")
    assert "route 'theirs'" in problem.message


def test_targets_outside_the_tags_go_with_their_upstream(filled: MemoryTransaction) -> None:
    run_sync(filled, "upstreams:\n- name: mine", tags=("team-a",))
    run_apply(filled, "targets:\n- {target: 'x:1', upstream: mine}")
    summary = run_sync(filled, "", tags=("team-a",))
    assert [(change.entity_type, change.name) for change in summary.changes] == [
        ("target", "x:1"),
        ("upstream", "mine"),
    ]


def test_tags_of_file_and_request_must_agree(tx: MemoryTransaction) -> None:
    (problem,) = refused(tx, "_info: {select_tags: [a]}", tags=("b",))
    assert problem.path == "_info.select_tags"
    run_sync(tx, "_info: {select_tags: [a, b]}", tags=("b", "a"))


# --- refusals ---


def test_all_problems_of_a_file_are_told_at_once(tx: MemoryTransaction) -> None:
    problems = refused(
        tx,
        """services:
- name: a
  hots: blue
  routes:
  - name: r
    paths: [nope]
- name: b
  host: h
  port: 99999
upstreams:
- name: 1.2.3.4
  targets:
  - target: "!"
""",
    )
    told = {(problem.path, problem.field): problem for problem in problems}
    unknown = told["services[0]", "hots"]
    assert (unknown.entity_type, unknown.entity_name, unknown.line) == ("service", "a", 2)
    assert unknown.message == "unknown field"
    assert "'host'" in unknown.remedy
    assert told["services[0]", "host"].message == "required field missing"
    assert told["services[0].routes[0]", "paths[0]"].line == 5
    assert told["services[1]", "port"].message == "value should be between 0 and 65535"


def test_problems_of_values_in_nested_entities(tx: MemoryTransaction) -> None:
    problems = refused(
        tx,
        """services:
- name: a
  host: h
  routes:
  - name: r
    paths: [/ok, nope, "~/["]
upstreams:
- name: 1.2.3.4
  targets:
  - target: "!"
- name: b
  healthchecks: {active: {timeout: x}}
""",
    )
    told = {(problem.path, problem.field): problem.message for problem in problems}
    assert told["services[0].routes[0]", "paths[1]"] == "should start with: / (fixed path) or ~/ (regex path)"
    assert "invalid regex" in told["services[0].routes[0]", "paths[2]"]
    assert told["upstreams[0]", "name"] == "Invalid name ('1.2.3.4'); no ip addresses allowed"
    assert "Invalid target" in told["upstreams[0].targets[0]", "target"]
    assert told["upstreams[1]", "healthchecks.active.timeout"] == "expected a number"


def test_dangling_references(tx: MemoryTransaction) -> None:
    missing = "0a0a0a0a-0000-4000-8000-00000000dead"
    problems = refused(
        tx,
        f"""routes:
- {{name: a, paths: [/], service: nowhere}}
- {{name: b, paths: [/], service: {{id: {missing}}}}}
- {{name: c, paths: [/], service: {{name: nowhere}}}}
targets:
- {{target: "x:1", upstream: nowhere}}
""",
    )
    assert [(problem.path, problem.field) for problem in problems] == [
        ("routes[0]", "service"), ("routes[1]", "service"), ("routes[2]", "service"), ("targets[0]", "upstream"),
    ]  # fmt: skip
    assert problems[0].message == "invalid reference 'service: nowhere' (no such entry in 'services')"
    assert missing in problems[1].message


def test_a_reference_to_what_the_same_sync_removes(filled: MemoryTransaction) -> None:
    (problem,) = refused(filled, "routes:\n- {name: example-route, paths: [/], service: example-service}")
    assert problem.field == "service"
    assert "is not in the file and so goes away" in problem.message


def test_names_declared_twice(tx: MemoryTransaction) -> None:
    problems = refused(tx, "services:\n- {name: a, host: h}\n- {name: a, host: i}\n")
    assert [problem.message for problem in problems] == [
        "uniqueness violation: 'services' entity with name set to 'a' already declared"
    ]
    assert "services[0]" in problems[0].remedy
    run_sync(tx, "services:\n- {name: a, host: h}\n")
    assert len(refused(tx, "services:\n- {name: a, host: h}\n- {name: a, host: i}\n")) == 1
    text = "upstreams:\n- name: b\n  targets:\n  - {target: x}\n  - {target: 'x:8000'}\n"
    assert "already declared" in refused(tx, text)[0].message


def test_an_id_whose_name_belongs_to_another(filled: MemoryTransaction) -> None:
    text = "services:\n- {id: 0a0a0a0a-0000-4000-8000-000000000003, name: example-service, host: h}"
    (problem,) = refused_by_apply(filled, text)
    assert "leave 'id' out" in problem.remedy


def test_an_id_that_is_none(tx: MemoryTransaction) -> None:
    (problem,) = refused(tx, "services:\n- {id: seven, name: a, host: h}")
    assert (problem.field, problem.message) == ("id", "expected a valid UUID")


# --- diff ---


@pytest.mark.parametrize("mode", list(Mode))
def test_diff_tells_what_would_happen_and_does_nothing(filled: MemoryTransaction, mode: Mode) -> None:
    summary = diff(filled, parse((EXAMPLES / "to-green.yaml").read_bytes()), mode=mode, now=LATER)
    assert filled.writes == []
    assert summary.count(Operation.UPDATE) == 1
    assert summary.count(Operation.DELETE) == (7 if mode is Mode.SYNC else 0)
    told = summary.to_json(changes_max=1)
    assert told["omitted"] == (7 if mode is Mode.SYNC else 0)


def test_diff_after_sync_is_empty(filled: MemoryTransaction) -> None:
    summary = diff(filled, parse((EXAMPLES / "blue-green.yaml").read_bytes()), now=LATER)
    assert summary.changes == []


def test_a_change_as_the_admin_api_tells_it(filled: MemoryTransaction) -> None:
    summary = run_apply(filled, "upstreams:\n- name: green\n  targets:\n  - {target: '192.168.34.17:80', weight: 1}")
    (told,) = [change.to_json() for change in summary.changes]
    expected: EntityBody = {
        "operation": "update",
        "entity_type": "target",
        "id": filled.named("targets", "192.168.34.17:80")["id"],
        "name": "192.168.34.17:80",
        "parent": {"upstream": "green"},
        "fields": [{"field": "weight", "before": 100, "after": 1}],
    }
    assert told == expected
