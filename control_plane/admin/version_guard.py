"""Guarded files and rollbacks: `If-Match: "version-17-1f2e3d4c"` on what writes the configuration as a whole.

Two jobs that each sync a file would undo one another's work, the later one in silence. One that says which version its
file was compared with is refused (412) when others have written since, with what they did; `GET /versions` has who and
why:

    {"message": "...", "etag": "\"version-19-1f2e3d4c\"", "complete": true,
     "changes": [{"operation", "entity_type", "id", "name", "parent", "fields": [...]}, ...]}

With select tags only changes of entities that carry all of them count: teams that share a gateway by tags don't stop
one another. `changes` are newest first; `complete` is false when there are more than are told.

Behind the version stands which history it is of, the first digits of the epoch: after a restore the number may name
something else. A tag without it, as people write, is taken to be of this history.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from control_plane.admin.messages import Headers, Refused
from control_plane.admin.operations import Parameter
from control_plane.declarative.changes import entity_change
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Change, Transaction

TOLD_MAX = 20
"""Changes that a refusal tells of."""

EXPECTED_VERSION = Parameter(
    name="If-Match",
    schema={"type": "string", "pattern": '^([*]|"version-[0-9]+(-[0-9a-f]{8})?")$'},
    description="The `ETag` of the dump or diff that the write stands on; 412 with what others did since.",
    where="header",
)

_TAG = re.compile(r'\s*"version-([0-9]{1,18})(?:-([0-9a-f]{8}))?"\s*\Z')


def position(version: int, epoch: bytes) -> str:
    """A version and the history that it is of, as operators pass it on."""
    return f"{version}-{_short(epoch)}"


def version_tag(version: int, epoch: bytes) -> str:
    """The entity tag of the whole configuration at a version."""
    return f'"version-{position(version, epoch)}"'


def _short(epoch: bytes) -> str:
    return epoch.hex()[:8]


def version_guard(headers: Headers, *, tags: Sequence[str] = ()) -> Callable[[Transaction], None]:
    """The check that `If-Match` asks for, to be run in the transaction that writes.

    Raises Refused (400) for a tag that is none of a version.
    """
    if "If-None-Match" in headers:
        raise Refused(412, "a version can't be excluded; send the request without If-None-Match")
    wanted = headers.get("If-Match")
    if wanted is None or wanted.strip() == "*":
        return _nothing
    found = _TAG.match(wanted)
    if found is None:
        raise Refused(400, 'If-Match must be the version that the file was compared with, as "version-17" in quotes')
    expected, history = int(found[1]), found[2]

    def check(tx: Transaction) -> None:
        head, epoch = tx.records.hold_versions(), tx.records.epoch()
        if history is not None and not _goes_on_from(tx, history, expected):
            raise Refused(
                412,
                f"version {expected} is of another history: the database was put back to a backup since; nothing was "
                f"changed; compare with version {head} instead",
                extra={"etag": version_tag(head, epoch), "complete": False, "changes": []},
            )
        if head == expected:
            return
        if head < expected:
            raise Refused(
                412,
                f"there is no version {expected} yet, the newest is {head}; nothing was changed",
                extra={"etag": version_tag(head, epoch), "complete": True, "changes": []},
            )
        if expected < tx.records.oldest() - 1:
            raise Refused(
                412,
                f"what happened since version {expected} is no longer kept; compare with version {head} instead",
                extra={"etag": version_tag(head, epoch), "complete": False, "changes": []},
            )
        others = [change for change in tx.records.since(expected) if _concerns(change, tags)]
        if others:
            raise _overtaken(expected, head, epoch, others)

    return check


def _goes_on_from(tx: Transaction, history: str, version: int) -> bool:
    """Whether this history is that one, or has gone on from it behind that version."""
    if history == _short(tx.records.epoch()):
        return True
    return any(_short(epoch) == history and version <= up_to for epoch, up_to in tx.records.lineage().items())


def _nothing(_tx: Transaction) -> None:
    """Nothing was asked for: the write does not mind what others did."""


def _concerns(change: Change, tags: Sequence[str]) -> bool:
    """Whether a file may write what was changed. Our own settings beside the entities are not a sync's to undo."""
    if change.collection not in SCHEMAS:
        return False
    if not tags:
        return True
    for body in (change.before, change.after):
        carried = (body or {}).get("tags")
        if isinstance(carried, list) and set(tags) <= {tag for tag in carried if isinstance(tag, str)}:
            return True
    return False


def _overtaken(expected: int, head: int, epoch: bytes, others: Sequence[Change]) -> Refused:
    newest = others[::-1][:TOLD_MAX]
    told: list[JsonValue] = [_told(change) for change in newest]
    extra: EntityBody = {"etag": version_tag(head, epoch), "complete": len(others) <= TOLD_MAX, "changes": told}
    last = entity_change(newest[0])
    return Refused(
        412,
        f"others have written since version {expected}: {len(others)} changes up to version {head}, the last one of "
        f"{last.entity_type} '{last.name or last.id}'; nothing was changed; compare with version {head} and try again",
        extra=extra,
    )


def _told(change: Change) -> EntityBody:
    return entity_change(change).to_json()
