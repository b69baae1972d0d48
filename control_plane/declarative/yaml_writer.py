"""Trees to YAML text, in one pass.

A general YAML writer weighs every way to write every string, and took 20 s for a dump of 100,000 entities. A dump needs
one way: a word that no reader takes for anything else stands plain, every other string is in double quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from control_plane.entities.types import EntityBody, JsonValue

# Plain: begins with a letter, slash or underscore and holds nothing that has a meaning in YAML. Colons are left out
# although most would be harmless; `12:30` is a number to some readers.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS_WITH_A_MEANING = frozenset({"false", "n", "no", "null", "off", "on", "true", "y", "yes"})
_KEY_CHARS_MAX = 512  # YAML readers look for a colon only so far; a longer key is marked as one


def to_yaml(document: EntityBody) -> bytes:
    """A document as YAML text, UTF-8, keys in alphabetical order."""
    lines: list[str] = []
    if document:
        _write_mapping(lines, document, "")
    else:
        lines.append("{}")
    lines.append("")
    return "\n".join(lines).encode()


def _write_mapping(lines: list[str], mapping: EntityBody, indent: str) -> None:
    for key in sorted(mapping):
        value = mapping[key]
        start = f"{indent}{_text(key)}:"
        if len(start) > _KEY_CHARS_MAX:
            lines.append(f"{indent}? {_text(key)}")
            start = f"{indent}:"
        if isinstance(value, dict) and value:
            lines.append(start)
            _write_mapping(lines, value, indent + "  ")
        elif isinstance(value, list) and value:
            lines.append(start)
            _write_list(lines, value, indent)
        else:
            lines.append(f"{start} {_scalar(value)}")


def _write_list(lines: list[str], items: Iterable[JsonValue], indent: str) -> None:
    for item in items:
        first = len(lines)
        if isinstance(item, dict) and item:
            _write_mapping(lines, item, indent + "  ")
        elif isinstance(item, list) and item:
            _write_list(lines, item, indent + "  ")
        else:
            lines.append(f"{indent}- {_scalar(item)}")
            continue
        lines[first] = f"{indent}- {lines[first][len(indent) + 2 :]}"


def _scalar(value: JsonValue) -> str:
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)
        # YAML asks for a point in every fraction: 1e+16 would be read as text.
        return text if "." in text else text.replace("e", ".0e")
    if isinstance(value, int):
        return str(value)
    return "[]" if isinstance(value, list) else "{}"


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS_WITH_A_MEANING:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        escaped = "".join(character if character.isprintable() else _escape(character) for character in escaped)
    return f'"{escaped}"'


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
