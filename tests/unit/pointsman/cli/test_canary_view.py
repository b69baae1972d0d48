"""The tree of a canary on a terminal, at 80 columns, with and without UTF-8, and the lines that a pipe gets."""

from __future__ import annotations

import pytest

from control_plane.switching.canary import Canary
from pointsman.cli import canary_view, switch_view
from pointsman.cli.errors import ExitCode
from pointsman.cli.json_values import JsonObject
from pointsman.cli.signs import ASCII, UTF8
from tests.support import canary_views as made


def shown(canary: Canary) -> JsonObject:
    return made.shown(canary)


def test_the_tree_shows_steps_gates_and_what_each_node_sees() -> None:
    assert switch_view.tree(shown(made.on_second_step()), UTF8, now=made.BEGAN + 41.1) == [
        "example-service: blue -> green, canary 7: 5, 25, 100 %, 30 s each",
        'reason: "2.7.1"',
        "◌ watching: step 2 of 3, 25 % to green",
        "├─ ✔ preflight  2/2 targets healthy, each node sees 2 or more, capacity 133 %",
        "├─ ◌ share      ██████░░░░░░░░░░░░░░░░░░ 25 %  next step in 20 s",
        "├─ • steps      5 % ✔  25 % ◌  100 % •",
        "├─ ✔ gate       errors 0 % (old 0 %), limit 1 % more",
        "├─ ✔ gate       failed connections 0 % (old 0 %), limit 1 % more",
        "├─ ✔ gate       latency 1.99 ms (old 1.99 ms), limit 12 ms",
        "├─ • requests   25 % asked, 24.0 % seen over 5000 requests",
        "│  ├─ dp-1  new 24.0 % of 2500  errors 0 %  latency 1.99 ms",
        "│  └─ dp-2  new 24.0 % of 2500  errors 0 %  latency 1.99 ms",
        "└─ • old side   -",
    ]


def test_a_canary_that_went_back_names_the_figure_and_fits_everywhere() -> None:
    lines = switch_view.tree(shown(made.undone()), ASCII, width=80)
    assert all(line.isascii() and len(line) <= 80 for line in lines)
    assert lines[2:5] == [
        "!! undone, all requests go where they went before",
        "|  gate errors: example-service on node dp-2: 50 % errors, the old side 0 % over",
        "|  600 requests; the limit is 1 % more",
    ]
    assert any("errors on dp-2 50 % (old 0 %)" in line for line in lines)
    assert canary_view.lines(shown(made.undone())) == ["all requests were back 400 ms after the gate broke"]
    assert canary_view.lines(shown(made.confirmed())) == []


def test_lines_of_a_pipe_never_change_once_they_are_told() -> None:
    told: list[str] = []
    for canary in (made.begun(), made.on_second_step(), made.undone()):
        lines = list(switch_view.events(shown(canary)))
        assert lines[: len(told)] == told
        told = lines
    assert told == [
        "example-service: blue -> green, canary 7: 5, 25, 100 %, 30 s each",
        "step 1: 5 % to green, version 9",
        "step 1: passed, 5.0 % of 4000 requests, errors 0 %",
        "step 2: 25 % to green, version 10",
        "step 2: broken, 24.0 % of 5000 requests, errors 25 %",
        "undone, all requests go where they went before",
        "  gate errors: example-service on node dp-2: 50 % errors, the old side 0 %",
        "  over 600 requests; the limit is 1 % more",
    ]


@pytest.mark.parametrize(
    ("canary", "code"),
    [
        (made.confirmed(), ExitCode.DONE),
        (made.undone(), ExitCode.ROLLED_BACK),
        (made.on_second_step(), ExitCode.TIMED_OUT),
        (made.begun(every_s=None), ExitCode.DONE),
    ],
)
def test_the_shell_is_told_how_it_ended(canary: Canary, code: ExitCode) -> None:
    assert switch_view.exit_code_of(shown(canary)) is code


def test_it_says_what_it_waits_for() -> None:
    held = made.begun(every_s=None)
    assert canary_view.ending(shown(held)) == "held until it is promoted: step 1 of 3, 5 % to green"
    standing = made.begun()
    standing.hold("bob")
    standing.judged(made.verdict(requests=3), made.BEGAN + 99)
    assert canary_view.ending(shown(standing)) == (
        "held by bob: step 1 of 3, 5 % to green, too few requests to judge it yet"
    )
    going = made.begun()
    going.promote("ann", made.BEGAN + 1)
    going.failed("dp-1 refused", made.BEGAN + 2)
    assert canary_view.ending(shown(going)) == "going to step 2 of 3, 5 % to green now; last time: dp-1 refused"
