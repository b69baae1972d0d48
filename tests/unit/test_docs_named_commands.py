"""Commands that documents name and no test runs: those of `console` blocks and within sentences. Each is one that there
is, with options that it has. What can be run is fenced as `sh` and run (tests/integration/test_docs_commands.py)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

from pointsman.cli import planes
from pointsman.cli.main import build_app

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(pointsman [^`]+)`")
LANGUAGES = {"sh", "text", "console", "yaml", "json"}
HANDED_OVER = (*planes.MODULES, *planes.DATABASE_COMMANDS)


def named(text: str) -> Iterator[list[str]]:
    """The words behind `pointsman` of each command that no test runs."""
    plain = FENCE.sub("", text)
    found = [span.replace("\n", " ") for span in SPAN.findall(plain)]
    for _, language, content in FENCE.findall(text):
        if language == "console":
            found += [line for line in content.splitlines() if re.search(r"(^|\s)pointsman ", line)]
    for line in found:
        words = shlex.split(line, comments=True)
        end = next((at for at, word in enumerate(words) if word in ("|", "||", "&", "&&", ">", "<")), len(words))
        if "pointsman" in words[:end]:
            yield words[words.index("pointsman") + 1 : end]


@pytest.fixture(scope="module")
def root() -> TyperGroup:
    made = typer.main.get_command(build_app([], whole=True))
    assert isinstance(made, TyperGroup)
    return made


def problem(root: TyperGroup, words: list[str]) -> str | None:
    """What is wrong with a command line; None = it could be typed."""
    options = {"--help": False, "-h": False, **_options(root)}
    command: object = root
    value = False
    for word in words:
        if value:
            value = False
        elif word.startswith("-") and word != "-":
            name, equals, _ = word.partition("=")
            if name not in options:
                return f"there is no option {word}"
            value = options[name] and not equals
        elif isinstance(command, TyperGroup):
            name = "now" if command.name == "switch" and word not in command.commands else word
            if word.isupper() or word == "...":
                return None  # a place for a command
            if name not in command.commands:
                return f"there is no command {word}"
            command = command.commands[name]
            if word in HANDED_OVER:
                return None
            assert isinstance(command, TyperCommand | TyperGroup)
            options |= _options(command)
    return None


def _options(command: TyperCommand | TyperGroup) -> dict[str, bool]:
    """The names of its options, and whether a value follows."""
    return {name: not getattr(param, "is_flag", False) for param in command.params for name in param.opts}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_named_is_there(document: Path, root: TyperGroup) -> None:
    wrong = {
        " ".join(words): why
        for words in named(document.read_text())
        if (why := problem(root, [word.rstrip(",;") for word in words])) is not None
    }
    assert wrong == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_says_what_it_is(document: Path) -> None:
    """A block in a language that nobody knows would be run by no test."""
    blocks = FENCE.findall(document.read_text())
    fences = len(re.findall(r"^ *```", document.read_text(), re.MULTILINE))
    assert fences == 2 * len(blocks)
    for indent, language, content in blocks:
        if language:
            assert language in LANGUAGES, content
            assert not indent or language != "sh", "an indented block is not run"


def test_what_is_wrong_is_found(root: TyperGroup) -> None:
    (words,) = named("`pointsman swich shop --to green`")
    assert problem(root, words) == "there is no command swich"
    (words,) = named("```console\nX=1 pointsman switch shop --too green | cat\n```\n")
    assert problem(root, words) == "there is no option --too"
    assert list(named("```sh\npointsman nothing\n```\n")) == []
