"""Guarded edits: entity tags, and `If-Match` / `If-None-Match` checked inside the transaction that writes.

An entity's tag is a digest of what GET shows of it, so it changes with every change that a reader could see and with
no other. A write whose `If-Match` is no longer true answers 412 with what others did in between:

    {"message": "...", "etag": "\"...\"", "complete": true,
     "changes": [{"version", "committed_at", "author", "source", "reason", "operation", "fields": [...]}, ...]}

`changes` are the entity's newest first, back to the state that the client had; `complete` is false when that state was
not found among the newest `LOOKED_AT_MAX` changes.
"""

from __future__ import annotations

import hashlib
import re

from control_plane.admin.messages import Addressed, Answer, Call, Current, Headers, Refused, encode_json
from control_plane.declarative.changes import entity_change
from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Change, Transaction, Version

LOOKED_AT_MAX = 50
"""Changes of one entity that are looked through for the state that a client had."""

_TAGS = re.compile(r'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')


def etag_of(body: JsonValue) -> str:
    """The strong entity tag of what is shown."""
    return etag_of_text(encode_json(body).encode())


def etag_of_text(text: bytes) -> str:
    """The same of what is shown as JSON text."""
    return f'"{hashlib.sha256(text).hexdigest()[:32]}"'


def is_guarded(headers: Headers) -> bool:
    """Whether a request asks for anything here."""
    return "If-Match" in headers or "If-None-Match" in headers


def not_modified(call: Call, answer: Answer) -> bool:
    """Whether the client has what a GET is about to answer."""
    tag = answer.headers.get("ETag")
    header = call.headers.get("If-None-Match")
    if tag is None or not header or answer.status != 200:
        return False
    return header.strip() == "*" or tag in (known for _, known in _tags("If-None-Match", header))


def check(tx: Transaction, headers: Headers, current: Current | None) -> None:
    """Raises Refused (412) when the entity is not, or no longer, in the state that the request is meant for."""
    wanted, unwanted = headers.get("If-Match"), headers.get("If-None-Match")
    if current is None:
        raise Refused(412, "this path has no entity tag; send the request without If-Match and If-None-Match")
    found = current(tx)
    tag = None if found is None else etag_of(found.body)
    if wanted is not None:
        if found is None:
            raise Refused(412, "there is no such entity, or no longer; nothing was changed", extra={"etag": None})
        tags = [] if wanted.strip() == "*" else [known for weak, known in _tags("If-Match", wanted) if not weak]
        if wanted.strip() != "*" and tag not in tags:
            raise _overtaken(tx, found, tags)
    if unwanted is not None and found is not None:
        if unwanted.strip() == "*":
            raise Refused(412, "the entity exists already; nothing was changed", extra={"etag": tag})
        if tag in [known for _, known in _tags("If-None-Match", unwanted)]:
            raise Refused(412, "the entity is in the state that If-None-Match excludes", extra={"etag": tag})


def _tags(name: str, header: str) -> list[tuple[bool, str]]:
    """The entity tags of a header, each with whether it is weak. Raises Refused (400)."""
    tags: list[tuple[bool, str]] = []
    position = 0
    while position < len(header):
        found = _TAGS.match(header, position)
        if found is None:
            raise Refused(400, f'{name} is no list of entity tags; write it as "tag", with the quotes')
        tags.append((found[1] is not None, found[2]))
        position = found.end()
    return tags


def _overtaken(tx: Transaction, found: Addressed, tags: list[str]) -> Refused:
    history = tx.records.of_entity(found.collection, str(found.body["id"]), size=LOOKED_AT_MAX)
    stored = history[0][1].after if history else None
    shown_beside = {name: value for name, value in found.body.items() if stored is not None and name not in stored}
    between: list[tuple[Version, Change]] = []
    complete = False
    for version, change in history:
        between.append((version, change))
        if change.before is None or etag_of({**change.before, **shown_beside}) in tags:
            complete = change.before is not None
            break
    if not complete:
        between = between[:1]  # what the client had is not known, so only the last word is sure to be news
    changes: list[JsonValue] = [_told(version, change) for version, change in between]
    message = f"the {STORED[found.collection].singular} is no longer what If-Match names; nothing was changed"
    if between:
        version, change = between[0]
        fields = ", ".join(field.field for field in entity_change(change).fields())
        message += f"; {version.origin.author or 'somebody'} changed it last, in version {version.number}"
        message += f" ({fields})" if fields else ""
    extra: EntityBody = {"etag": etag_of(found.body), "complete": complete, "changes": changes}
    return Refused(412, message, extra=extra)


def _told(version: Version, change: Change) -> EntityBody:
    told = entity_change(change)
    return {
        "version": version.number,
        "committed_at": version.committed_at,
        "author": version.origin.author,
        "source": version.origin.source,
        "reason": version.origin.reason,
        "operation": told.operation.value,
        "fields": [{"field": at.field, "before": at.before, "after": at.after} for at in told.fields()],
    }
