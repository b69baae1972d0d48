"""What trees are drawn with; each sign has a plain spelling for terminals without UTF-8."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signs:
    """Marks, branches, and the two halves of a bar."""

    good: str
    bad: str
    busy: str
    idle: str
    branch: str
    last: str
    bar: str
    full: str
    empty: str


UTF8 = Signs("✔", "✖", "◌", "•", "├─ ", "└─ ", "│  ", "█", "░")
ASCII = Signs("ok", "!!", "..", "--", "|- ", "`- ", "|  ", "#", "-")
