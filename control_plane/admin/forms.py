"""Form and multipart bodies -> trees of strings; the schema gives the leaves their types afterwards.

    a.b=1  tags=x&tags=y  tags[]=x  tags[2]=y  headers[x-foo][]=v  config[with.dot]=v  a[1].b=x

A name is a path: parts between dots are keys, a number in brackets is a place in an array (from 1), empty brackets
append, any other bracketed text is a key that keeps its dots. An empty value is null.
"""

from __future__ import annotations

import re

from control_plane.admin.limits import Limits
from control_plane.admin.messages import Refused, split_arguments
from control_plane.entities.types import EntityBody, JsonValue

DEPTH_MAX = 16

_PART = re.compile(r"(?:^|\.)([^.\[\]]+)|\[([^\]]*)\]")
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_PART_NAME = re.compile(r'^content-disposition:\s*form-data\s*;(?:.*;)?\s*name="([^"]*)"', re.IGNORECASE | re.MULTILINE)

_Key = str | int
_Branch = dict[_Key, "_Tree"]
_Tree = str | list[str] | _Branch


def decode_form(raw: bytes, limits: Limits) -> EntityBody:
    """A body of `application/x-www-form-urlencoded`. Raises Refused (400)."""
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        # Clients that send UTF-8 as it is are understood; anything else isn't.
        text = _utf8(raw)
    return build_tree(split_arguments(text, limits))


def decode_multipart(raw: bytes, content_type: str, limits: Limits) -> EntityBody:
    """A body of `multipart/form-data`. Raises Refused (400)."""
    if not raw:
        return {}
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise Refused(400, "a multipart body needs a boundary in its Content-Type")
    delimiter = b"--" + (found[1] or found[2]).encode()
    if not raw.startswith(delimiter):
        start = raw.find(b"\r\n" + delimiter)
        if start < 0:
            raise Refused(400, "the multipart body does not hold the boundary that its Content-Type names")
        raw = raw[start + 2 :]
    parts = raw[len(delimiter) :].split(b"\r\n" + delimiter, limits.arguments_max + 2)
    if len(parts) > limits.arguments_max + 1:
        raise Refused(400, "Too many arguments")
    if not parts[-1].startswith(b"--"):
        raise Refused(400, "the multipart body ends before its last boundary")
    pairs: list[tuple[str, str]] = []
    for part in parts[:-1]:
        head, blank, value = part.partition(b"\r\n\r\n")
        name = _PART_NAME.search(_utf8(head).strip())
        if not blank or name is None:
            raise Refused(400, "a part of the multipart body has no name")
        pairs.append((name[1], _utf8(value)))
    return build_tree(pairs)


def build_tree(pairs: list[tuple[str, str]]) -> EntityBody:
    """Names and values as nested objects and arrays. Raises Refused (400)."""
    root: _Branch = {}
    for name, value in pairs:
        branch = root
        path = _path(name)
        for key in path[:-1]:
            key = _place(branch, key)
            below = branch.setdefault(key, {})
            if not isinstance(below, dict):
                raise _mixed(name)
            branch = below
        _put(branch, _place(branch, path[-1]), value, name)
    return {str(key): _finished(value) for key, value in root.items()}


def _path(name: str) -> list[_Key | None]:
    """The parts of a name; None = append. A name that is no path is one key as it stands."""
    if name[:1] in (".", "["):
        return [name]
    parts: list[_Key | None] = []
    position = 0
    while position < len(name):
        found = _PART.match(name, position)
        if found is None:
            return [name]
        position = found.end()
        if found[1] is not None:
            parts.append(found[1])
        elif not found[2]:
            parts.append(None)
        elif found[2].isascii() and found[2].isdigit() and len(found[2]) <= 9:
            parts.append(int(found[2]))
        else:
            parts.append(found[2])
    if len(parts) > DEPTH_MAX:
        raise Refused(400, f"the argument '{name[:100]}' is nested deeper than {DEPTH_MAX} levels")
    return parts or [name]


def _place(branch: _Branch, key: _Key | None) -> _Key:
    if key is not None:
        return key
    return max((place for place in branch if isinstance(place, int)), default=0) + 1


def _put(branch: _Branch, key: _Key, value: str, name: str) -> None:
    present = branch.get(key)
    if present is None:
        branch[key] = value
    elif isinstance(present, str):
        branch[key] = [present, value]
    elif isinstance(present, list):
        present.append(value)
    else:
        raise _mixed(name)


def _finished(tree: _Tree) -> JsonValue:
    if isinstance(tree, str):
        return tree or None
    if isinstance(tree, list):
        return [item or None for item in tree]
    if tree and all(isinstance(key, int) for key in tree):
        return [_finished(value) for _, value in sorted(tree.items(), key=lambda item: int(item[0]))]
    return {str(key): _finished(value) for key, value in tree.items()}


def _mixed(name: str) -> Refused:
    return Refused(400, f"the argument '{name[:100]}' is given both as a value and as a record")


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Refused(400, "form values must be UTF-8") from None
