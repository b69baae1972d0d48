"""One unit of work's view of the history, the kept answers and the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from sqlalchemy import Connection
from typing_extensions import override

from control_plane.store import answers, audit, history
from control_plane.store.contract import AuditEntry, AuditRecord, Change, Dropped, KeptAnswer, Records, Version
from control_plane.store.sealing import Codec

CATCH_UP = "catch_up"
"""Under this name in a connection's `info`, a store that runs several units in one commit puts the function that gives
their versions to the units before this one. Who looks into the history must see them there."""


class SqlRecords(Records):
    """The statements are in the modules named; this is only their common door."""

    def __init__(
        self,
        connection: Connection,
        codec: Codec,
        changes: Callable[[], Sequence[Change]],
        will_write: Callable[[], None],
    ) -> None:
        self._plain = connection
        self._codec = codec
        self._changes = changes
        self._will_write = will_write

    @property
    def _connection(self) -> Connection:
        catch_up = self._plain.info.get(CATCH_UP)
        if catch_up is not None:
            catch_up()
        return self._plain

    @override
    def hold_versions(self) -> int:
        return history.lock_head(self._connection)[1]

    @override
    def epoch(self) -> bytes:
        return history.epoch(self._plain)

    @override
    def lineage(self) -> Mapping[bytes, int]:
        return history.lineage(self._plain)

    @override
    def changes(self) -> Sequence[Change]:
        return self._changes()

    @override
    def since(self, version: int) -> Iterator[Change]:
        return history.changes_between(self._connection, self._codec, version)

    @override
    def up_to(self, version: int, *, above: int) -> Iterator[Change]:
        return history.changes_between(self._connection, self._codec, above, version)

    @override
    def of_entity(self, collection: str, entity_id: str, *, size: int) -> Sequence[tuple[Version, Change]]:
        return history.of_entity(self._connection, self._codec, collection, entity_id, size=size)

    @override
    def oldest(self) -> int:
        return history.oldest(self._connection)

    @override
    def drop_below(self, version: int, *, changes_max: int) -> Dropped:
        self._will_write()
        return history.drop_below(self._connection, version, changes_max=changes_max)

    @override
    def first_at_or_after(self, committed_at: float) -> int:
        return history.first_at_or_after(self._connection, committed_at)

    @override
    def answer(self, key: str) -> KeptAnswer | None:
        return answers.find(self._plain, key)

    @override
    def keyed_digest(self, text: str) -> str:
        return self._codec.keyed_digest(text)

    @override
    def keep_answer(self, answer: KeptAnswer) -> None:
        self._will_write()
        answers.keep(self._plain, answer)

    @override
    def forget_answers(self, *, answered_before: float, count_max: int) -> None:
        self._will_write()
        answers.forget(self._plain, answered_before=answered_before, count_max=count_max)

    @override
    def audit(self, *, size: int, above: int = 0) -> Sequence[AuditRecord]:
        return audit.ascending(self._connection, size=size, above=above)

    @override
    def audit_newest(self, *, size: int, below: int | None = None) -> Sequence[AuditRecord]:
        return audit.newest(self._connection, size=size, below=below)

    @override
    def audit_head(self) -> tuple[int, str]:
        return audit.head(self._connection)

    @override
    def append_audit(self, entries: Sequence[AuditEntry]) -> None:
        self._will_write()
        audit.append(self._connection, entries)
