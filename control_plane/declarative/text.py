"""Text to trees: YAML and JSON read into plain JSON values, within limits, with the line of every mapping.

Called by `document.parse` on whatever bytes came over HTTP, so nothing here trusts them. YAML is taken from libyaml's
events in one pass rather than through a loader: a loader keeps silent about duplicate keys, knows no depth limit and
takes three times as long (measured on 60,000 entities), most of it for features that a configuration must not have
(tags that construct things, dates, base-60 numbers).

Plain scalars mean what both decK's reader and PyYAML's writer agree on: null, true/false/yes/no/on/off, decimal and
hexadecimal integers, decimal fractions. Everything else, also a number with leading zeros (octal to some readers), is
text, and a schema that wants a number then says so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

import yaml

from control_plane.declarative.problems import FileRefused, Problem
from control_plane.entities.types import JsonValue

DEPTH_MAX = 32
"""Levels of nesting. The deepest legal file has nine (services, routes, headers ...)."""

ALIASED_NODES_MAX = 100_000
"""Values that aliases may add to a text. A few lines of aliases of aliases could otherwise stand for billions."""

DOCUMENTS_MAX = 1_000
"""YAML documents in one text: the command line sends several files as one stream."""


class Located(dict[str, JsonValue]):
    """A mapping of a file that knows the line it starts at (from 1; None for JSON)."""

    __slots__ = ("line",)

    def __init__(self, line: int | None = None) -> None:
        super().__init__()
        self.line = line


def read(text: bytes, content_type: str = "") -> list[JsonValue]:
    """The documents of a text, as trees.

    JSON when the content type says so or, with none given, when the text starts with a brace; YAML otherwise.
    Raises `FileRefused`.
    """
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise _refused(f"the file is not UTF-8 (byte {error.start})", "save it as UTF-8", line) from error
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith("json") or (not kind and decoded.lstrip()[:1] == "{"):
        return [_read_json(decoded)]
    return list(_read_yaml(decoded))


def _refused(message: str, remedy: str, line: int | None = None) -> FileRefused:
    return FileRefused([Problem(message=message, remedy=remedy, line=line)])


# --- JSON ---


def _read_json(text: str) -> JsonValue:
    try:
        tree: JsonValue = json.loads(text, object_pairs_hook=_json_mapping, parse_constant=_json_constant)
    except json.JSONDecodeError as error:
        message = f"failed parsing the file as JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise _refused(message, "correct the JSON at that place", error.lineno) from error
    except RecursionError as error:
        raise _too_deep(None) from error
    _check_depth(tree)
    if "\\ud" in text.lower():
        _check_surrogates(tree)
    return tree


def _json_mapping(pairs: list[tuple[str, JsonValue]]) -> Located:
    mapping = Located()
    for key, value in pairs:
        if key in mapping:
            raise _duplicate(key, None)
        mapping[key] = value
    return mapping


def _json_constant(name: str) -> JsonValue:
    raise _refused(f"{name} is not a JSON number", "give a finite number")


def _check_depth(tree: JsonValue) -> None:
    """Level by level, so that the check itself does not recurse."""
    level = [tree]
    for _ in range(DEPTH_MAX + 1):
        below: list[JsonValue] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        if not below:
            return
        level = below
    raise _too_deep(None)


def _check_surrogates(tree: JsonValue) -> None:
    """JSON can spell half of a character (`\\ud800`), which has no UTF-8 form and would fail at the store."""
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _refused(
            "a string holds half of a surrogate pair", "write the whole character, or both halves of the pair"
        ) from error


# --- YAML ---


class _Frame:
    """A mapping or list under construction."""

    __slots__ = ("anchor", "key", "key_is_merge", "merges", "size", "values")

    def __init__(self, values: Located | list[JsonValue], anchor: str | None) -> None:
        self.values = values
        self.anchor = anchor
        self.key: str | None = None  # mappings: the key that waits for its value
        self.key_is_merge = False
        self.merges: list[JsonValue] = []
        self.size = 1


class _Builder:
    """Turns one document's events into a tree."""

    __slots__ = ("_aliased", "_anchors", "_stack", "tree")

    def __init__(self) -> None:
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[JsonValue, int]] = {}
        self._aliased = 0
        self.tree: JsonValue = None

    def feed(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._open(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._close(_line(event))
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.key is None and isinstance(frame.values, Located):
            self._take_key(frame, event)
            return
        value = _scalar_value(event)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._add(value, 1, event)

    def _take_key(self, frame: _Frame, event: yaml.ScalarEvent) -> None:
        # A key is its text, also where the text looks like a number or a truth value: JSON has no other keys.
        key = event.value
        if key in frame.values or (frame.merges and key == "<<"):
            raise _duplicate(key, _line(event))
        if event.anchor:
            self._anchors[event.anchor] = (key, 1)
        frame.key = key
        frame.key_is_merge = key == "<<" and event.implicit[0]

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        line = _line(event)
        if self._stack and isinstance(self._stack[-1].values, Located) and self._stack[-1].key is None:
            raise _refused("a mapping key is itself a list or a mapping", "use a text as the key", line)
        if event.tag and event.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "!"):
            raise _bad_tag(event.tag, line)
        if len(self._stack) >= DEPTH_MAX:
            raise _too_deep(line)
        values: Located | list[JsonValue] = Located(line) if isinstance(event, yaml.MappingStartEvent) else []
        self._stack.append(_Frame(values, event.anchor))

    def _close(self, line: int) -> None:
        frame = self._stack.pop()
        values = frame.values
        if isinstance(values, Located):
            for merge in frame.merges:
                for source in merge if isinstance(merge, list) else [merge]:
                    if not isinstance(source, dict):
                        raise _refused("'<<' needs a mapping or a list of mappings", "refer to a mapping", line)
                    for key, value in source.items():
                        values.setdefault(key, value)
        if frame.anchor:
            self._anchors[frame.anchor] = (values, frame.size)
        self._add(values, frame.size, None)

    def _alias(self, event: yaml.AliasEvent) -> None:
        line = _line(event)
        known = self._anchors.get(event.anchor or "")
        if known is None:
            # Also an alias inside its own anchor: the anchor's value does not exist before its end.
            raise _refused(f"alias '*{event.anchor}' has no anchor before it", f"define '&{event.anchor}' first", line)
        value, size = known
        self._aliased += size
        if self._aliased > ALIASED_NODES_MAX:
            raise _refused(f"aliases stand for more than {ALIASED_NODES_MAX:,} values", "write the values out", line)
        self._add(value, size, event)

    def _add(self, value: JsonValue, size: int, event: yaml.Event | None) -> None:
        if not self._stack:
            self.tree = value
            return
        frame = self._stack[-1]
        frame.size += size
        values = frame.values
        if isinstance(values, list):
            values.append(value)
        elif frame.key is None:
            line = _line(event) if event is not None else None
            raise _refused("an alias stands where a key belongs", "write the key out", line)
        else:
            if frame.key_is_merge:
                frame.merges.append(value)
            else:
                values[frame.key] = value
            frame.key = None


def _read_yaml(text: str) -> Iterator[JsonValue]:
    builder = _Builder()
    documents = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > DOCUMENTS_MAX:
                    raise _refused(f"more than {DOCUMENTS_MAX:,} documents", "send fewer files at a time", _line(event))
                builder = _Builder()
            elif isinstance(event, yaml.DocumentEndEvent):
                yield builder.tree
            else:
                builder.feed(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        line = mark.line + 1 if mark else None
        raise _refused(f"failed parsing the file as YAML: {what}{place}", "correct the YAML there", line) from error
    except yaml.YAMLError as error:
        # Characters that YAML does not allow: the reader reports them without a mark.
        raise _refused(f"failed parsing the file as YAML: {error}", "remove the character named") from error


def _spellings(*words: str) -> list[str]:
    return [spelt for word in words for spelt in (word, word.capitalize(), word.upper())]


_PLAIN_WORDS: dict[str, JsonValue] = {
    **dict.fromkeys(["", "~", *_spellings("null")]),
    **dict.fromkeys(_spellings("true", "yes", "on"), True),
    **dict.fromkeys(_spellings("false", "no", "off"), False),
}

_NUMBER_STARTS = frozenset("+-.0123456789")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,39})")
_HEXADECIMAL = re.compile(r"[-+]?0x[0-9a-fA-F]{1,16}")
_FRACTION = re.compile(r"[-+]?[0-9]{1,20}\.[0-9]{0,30}(?:[eE][-+][0-9]{1,3})?|\.[0-9]{1,30}")

_TAGGED_TEXT = "tag:yaml.org,2002:str"
_TAGGED_PLAIN = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))


def _scalar_value(event: yaml.ScalarEvent) -> JsonValue:
    text = event.value
    if event.tag is not None and event.tag != "!":
        if event.tag in _TAGGED_PLAIN:
            return _plain_value(text)
        if event.tag != _TAGGED_TEXT:
            raise _bad_tag(event.tag, _line(event))
        return text
    return _plain_value(text) if event.implicit[0] else text


def _plain_value(text: str) -> JsonValue:
    if text in _PLAIN_WORDS:
        return _PLAIN_WORDS[text]
    if text[0] in _NUMBER_STARTS:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _HEXADECIMAL.fullmatch(text):
            return int(text, 16)
        if _FRACTION.fullmatch(text) and math.isfinite(number := float(text)):
            return number
    return text


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return mark.line + 1 if mark is not None else 1


def _duplicate(key: str, line: int | None) -> FileRefused:
    place = f" at line {line}" if line is not None else ""
    return _refused(f"duplicate key '{key}'{place}", "keep one of the two", line)


def _too_deep(line: int | None) -> FileRefused:
    return _refused(f"nested deeper than {DEPTH_MAX} levels", "flatten it; no entity is that deep", line)


def _bad_tag(tag: str, line: int) -> FileRefused:
    return _refused(f"tag '{tag}' is not supported", "remove the tag; plain YAML values are enough", line)
