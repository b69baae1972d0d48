"""The tree of a switch on a terminal, with and without UTF-8, and the lines that a pipe gets."""

from __future__ import annotations

from pointsman.cli import switch_view
from pointsman.cli.json_values import Json, JsonObject
from pointsman.cli.signs import ASCII, UTF8


def node(number: int, standing: str, **facts: Json) -> JsonObject:
    return {
        "node_id": f"0000000{number}-0",
        "hostname": f"dp-{number}",
        "standing": standing,
        "vote": "ready",
        "prepared_s": 0.041,
        "healthy": 2,
        "targets": 2,
        "late_us": 180 if standing == "activated" else None,
        "first_new_us_after_instant": 1_300 if standing == "activated" else None,
        "last_old_us_after_instant": -4_200_000 if standing == "activated" else None,
        "open_on_old_side": 3 if standing == "activated" else None,
        "reason": "",
        **facts,
    }


def view(state: str, *nodes: JsonObject, **facts: Json) -> JsonObject:
    plan: JsonObject = {
        "ready": True,
        "capacity_percent": 133.3,
        "new_side": {"healthy": 2, "targets": [{}, {}]},
        "nodes": [{"healthy": 2}, {"healthy": 2}],
    }
    return {
        "switch": 7,
        "verb": "switch",
        "services": [{"name": "shop", "from": "blue", "to": "green"}],
        "to": "green",
        "state": state,
        "reason": "2.7.1",
        "version": 9,
        "plan": plan,
        "nodes": list(nodes),
        "old_sides": [{"name": "blue", "in_flight": 3}],
        **facts,
    }


def test_the_tree_shows_each_step_and_node() -> None:
    shown = switch_view.tree(view("partial", node(1, "activated"), node(2, "lagging", reason="slow")), UTF8)
    assert shown == [
        "shop: blue -> green, switch 7, version 9",
        'reason: "2.7.1"',
        "✖ partial: 1 of 2 nodes serve green",
        "├─ ✔ preflight  2/2 targets healthy, each node sees 2 or more, capacity 133 %",
        "├─ ✔ prepare    2/2 nodes ready in 41 ms",
        "├─ ✖ activate   1/2 nodes",
        "│  ├─ ✖ dp-2  lagging  slow",
        "│  └─ ✔ dp-1  activated  0.2 ms late  first new +1.3 ms  last old -4.2 s  3 open",
        "└─ ◌ old side   blue: 3 requests open",
    ]


def test_without_utf8_it_is_ascii_and_never_wider_than_the_terminal() -> None:
    nodes = [node(number, "activated", reason="x" * 200) for number in range(1, 10)]
    shown = switch_view.tree(view("confirmed", *nodes, *nodes), ASCII)
    assert all(line.isascii() and len(line) <= 80 for line in shown)
    assert shown[-2] == "|  `- and 6 more; `pointsman switch show` has all"


def test_a_pipe_gets_each_fact_once_as_it_comes() -> None:
    early = list(switch_view.events(view("preparing", node(1, "ready"), node(2, "asked", vote=None), version=None)))
    late = list(switch_view.events(view("confirmed", node(1, "activated"), node(2, "followed"))))
    assert early == ["shop: blue -> green, switch 7", "dp-1: ready in 41 ms, 2/2 targets healthy"]
    assert [line for line in late if line not in early] == [
        "dp-2: ready in 41 ms, 2/2 targets healthy",
        "decided as version 9",
        "dp-1: activated, 0.2 ms late",
        "dp-2: followed",
        "confirmed: 2 of 2 nodes serve green",
    ]
