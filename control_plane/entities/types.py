"""The JSON values that entities are made of."""

from __future__ import annotations

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
EntityBody = dict[str, JsonValue]
"""An entity as the Admin API shows it: every field of its schema, foreign fields as `{"id": ...}` or None."""
