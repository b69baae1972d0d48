"""Whether our answer to a recorded call says the same as the recorded one.

What may differ by nature is made equal first: ids (a recorded id stands for one of ours, learnt where answers match),
times, versions and the tokens of pages. Lists by id come in the order of ids that were drawn anew, so a complete page
is compared as a set, and of a partial one only its shape can be.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_TOKEN = re.compile(r"(?<=offset=)[^&]+")
_TIMES = frozenset({"created_at", "updated_at", "last_seen"})
_TIME_MIN = 1_000_000_000  # smaller ones are a client's own
_BY_NATURE = frozenset({"date", "connection", "content-length", "x-kong-admin-latency"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Json:
        """The body's JSON; None when there is none."""
        try:
            body: Json = json.loads(self.text)
        except ValueError:
            return None
        return body


@dataclass(slots=True)
class Ids:
    """Which of our ids stand for which recorded ones."""

    ours: dict[str, str] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def learn(self, recorded: str, ours: str) -> None:
        """Notes that a recorded id is that one here."""
        self.ours.setdefault(recorded, ours)
        self.known.add(ours)

    def recorded_form(self, text: str) -> str:
        """A recorded text in terms of our ids."""
        return _UUID.sub(lambda found: self.ours.get(found[0], "<id>"), text)

    def our_form(self, text: str) -> str:
        """A text of ours, with ids that stand for nothing recorded made equal."""
        return _UUID.sub(lambda found: found[0] if found[0] in self.known else "<id>", text)


def differences(
    recorded: Answer, ours: Answer, ids: Ids, *, ordered: bool, ignored: frozenset[str] = frozenset()
) -> list[str]:
    """What differs; empty = the same.

    `ordered` = the order of a complete page counts too; `ignored` = keys of the body that do not count, at any depth.
    """
    found: list[str] = []
    if recorded.status != ours.status:
        return [f"status {recorded.status} expected, {ours.status} came: {ours.text[:300]}"]
    for name, value in recorded.headers.items():
        if name not in _BY_NATURE and _header(name, value) != _header(name, ours.headers.get(name, "(absent)")):
            found.append(f"header {name}: '{value}' expected, '{ours.headers.get(name, '(absent)')}' came")
    if not ours.headers.get("x-kong-admin-latency", "").isdigit():
        found.append("header x-kong-admin-latency is no number")
    if recorded.json is None:
        if recorded.text.strip() != ours.text.strip():
            found.append(f"body: {recorded.text[:100]!r} expected, {ours.text[:100]!r} came")
        return found
    found.extend(_body(_without(recorded.json, ignored), _without(ours.json, ignored), ids, ordered=ordered))
    if not found:
        _learn(recorded.json, ours.json, ids)
    return found


def _header(name: str, value: str) -> str:
    return re.sub(r"\d+(\.\d+)+", "<version>", value) if name == "server" else value


def _body(recorded: Json, ours: Json, ids: Ids, *, ordered: bool) -> Iterator[str]:
    expected = _plain(recorded, ids.recorded_form)
    came = _plain(ours, ids.our_form)
    if _text(expected) == _text(came):  # as text, because 1, 1.0 and true are equal to Python and not to clients
        return
    if isinstance(expected, dict) and isinstance(came, dict) and isinstance(rows := expected.get("data"), list):
        our_rows = came.get("data")
        if not isinstance(our_rows, list) or len(our_rows) != len(rows):
            yield f"data: {len(rows)} rows expected, {len(our_rows) if isinstance(our_rows, list) else our_rows} came"
            return
        if not ordered and expected.get("next") is None:
            rows.sort(key=_text)
            our_rows.sort(key=_text)
        elif not ordered:
            # A part of a collection in the order of random ids: which rows it holds is chance.
            expected, came = _shape(expected), _shape(came)
    yield from _tree("", expected, came)


def _without(tree: Json, ignored: frozenset[str]) -> Json:
    if isinstance(tree, dict):
        return {name: _without(value, ignored) for name, value in tree.items() if name not in ignored}
    if isinstance(tree, list):
        return [_without(value, ignored) for value in tree]
    return tree


def _plain(tree: Json, form: Callable[[str], str], key: str = "") -> Json:
    """The tree with everything that differs by nature made equal."""
    if isinstance(tree, dict):
        return {form(name): _plain(value, form, name) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(value, form) for value in tree]
    if key in _TIMES and isinstance(tree, int | float) and tree > _TIME_MIN:
        return "<whole seconds>" if isinstance(tree, int) else "<seconds>"
    if isinstance(tree, str):
        if key == "offset":
            return _token(tree, form)
        if key == "next":
            return _TOKEN.sub(lambda found: _token(found[0], form), form(tree))
        return form(tree)
    return tree


def _token(token: str, form: Callable[[str], str]) -> str:
    if token.isdigit():
        return token
    try:
        return form(base64.b64decode(token + "=" * (-len(token) % 4)).decode())
    except ValueError:
        return token


def _shape(tree: Json) -> Json:
    if isinstance(tree, dict):
        return {
            name: re.sub("offset=[^&]+", "offset=<token>", value) if name == "next" and isinstance(value, str)
            else "<token>" if name == "offset" else _shape(value)
            for name, value in tree.items()
        }  # fmt: skip
    if isinstance(tree, list):
        rows: list[Json] = [", ".join(sorted(row)) if isinstance(row, dict) else "<row>" for row in tree]
        return rows
    return tree


def _text(tree: Json) -> str:
    return json.dumps(tree, sort_keys=True)


def _tree(path: str, expected: Json, came: Json) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(came, dict):
        for name in sorted(expected.keys() | came.keys()):
            below = f"{path}.{name}" if path else name
            if name not in came:
                yield f"{below}: {_text(expected[name])[:200]} expected, nothing came"
            elif name not in expected:
                yield f"{below}: nothing expected, {_text(came[name])[:200]} came"
            else:
                yield from _tree(below, expected[name], came[name])
    elif isinstance(expected, list) and isinstance(came, list) and len(expected) == len(came):
        for position, (one, other) in enumerate(zip(expected, came, strict=True)):
            yield from _tree(f"{path}[{position}]", one, other)
    elif expected != came or type(expected) is not type(came):
        yield f"{path or 'body'}: {_text(expected)[:300]} expected, {_text(came)[:300]} came"


def _learn(recorded: Json, ours: Json, ids: Ids) -> None:
    if isinstance(recorded, dict) and isinstance(ours, dict):
        if isinstance(recorded.get("data"), list):
            return  # rows may stand in another order
        for name, value in recorded.items():
            _learn(value, ours.get(name), ids)
    elif isinstance(recorded, str) and isinstance(ours, str):
        theirs, mine = _UUID.findall(recorded), _UUID.findall(ours)
        if len(theirs) == len(mine):
            for one, other in zip(theirs, mine, strict=True):
                ids.learn(one, other)
