"""Global options may stand anywhere, and usage errors are told apart from `diff`'s exit code 2."""

from __future__ import annotations

import pytest

from pointsman.cli.main import main
from pointsman.cli.session import hoist


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["nodes", "-o", "json"], ["-o", "json", "nodes"]),
        (["nodes", "-ojson"], ["-ojson", "nodes"]),
        (["--addr", "h:1", "nodes"], ["--addr", "h:1", "nodes"]),
        (["nodes", "--addr=h:1", "-q"], ["--addr=h:1", "-q", "nodes"]),
        (["sync", "-f", "-", "--output=yaml"], ["--output=yaml", "sync", "-f", "-"]),
        (["service", "set", "x", "--", "-o"], ["service", "set", "x", "--", "-o"]),
        (["data-plane", "-o", "json", "--addr", "y"], ["data-plane", "-o", "json", "--addr", "y"]),
        (["service", "get", "data-plane", "-o", "name"], ["-o", "name", "service", "get", "data-plane"]),
        (["nodes", "-o"], ["-o", "nodes"]),
    ],
)
def test_global_options_are_moved_to_the_front(given: list[str], expected: list[str]) -> None:
    assert hoist(given) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["sync"],
        ["switch", "example-service"],
        ["history", "--size", "0"],
        ["nodes", "-o", "xml"],
        ["service", "create", "novalue", "--addr", "127.0.0.1:1"],
        ["nodes", "--addr", "ftp://somewhere"],
        ["target", "list"],
    ],
)
def test_misuse_exits_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in (
        "control-plane",
        "data-plane",
        "sync",
        "apply",
        "diff",
        "dump",
        "switch",
        "nodes",
        "history",
        "status",
    ):
        assert f"\n  {name} " in text
    for name in ("service", "route", "upstream", "target"):
        assert f"\n  {name} " in text


def test_each_command_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    plain = ["sync", "apply", "diff", "dump", "switch", "nodes", "history", "status"]
    kinds = ["service", "route", "upstream", "target"]
    verbs = ["list", "get", "create", "set", "delete"]
    for command in [[name] for name in plain] + [[kind, verb] for kind in kinds for verb in verbs]:
        assert main([*command, "--help"]) == 0
        assert f"Example: pointsman {' '.join(command)}" in capsys.readouterr().out
