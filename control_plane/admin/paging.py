"""Pages of collections: their size, the token that leads to the next one, and the tag filter."""

from __future__ import annotations

import base64
import binascii
import json
import re
from urllib.parse import quote

from control_plane.admin.messages import Answer, Call, Refused, encode_json, entity_page
from control_plane.entities.errors import InvalidOffset, InvalidOptions, InvalidSize
from control_plane.entities.fields import is_uuid
from control_plane.entities.typedefs import check_tag
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import TagFilter

SIZE_DEFAULT = 100
SIZE_MAX = 1_000
TAGS_MAX = 5
OFFSET_CHARS_MAX = 2_000

_EMPTY = '{"data":[]'
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|nan|inf")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")


def page_size(call: Call) -> int:
    """`size` of the query. Raises InvalidSize."""
    text = call.argument("size")
    if text is None:
        return SIZE_DEFAULT
    if not is_number(text):
        raise InvalidSize("size must be a number")
    number = float(text)
    if not 1 <= number <= SIZE_MAX or number != int(number):
        raise InvalidSize(f"size must be an integer between 1 and {SIZE_MAX}")
    return int(number)


def is_number(text: str) -> bool:
    """Whether a query argument is a decimal number."""
    return _NUMBER.fullmatch(text.strip(" ")) is not None


def encode_offset(*key: str) -> str:
    """The token for "behind this row"."""
    text = json.dumps(list(key), ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(text.encode()).rstrip(b"=").decode()


def decode_offset(call: Call, *, parts: int = 1) -> tuple[str, ...] | None:
    """The row behind which the page begins; None = from the start. Raises InvalidOffset."""
    token = call.argument("offset")
    if token is None:
        return None
    shown = token[:OFFSET_CHARS_MAX]
    bare = token.rstrip("=")
    if not _BASE64.fullmatch(token) or len(bare) % 4 == 1 or len(token) > OFFSET_CHARS_MAX:
        raise InvalidOffset(shown, "bad base64 encoding")
    try:
        raw = base64.b64decode(bare.replace("-", "+").replace("_", "/") + "=" * (-len(bare) % 4))
        key = json.loads(raw.decode())
    except (ValueError, binascii.Error, RecursionError):
        raise InvalidOffset(shown, "bad json encoding") from None
    if not isinstance(key, list) or len(key) != parts or not all(isinstance(part, str) for part in key):
        raise InvalidOffset(shown, "bad json encoding")
    return tuple(key)


def decode_id(call: Call) -> str:
    """The id behind which the page begins; empty = from the start. Raises InvalidOffset."""
    key = decode_offset(call)
    if key is None:
        return ""
    if not is_uuid(key[0]):
        raise InvalidOffset(str(call.argument("offset")), "bad json encoding")
    return key[0].lower()


def tag_filter(call: Call) -> TagFilter | None:
    """`tags` of the query: `a,b` = all of them, `a/b` = any. Raises InvalidOptions, or Refused for too many."""
    text = call.argument("tags")
    if text is None:
        return None
    if not text:
        raise InvalidOptions({"tags": "cannot be null"})
    match_all = "/" not in text
    tags = text.split("," if match_all else "/")
    if any(not tag or check_tag(tag) is not None for tag in tags):
        raise InvalidOptions({"tags": "invalid filter syntax"})
    if len(tags) > TAGS_MAX:
        raise Refused(400, f"cannot query more than {TAGS_MAX} tags")
    return TagFilter(tuple(tags), match_all=match_all)


def page(call: Call, rows: list[JsonValue], *, offset: str | None, keep: tuple[str, ...] = ()) -> EntityBody:
    """The page object; `offset` = token of the next page, `keep` = arguments that its address repeats."""
    if offset is None:
        return entity_page(rows)
    return entity_page(rows, next_path=_next_path(call, offset, keep), offset=offset)


def page_of_texts(call: Call, texts: list[str], *, offset: str | None, keep: tuple[str, ...] = ()) -> Answer:
    """The answer with a page of entities that are JSON text already.

    Decoding and encoding a page of 1,000 again takes 30 ms of which the loop would stand for a third, and leaves so
    many objects that a collection follows.
    """
    frame = encode_json(page(call, [], offset=offset, keep=keep))
    assert frame.startswith(_EMPTY), "the page begins with its entities"
    return Answer(200, f'{{"data":[{",".join(map(_unescaped, texts))}]{frame[len(_EMPTY) :]}'.encode())


def _unescaped(text: str) -> str:
    """Text beyond ASCII as UTF-8, as everywhere else in answers."""
    return encode_json(json.loads(text)) if "\\u" in text else text


def _next_path(call: Call, offset: str, keep: tuple[str, ...]) -> str:
    address = f"{call.path.rstrip('/')}?offset={quote(offset, safe='')}"
    for name in keep:
        value = call.argument(name)
        if value is not None:
            address += f"&{name}={quote(value, safe='')}"
    return address
