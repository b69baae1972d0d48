"""`Idempotency-Key`: a request that is sent again gets the answer of the first time and does nothing more.

The answer is kept in the transaction of the write, so there is no moment at which one of the two is there without the
other, and it is known to every control plane over the same database. Only what was done is kept: a refused request
changed nothing and may be sent again. Secrets are not kept but where they are in the store: their places in the answer
are noted, and filled from the entity when the answer is given again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

from control_plane.admin.messages import Call, Refused, encode_json
from control_plane.entities.registry import STORED
from control_plane.entities.schema import REDACTED
from control_plane.entities.types import JsonValue
from control_plane.store.contract import Change, KeptAnswer, Transaction
from control_plane.store.retention import ANSWERS_KEPT_MAX, ANSWERS_KEPT_S

KEY_CHARS_MAX = 255
ANSWER_BYTES_MAX = 1 << 20

Place = tuple[str | int, ...]


def request_key(call: Call) -> str:
    """The key of a request; empty = none. Raises Refused (400)."""
    key = call.headers.get("Idempotency-Key")
    if key is None:
        return ""
    if not 1 <= len(key) <= KEY_CHARS_MAX or not key.isascii() or not key.isprintable():
        raise Refused(
            400, f"Idempotency-Key must be 1 to {KEY_CHARS_MAX} printable ASCII characters, a UUID for example"
        )
    return key


def fingerprint(call: Call, author: str) -> str:
    """What makes two requests the same. Not to be kept as it is: a body may be a password and little more."""
    digest = hashlib.sha256()
    for part in (call.method, call.path, call.query_text, author, ",".join(call.content_types)):
        digest.update(part.encode(errors="backslashreplace") + b"\0")
    digest.update(call.received)
    return digest.hexdigest()


def kept_answer(tx: Transaction, key: str, print_: str, *, now: float) -> tuple[int, JsonValue, int | None] | None:
    """Status, body and version of the earlier answer; None for a new request. Raises Refused (409)."""
    tx.records.forget_answers(answered_before=now - ANSWERS_KEPT_S, count_max=ANSWERS_KEPT_MAX - 1)
    kept = tx.records.answer(key)
    if kept is None:
        return None
    if kept.fingerprint != tx.records.keyed_digest(print_):
        raise Refused(
            409,
            "this Idempotency-Key was used for another request (path, body or author differ); nothing was changed; "
            "use a new key for a new request",
        )
    if not kept.body:
        return kept.status, None, kept.version
    told = json.loads(kept.body)
    body: JsonValue = told["answer"]
    for place, *where in told["secrets"]:
        collection, entity_id, field = map(str, where)
        held = tx.get(collection, entity_id)
        _put(body, place, held.get(field) if held is not None else REDACTED)
    return kept.status, body, kept.version


def keep(tx: Transaction, key: str, print_: str, status: int, body: JsonValue, *, now: float) -> None:
    """Keeps an answer. Raises Refused (413) for one that is too large, and so undoes the write."""
    text = ""
    if body is not None:
        secrets = _secrets(tx.records.changes())
        found = [(place, secrets[value]) for place, value in _texts(body, ()) if value in secrets]
        copy: JsonValue = json.loads(encode_json(body))
        for place, _ in found:
            _put(copy, place, REDACTED)
        text = json.dumps({"answer": copy, "secrets": [[list(place), *where] for place, where in found]})
        if len(text) > ANSWER_BYTES_MAX:
            raise Refused(413, f"the answer is larger than {ANSWER_BYTES_MAX} bytes; send it without Idempotency-Key")
    tx.records.keep_answer(KeptAnswer(key, tx.records.keyed_digest(print_), now, status, text))


def _secrets(changes: Sequence[Change]) -> dict[str, tuple[str, str, str]]:
    """The secrets of what was changed, by value."""
    found: dict[str, tuple[str, str, str]] = {}
    for change in changes:
        schema = STORED.get(change.collection)
        for field in schema.secrets if schema is not None else ():
            for body in (change.before, change.after):
                value = body.get(field) if body is not None else None
                if isinstance(value, str):
                    found[value] = (change.collection, change.id, field)
    return found


def _texts(tree: JsonValue, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(tree, str):
        yield place, tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield from _texts(value, (*place, name))
    elif isinstance(tree, list):
        for position, value in enumerate(tree):
            yield from _texts(value, (*place, position))


def _put(tree: JsonValue, place: Sequence[str | int], value: JsonValue) -> None:
    *way, last = place
    for step in way:
        tree = _below(tree, step)
    if isinstance(tree, dict):
        tree[str(last)] = value
    elif isinstance(tree, list):
        tree[int(last)] = value


def _below(tree: JsonValue, step: str | int) -> JsonValue:
    if isinstance(tree, dict):
        return tree[str(step)]
    assert isinstance(tree, list), "places are made from the same tree"
    return tree[int(step)]
