"""The files of `-f`: read, their environment filled in, joined into one text, and lines of it traced back."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pointsman.cli.errors import ExitCode, failure
from pointsman.cli.json_values import Json

_SUFFIXES = (".json", ".yaml", ".yml")
_ENVIRONMENT = re.compile(r"\$\{\{\s*env\s+[\"']([A-Za-z_][A-Za-z0-9_]*)[\"']\s*\}\}")
MASKED_CHARS_MIN = 2
_PREFIXES = ("DECK_", "POINTSMAN_FILE_")
_SEPARATOR = "\n---\n"


@dataclass(frozen=True, slots=True)
class Source:
    """One file's text; `name` is how the operator named it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Joined:
    """Several files as one YAML stream; `starts` has the line (from 1) at which each of them begins."""

    text: str
    content_type: str
    sources: Sequence[Source]
    starts: Sequence[int]
    filled_in: frozenset[str] = frozenset()  # the values that came from the environment

    def place(self, line: int) -> str:
        """A line of the joined text as `file:line`."""
        for source, start in zip(reversed(self.sources), reversed(self.starts), strict=True):
            if line >= start:
                return f"{source.name}:{line - start + 1}"
        return f"line {line}"


def read_sources(names: Sequence[str], environment: Mapping[str, str]) -> Joined:
    """Reads what `-f` names: files, directories of files, `-` for stdin. Raises `CliError`."""
    used: set[str] = set()
    sources = [Source(name, _filled_in(name, text, environment, used)) for path in names for name, text in _texts(path)]
    filled_in = frozenset(used)
    if len(sources) == 1:
        json = sources[0].name.endswith(".json") or sources[0].text.lstrip()[:1] == "{"
        return Joined(sources[0].text, "application/json" if json else "application/yaml", sources, (1,), filled_in)
    starts: list[int] = []
    line = 1
    for source in sources:
        starts.append(line)
        line += source.text.count("\n") + _SEPARATOR.count("\n")
    # JSON is YAML too, so a stream of YAML documents holds files of both kinds.
    return Joined(_SEPARATOR.join(source.text for source in sources), "application/yaml", sources, starts, filled_in)


def _texts(name: str) -> list[tuple[str, str]]:
    if name == "-":
        return [("<stdin>", _decoded("<stdin>", sys.stdin.buffer.read()))]
    path = Path(name)
    try:
        if path.is_dir():
            found = sorted(entry for entry in path.iterdir() if entry.suffix in _SUFFIXES and entry.is_file())
            if not found:
                raise failure(ExitCode.ERROR, "no .yaml, .yml or .json file in the directory", where=name)
            return [(str(entry), _decoded(str(entry), entry.read_bytes())) for entry in found]
        return [(name, _decoded(name, path.read_bytes()))]
    except OSError as error:
        why = error.strerror or str(error)
        raise failure(ExitCode.ERROR, f"can't read the file: {why}", where=name, remedy="check the path") from error


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise failure(
            ExitCode.ERROR, "the file is not UTF-8", where=f"{name}:{line}", remedy="save it as UTF-8"
        ) from error


def _filled_in(name: str, text: str, environment: Mapping[str, str], used: set[str]) -> str:
    """`${{ env "DECK_X" }}` replaced, as decK does it: only names that begin with DECK_ or POINTSMAN_FILE_, so that a
    file from elsewhere can't collect the secrets of the operator's environment."""

    def value(match: re.Match[str]) -> str:
        variable = match[1]
        where = f"{name}:{text.count(chr(10), 0, match.start()) + 1}"
        if not variable.startswith(_PREFIXES):
            raise failure(
                ExitCode.ERROR,
                f"environment variable '{variable}' may not be used in a file",
                where=where,
                remedy="its name has to begin with DECK_ or POINTSMAN_FILE_",
            )
        if variable not in environment:
            raise failure(
                ExitCode.ERROR, f"environment variable '{variable}' is not set", where=where, remedy="export it"
            )
        used.add(environment[variable])
        return environment[variable]

    return _ENVIRONMENT.sub(value, text) if "${{" in text else text


def masked(tree: Json, values: Iterable[str]) -> Json:
    """What is about to be printed, without the values that came from the environment: they may be secrets, and the
    output ends up in the logs of pipelines. Values of one or two characters are no secrets and stay."""
    hidden = sorted((value for value in values if len(value) > MASKED_CHARS_MIN), key=len, reverse=True)
    return _masked(tree, hidden) if hidden else tree


def _masked(tree: Json, hidden: Sequence[str]) -> Json:
    if isinstance(tree, str):
        for value in hidden:
            tree = tree.replace(value, "[masked]")
        return tree
    if isinstance(tree, dict):
        return {name: _masked(value, hidden) for name, value in tree.items()}
    return [_masked(value, hidden) for value in tree] if isinstance(tree, list) else tree


def process_environment() -> Mapping[str, str]:
    """The variables that files may name."""
    return os.environ
