"""JSON as the Admin API answers it, read without trusting its shape.

The command line may be older or newer than the control plane it talks to: a field that is missing or of another kind
reads as empty and shows as such, it does not end in a traceback.
"""

from __future__ import annotations

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
JsonObject = dict[str, Json]


def as_object(value: Json) -> JsonObject:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Json) -> list[Json]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_objects(value: Json) -> list[JsonObject]:
    """The objects of a list."""
    return [item for item in as_list(value) if isinstance(item, dict)]


def as_number(value: Json) -> float | None:
    """The value if it is a number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_text(value: Json) -> str:
    """A value as an eye wants to see it in a table: null is empty, lists are joined, objects are `key=value`."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}={as_text(below)}" for key, below in value.items())
    return str(value)
