"""docs/cli.md shows every command, every global option and every exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pointsman.cli.errors import ExitCode
from pointsman.cli.main import main
from pointsman.cli.output import Format

TEXT = (Path(__file__).parents[4] / "docs" / "cli.md").read_text()
KINDS = ("service", "route", "upstream", "target")

HANDED_OVER = ("control-plane", "data-plane", "db", "backup", "restore")
"""Commands that give their process to another program, which has its own options."""


def commands(capsys: pytest.CaptureFixture[str], *group: str) -> list[str]:
    assert main([*group, "--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2]
    return re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE)


def test_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    shown = commands(capsys)
    assert set(KINDS) < set(shown)
    for name in shown:
        assert f"    pointsman {name}" in TEXT, name
    for kind in KINDS:
        for verb in commands(capsys, kind):
            assert f"    pointsman {kind} {verb}" in TEXT, f"{kind} {verb}"


def test_every_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    groups = [[name] for name in commands(capsys)] + [[kind, verb] for kind in KINDS for verb in commands(capsys, kind)]
    for group in [[], *groups]:
        if group and group[0] in (*KINDS, *HANDED_OVER) and len(group) == 1:
            continue
        main([*group, "--help"])
        for option in re.findall(r"^  (?:-\w, )?(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE):
            if not option.endswith("-completion"):
                assert option in TEXT or f"`{option[1:3]}`" in TEXT, option


def test_every_exit_code_and_format_is_listed() -> None:
    for code in ExitCode:
        assert re.search(rf"^\| {int(code)} \|", TEXT, re.MULTILINE), code
    for form in Format:
        assert f"`{form}`" in TEXT
