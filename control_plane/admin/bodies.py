"""A request's body -> the tree an entity is made from, by its Content-Type.

JSON is taken as it is typed. Forms are strings, so `coerce` (of the entity's schema) gives them types. Where Kong stops
with an internal error, on JSON that is not an object, we answer 400.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from control_plane.admin.forms import decode_form, decode_multipart
from control_plane.admin.limits import Limits
from control_plane.admin.messages import Call, Refused
from control_plane.entities.types import EntityBody, JsonValue

UNPARSABLE = "Cannot parse JSON body"


async def entity_body(
    call: Call, coerce: Callable[[EntityBody], EntityBody], *, bytes_max: int | None = None
) -> EntityBody:
    """The entity a client sent, of `bytes_max` at most. Raises Refused (400, 413, 415)."""
    content_type = content_type_of(call)
    kind = content_type.lower()
    if kind.startswith("application/json"):
        return parse_json(await call.body(bytes_max), call.limits)
    if kind.startswith("application/x-www-form-urlencoded"):
        return coerce(decode_form(await call.body(), call.limits))
    if kind.startswith("multipart/form-data"):
        return coerce(decode_multipart(await call.body(), content_type, call.limits))
    if not kind and not await call.body():
        return {}
    raise Refused(415, "Unsupported Content-Type; send application/json, a form or multipart/form-data")


def is_form(call: Call) -> bool:
    """Whether the body's values are texts without types. Raises Refused (400) for several content types."""
    return content_type_of(call).lower().startswith(("application/x-www-form-urlencoded", "multipart/form-data"))


def content_type_of(call: Call) -> str:
    """The Content-Type as sent; empty = none. Raises Refused (400) when there are several."""
    if len(call.content_types) > 1:
        raise Refused(400, "Multiple Content-Type headers not allowed")
    return call.content_types[0].strip() if call.content_types else ""


def parse_json(raw: bytes, limits: Limits) -> EntityBody:
    """A JSON object. Raises Refused (400)."""
    if raw.count(b"{") + raw.count(b"[") > limits.json_depth_max and _depth(raw) > limits.json_depth_max:
        raise Refused(400, f"the JSON body is nested deeper than {limits.json_depth_max} levels")
    try:
        tree = _decode(raw.decode())
    except (ValueError, RecursionError):
        raise Refused(400, UNPARSABLE) from None
    if tree == []:  # Kong's language has one empty table for both
        return {}
    if not isinstance(tree, dict):
        raise Refused(400, "the JSON body must be an object")
    if b"\\ud" in raw.lower():
        _refuse_lone_surrogates(tree)
    return tree


def _refuse_constant(text: str) -> JsonValue:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _decode(text: str) -> JsonValue:
    tree: JsonValue = _DECODER.decode(text)
    return tree


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _refuse_lone_surrogates(tree: EntityBody) -> None:
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refused(400, UNPARSABLE) from None


def _depth(raw: bytes) -> int:
    """The deepest nesting of brackets outside of strings; only run on bodies with many brackets."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in raw:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest
