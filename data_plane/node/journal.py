"""The changes since the last whole last-good file, appended as they become active.

Writing a whole configuration takes up to a second, a change microseconds: so a node that is killed right after it said
"applied" starts again with what it said. Records are deltas, each sealed, each good only on the very snapshot it starts
from; a reader goes through the files in order and takes what fits what it has. What a record makes is verified by hash.

A file is never written again once a later one exists. The whole file that replaces the changes is written beside a new
journal, and the old ones go when it is safe.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_plane.node import messages
from data_plane.node.seal import OVERHEAD_BYTES, Broken, Seal
from data_plane.node.snapshot import Delta

MAGIC = b"pointsman journal 1\n"
RECORD_BYTES_MAX = 256 * 1024 * 1024
_LENGTH_BYTES = 4
_PREFIX = "journal-"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the rest of a journal can't be used."""

    text: str


class Journal:
    """The journal files of one folder."""

    def __init__(self, folder: Path, seal: Seal) -> None:
        self._folder = folder
        self._seal = seal
        self._descriptor: int | None = None
        self.bytes = 0
        """In the file that is written now."""
        self.records = 0

    def append(self, delta: Delta) -> None:
        """Adds a change: a kill of this process can't undo that, a power cut can until `sync`. Raises OSError."""
        record = self._seal.seal(messages.delta_to_wire(delta).SerializeToString(), bound_to=MAGIC)
        if self._descriptor is None:
            self._begin()
        assert self._descriptor is not None, "just opened"
        data = len(record).to_bytes(_LENGTH_BYTES, "big") + record
        try:
            if os.write(self._descriptor, data) != len(data):
                raise OSError(28, "No space left on device")
        except OSError:
            self.rotate()  # what follows half a record is not read
            raise
        self.bytes += len(data)
        self.records += 1

    def sync(self) -> None:
        """Makes what was added survive a power cut. Raises OSError."""
        if self._descriptor is not None:
            descriptor = os.dup(self._descriptor)  # the file may be closed meanwhile
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

    def rotate(self) -> int:
        """Ends the present file; returns the number up to which files are now complete."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self.bytes = self.records = 0
        return max(self._numbers(), default=0)

    def drop(self, upto: int) -> None:
        """Removes the files up to a number: a whole file has it all. Raises OSError."""
        for number in self._numbers():
            if number <= upto:
                self._path(number).unlink(missing_ok=True)

    def read(self) -> Iterator[Delta | Problem]:
        """All changes in the order they were made; a problem ends its file, not the reading."""
        for number in sorted(self._numbers()):
            path = self._path(number)
            try:
                yield from self._read(path)
            except OSError as error:
                yield Problem(f"{path}: {error}")

    def _read(self, path: Path) -> Iterator[Delta | Problem]:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                yield Problem(f"{path}: it is not a journal of this version")
                return
            while length := file.read(_LENGTH_BYTES):
                size = int.from_bytes(length, "big")
                if len(length) < _LENGTH_BYTES or not OVERHEAD_BYTES <= size <= RECORD_BYTES_MAX:
                    yield Problem(f"{path}: a record is cut or has no sensible length")
                    return
                record = file.read(size)
                try:
                    if len(record) < size:
                        raise Broken("it is cut")
                    yield messages.parse_delta(self._seal.open(record, bound_to=MAGIC))
                except (Broken, messages.BadMessage) as error:
                    yield Problem(f"{path}: a record can't be used: {error}")
                    return

    def _begin(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = max(self._numbers(), default=0) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor = os.open(self._path(number), flags, 0o600)
        os.write(self._descriptor, MAGIC)

    def _path(self, number: int) -> Path:
        return self._folder / f"{_PREFIX}{number:08d}"

    def _numbers(self) -> list[int]:
        return [
            int(path.name[len(_PREFIX) :])
            for path in self._folder.glob(f"{_PREFIX}*")
            if path.name[len(_PREFIX) :].isdigit()
        ]
