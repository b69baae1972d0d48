"""The last good snapshots on the node's own disk: the newest that was active, and the one with other content before it.

A node starts from here and serves with the control plane away. Nothing gets here before it was active in all workers,
and nothing leaves here unverified: a file is taken only if its seal, its packed bytes, and the snapshot's own hash
agree. What does not is moved aside for the operator and the previous generation is used.

    magic | header length | header (an Offer) | packed snapshot, sealed with the header

Beside the files is the journal of what changed since (`journal.py`); the newest generation is the file with the journal
gone through. Calls block on the disk, so the node runs them in a thread, and one at a time. Files are readable by their
owner only and sealed with the node's key (`seal.py`): configurations hold private keys.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from data_plane.node import messages
from data_plane.node.journal import Journal, Problem
from data_plane.node.seal import OVERHEAD_BYTES, Broken, Seal
from data_plane.node.snapshot import (
    NodeSnapshot,
    Offer,
    SnapshotRefused,
    apply_delta,
    check_sizes,
    delta_changes,
    pack,
    unfolded,
    verified,
)
from pointsman.rules.snapshot_hash import Key
from pointsman.snapshots import RAW_BYTES_MAX, SnapshotRef

MAGIC = b"pointsman last good 2\n"
HEADER_BYTES_MAX = 4096
_LENGTH_BYTES = 4
_START_BYTES = len(MAGIC) + _LENGTH_BYTES + HEADER_BYTES_MAX


class Generation(StrEnum):
    """Which of the two files; the values are their names."""

    CURRENT = "current.snapshot"
    PREVIOUS = "previous.snapshot"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of looking for a generation: at most one snapshot, and in words what was wrong with its file."""

    snapshot: NodeSnapshot | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a generation leads to if it is good: unsealed and unpacked, the snapshot's hash not yet looked at.

    `bodies` are the file's entities; `changes` follow on them, in order: what is put in and what is taken out.
    """

    ref: SnapshotRef
    bodies: Sequence[bytes]
    changes: tuple[tuple[Sequence[bytes], Sequence[Key]], ...] = ()


class BadFile(ValueError):
    """A last-good file that can't be trusted; the text says why."""


class LastGood:
    """The two generations in one folder, which belongs to one node process."""

    def __init__(self, folder: Path, *, raw_bytes_max: int = RAW_BYTES_MAX) -> None:
        self._folder = folder
        self._raw_bytes_max = raw_bytes_max
        self._seal = Seal(folder)
        self.journal = Journal(folder, self._seal)

    @property
    def folder(self) -> Path:
        return self._folder

    def load(self, generation: Generation, *, ahead: Callable[[Ahead], object] | None = None) -> Loaded:
        """A generation, if it is there and good. A bad file is moved aside; an unreadable one is left and reported.

        `ahead` is told, in this thread, what the current generation will be if it is good. To verify 100,000 entities
        takes half a second, in which workers can be building already; nothing of it may serve before this returns.

        The previous generation is the newest content before the current one's: of the journal where that has one,
        else of the file before.
        """
        problems: list[str] = []
        if generation is Generation.CURRENT:
            return Loaded(*self._newest_two(Generation.CURRENT, problems, ahead)[:1], tuple(problems))
        # The journal goes on from the current file; where that is lost, what it says of the one before still holds.
        _, before = self._newest_two(Generation.CURRENT, problems)
        if before is None:
            problems.clear()
            before, _ = self._newest_two(Generation.PREVIOUS, problems)
        return Loaded(before, tuple(problems))

    def save(self, snapshot: NodeSnapshot, *, packed: tuple[Offer, bytes] | None = None) -> None:
        """Makes `snapshot` the current generation, whole; `packed` are its bytes where they are at hand.

        Raises:
            OSError: the disk did not take it; what was there is still there.
        """
        upto = self.journal.rotate()
        self.commit(self.stage(snapshot, packed, name="pulled.tmp"), snapshot.snapshot_hash, upto=upto)

    def stage(
        self, snapshot: NodeSnapshot, packed: tuple[Offer, bytes] | None = None, *, name: str = "fresh.tmp"
    ) -> Path:
        """Writes `snapshot` beside the generations. Raises OSError."""
        offer, data = packed if packed is not None else pack(snapshot)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._folder / name
        try:
            self._write(fresh, offer, data)
        except BaseException:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        return fresh

    def commit(self, fresh: Path, snapshot_hash: bytes, *, upto: int) -> None:
        """Makes what was staged the current generation; the journal up to `upto` is in it.

        The file before it becomes the previous generation, unless it holds the same content: two copies of one
        content would be no way back. A crash at any step leaves a whole current generation under its name.

        Raises:
            OSError: the disk did not take it; what was there is still there.
        """
        current = self._folder / Generation.CURRENT.value
        if self._content(current) not in (None, snapshot_hash):
            second = self._folder / "second.tmp"
            second.unlink(missing_ok=True)
            os.link(current, second)
            os.replace(second, self._folder / Generation.PREVIOUS.value)
        os.replace(fresh, current)
        self._sync_folder()
        self.journal.drop(upto)

    def _newest_two(
        self, generation: Generation, problems: list[str], ahead: Callable[[Ahead], object] | None = None
    ) -> tuple[NodeSnapshot | None, NodeSnapshot | None]:
        """What the file and the journal lead to, and the newest before that with other content."""
        newest = self._file(generation, problems, ahead)
        before: NodeSnapshot | None = None
        if newest is None:
            return None, None
        for change in self.journal.read():
            if isinstance(change, Problem):
                problems.append(change.text)
            elif change.base == newest.ref:
                try:
                    after = apply_delta(change, newest, raw_bytes_max=self._raw_bytes_max)
                except SnapshotRefused as error:
                    problems.append(f"the journal's change to {change.ref} can't be used: {error}")
                    continue
                if after.snapshot_hash != newest.snapshot_hash:
                    before = newest
                newest = after
        return newest, before

    def _file(
        self, generation: Generation, problems: list[str], ahead: Callable[[Ahead], object] | None
    ) -> NodeSnapshot | None:
        path = self._folder / generation.value
        try:
            return self._read(path, ahead)
        except FileNotFoundError:
            return None
        except BadFile as error:
            aside = path.with_suffix(".bad")
            try:
                os.replace(path, aside)
                problems.append(f"{path}: {error}; moved to {aside.name}")
            except OSError as move_error:
                problems.append(f"{path}: {error}; it could not be moved aside: {move_error}")
        except OSError as error:
            problems.append(f"{path}: {error}")
        return None

    def _write(self, path: Path, offer: Offer, packed: bytes) -> None:
        header = messages.offer_to_wire(offer).SerializeToString(deterministic=True)
        start = MAGIC + len(header).to_bytes(_LENGTH_BYTES, "big") + header
        sealed = self._seal.seal(packed, bound_to=start)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # left by a crash
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(start)
            file.write(sealed)
            file.flush()
            os.fsync(file.fileno())

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, path: Path, ahead: Callable[[Ahead], object] | None) -> NodeSnapshot:
        with path.open("rb") as file:
            offer, start = _read_header(file.read(_START_BYTES))
            try:
                check_sizes(offer, raw_bytes_max=self._raw_bytes_max)
            except SnapshotRefused as error:
                raise BadFile(str(error)) from error
            file.seek(0)
            size = start + offer.packed_bytes + OVERHEAD_BYTES
            content = file.read(size + 1)
        if len(content) != size:
            raise BadFile(f"the file has not the {size} bytes that its header says")
        try:
            packed = self._seal.open(content[start:], bound_to=content[:start])
        except Broken as error:
            raise BadFile(f"the file can't be opened: {error}") from error
        try:
            bodies = unfolded(offer, packed, raw_bytes_max=self._raw_bytes_max)
            if ahead is not None:
                ahead(self._ahead(offer.ref, bodies))
            return verified(offer, bodies)
        except SnapshotRefused as error:
            raise BadFile(str(error)) from error

    def _ahead(self, ref: SnapshotRef, bodies: Sequence[bytes]) -> Ahead:
        """Where the journal leads from a file's content: which of its changes fit is seen by what they start from."""
        changes: list[tuple[Sequence[bytes], Sequence[Key]]] = []
        for change in self.journal.read():
            if isinstance(change, Problem) or change.base != ref:
                continue
            with contextlib.suppress(SnapshotRefused):  # reported when it is verified
                changes.append(delta_changes(change, raw_bytes_max=self._raw_bytes_max))
                ref = change.ref
        return Ahead(ref, bodies, tuple(changes))

    def _content(self, path: Path) -> bytes | None:
        """The content hash that a file claims; None if there is no file or its header makes no sense."""
        try:
            with path.open("rb") as file:
                offer, _ = _read_header(file.read(_START_BYTES))
        except (FileNotFoundError, BadFile):
            return None
        return offer.ref.snapshot_hash


def _read_header(start: bytes) -> tuple[Offer, int]:
    """The header, and where what it describes begins."""
    if not start.startswith(MAGIC):
        raise BadFile("it is not a last-good file of this version" if start else "the file is empty")
    at = len(MAGIC) + _LENGTH_BYTES
    length = int.from_bytes(start[len(MAGIC) : at], "big")
    if not 0 < length <= HEADER_BYTES_MAX or len(start) < at + length:
        raise BadFile("the file's header is cut or has no sensible length")
    try:
        return messages.parse_offer(start[at : at + length]), at + length
    except messages.BadMessage as error:
        raise BadFile(f"the file's header makes no sense: {error}") from error
