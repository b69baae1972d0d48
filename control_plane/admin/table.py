"""Paths -> handlers: a tree of path segments, read left to right, literal before placeholder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from control_plane.admin.messages import Handler, Refused
from control_plane.admin.operations import Operation, operation_of

SEGMENTS_MAX = 16


@dataclass(slots=True)
class _Place:
    literal: dict[str, _Place] = field(default_factory=dict)
    placeholder: _Place | None = None
    template: str = ""
    methods: dict[str, Handler] | None = None  # None = only on the way to longer paths
    about: Mapping[str, Operation] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What a path leads to: its methods, and its variable segments in order, decoded."""

    methods: Mapping[str, Handler]
    variables: tuple[str, ...]
    template: str

    @property
    def allowed(self) -> str:
        """The methods as `Allow` lists them."""
        names = {*self.methods, "OPTIONS"}
        if "GET" in names:
            names.add("HEAD")
        return ", ".join(sorted(names))


class PathTable:
    """All paths of the Admin API. Filled once at start, read by every request."""

    def __init__(self) -> None:
        self._root = _Place(template="/")

    def add(self, template: str, methods: Mapping[str, Handler], about: Mapping[str, Operation] | None = None) -> None:
        """Adds a path like `/services/{services}`; what is in braces is only a name for readers.

        `about` says for the OpenAPI document what each method takes and gives. A method without a word there is
        described by its handler's docstring, and may answer anything.
        """
        place = self._root
        for segment in _segments(template):
            if segment.startswith("{"):
                place.placeholder = place.placeholder or _Place()
                place = place.placeholder
            else:
                place = place.literal.setdefault(segment, _Place())
        assert place.methods is None, f"{template} is there already"
        place.methods = dict(methods)
        place.template = template
        place.about = {
            method: (about or {}).get(method) or operation_of(handler) for method, handler in methods.items()
        }

    def has(self, template: str) -> bool:
        """Whether the path was added."""
        return template in set(self.templates())

    def find(self, path: str) -> Found | None:
        """The methods of a raw path, None = no such path. A trailing slash is tolerated. Raises Refused (400)."""
        if not path.startswith("/") or path.count("/") > SEGMENTS_MAX:
            return None
        variables: list[str] = []
        place = _walk(self._root, _segments(path), 0, variables)
        if place is None or place.methods is None:
            return None
        return Found(place.methods, tuple(_decoded(segment) for segment in variables), place.template)

    def operations(self) -> list[tuple[str, str, Operation]]:
        """All (path, method, what it does), sorted by segment and method."""
        places = sorted(_places(self._root), key=lambda place: place.template.split("/"))
        return [(place.template, method, place.about[method]) for place in places for method in sorted(place.about)]

    def templates(self) -> list[str]:
        """All paths, sorted by segment."""
        return sorted((place.template for place in _places(self._root)), key=lambda template: template.split("/"))


def _walk(place: _Place, segments: list[str], at: int, variables: list[str]) -> _Place | None:
    """The place of the segments from `at` on; a literal that leads nowhere gives way to a placeholder."""
    if at == len(segments):
        return place if place.methods is not None else None
    segment = segments[at]
    step = place.literal.get(segment)
    if step is not None:
        found = _walk(step, segments, at + 1, variables)
        if found is not None:
            return found
    if place.placeholder is None or not segment:
        return None
    variables.append(segment)
    found = _walk(place.placeholder, segments, at + 1, variables)
    if found is None:
        variables.pop()
    return found


def _segments(path: str) -> list[str]:
    trimmed = path[1:-1] if path.endswith("/") and len(path) > 1 else path[1:]
    return trimmed.split("/") if trimmed or path == "//" else []


def _decoded(segment: str) -> str:
    if "%" not in segment:
        return segment
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise Refused(400, "paths must be UTF-8, percent-encoded") from None


def _places(place: _Place) -> Iterator[_Place]:
    if place.methods is not None:
        yield place
    for below in place.literal.values():
        yield from _places(below)
    if place.placeholder is not None:
        yield from _places(place.placeholder)
