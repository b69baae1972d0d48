"""What is wrong with a file, told so that its author can put it right without reading our code.

A file is checked to its end and everything found is reported at once, each problem with the entity, its place in the
file, the field, what is wrong and what to do. `FileRefused` carries them to the HTTP layer in the shape of Kong's
code 14 with our list beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from typing_extensions import override

from control_plane.entities.errors import DeclarativeError
from control_plane.entities.types import EntityBody, JsonValue

PROBLEMS_MAX = 100
"""Problems reported of one file. A file with more has one mistake made many times; its author needs no longer list."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps a file from being used.

    `path` and `field` count list elements from 0, as JSON path tools do: `services[0].routes[1]`, `hosts[0]`.
    `line` counts from 1 over the whole text as it was sent; None where the format does not tell (JSON).
    """

    message: str
    remedy: str
    path: str = ""
    field: str = ""
    entity_type: str = ""  # route, upstream ...; empty = the file itself
    entity_name: str = ""
    line: int | None = None

    def to_json(self) -> EntityBody:
        """The problem as the Admin API reports it."""
        return {
            "entity_type": self.entity_type,
            "entity_name": self.entity_name,
            "path": self.path,
            "line": self.line,
            "field": self.field,
            "message": self.message,
            "remedy": self.remedy,
        }

    @override
    def __str__(self) -> str:
        what = f"{self.entity_type} '{self.entity_name}'" if self.entity_name else self.entity_type
        where = ": ".join(part for part in (self.path, what, self.field) if part)
        return f"{where}: {self.message}" if where else self.message


class FileRefused(DeclarativeError):
    """A file that was not taken; the store is as it was before."""

    problems: tuple[Problem, ...]
    omitted: int  # problems found beyond those listed

    def __init__(self, problems: Sequence[Problem], *, omitted: int = 0) -> None:
        self.problems = tuple(problems)
        self.omitted = omitted
        super().__init__(_error_tree(self.problems))

    @override
    def to_json(self) -> EntityBody:
        """Kong's code 14 and, beside it, the list of problems."""
        body = super().to_json()
        body["problems"] = [problem.to_json() for problem in self.problems]
        body["problems_omitted"] = self.omitted
        return body


class Problems:
    """Collects what is wrong with one file, up to `PROBLEMS_MAX` in detail."""

    __slots__ = ("_found", "_omitted")

    def __init__(self, earlier: Problems | None = None) -> None:
        self._found: list[Problem] = []
        self._omitted: int = 0
        if earlier is not None:
            self._found += earlier._found
            self._omitted += earlier._omitted

    def add(self, problem: Problem) -> None:
        """Notes a problem; the check of the file goes on."""
        if len(self._found) < PROBLEMS_MAX:
            self._found.append(problem)
        else:
            self._omitted += 1

    def raise_if_any(self) -> None:
        """Raises `FileRefused` with all that was found, in the order of the file where lines are known."""
        if self._found:
            ordered = sorted(self._found, key=lambda problem: problem.line or 0)
            raise FileRefused(ordered, omitted=self._omitted)


def flatten(fields: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    """The leaves of an error tree of `EntityError.fields` as (field, message); entity-wide ones have no field."""
    for name, value in fields.items():
        if name == "@entity":
            for message in value if isinstance(value, list) else [value]:
                yield "", str(message)
        else:
            yield from _leaves(name, value)


def _leaves(path: str, value: JsonValue) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _leaves(f"{path}.{name}", below)
    elif isinstance(value, list):
        for position, below in enumerate(value):
            if below is not None:
                yield from _leaves(f"{path}[{position}]", below)
    elif value is not None:
        yield path, str(value)


def remedy_for(collection: str, field: str, message: str, known_fields: Iterable[str]) -> str:
    """What to do about a schema's message. The schema's own text says what is wrong; this says where to go from it."""
    if message == "unknown field":
        close = get_close_matches(field, list(known_fields), n=1)
        if close:
            return f"write '{close[0]}' if that was meant, or remove '{field}'"
        return f"remove '{field}'; GET /schemas/{collection} lists the fields there are"
    if message == "required field missing" and collection == "certificates" and field in ("key", "key_alt"):
        return f"give '{field}'; a dump holds private keys only if it is asked for them (with_keys)"
    if message == "required field missing":
        return f"give '{field}' a value" if field else "add what is missing"
    return f"correct the value; GET /schemas/{collection} has the rules"


def _error_tree(problems: Sequence[Problem]) -> EntityBody:
    """Kong's `fields` for code 14, keyed by place. Texts for one place and field are kept in order."""
    tree: EntityBody = {}
    for problem in problems:
        place = problem.path or "@file"
        at_place = tree.setdefault(place, {})
        assert isinstance(at_place, dict)
        texts = at_place.setdefault(problem.field or "@entity", [])
        assert isinstance(texts, list)
        texts.append(problem.message)
    return tree
