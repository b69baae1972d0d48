"""The last good snapshots on the node's own disk: the newest that was active, and the one with other content before it.

A node starts from here and serves with the control plane away. Nothing gets here before it was active in all workers,
and nothing leaves here unverified: a file is taken only if its checksum, its packed bytes, and the snapshot's own hash
agree. What does not is moved aside for the operator and the previous generation is used.

    magic | header length | header (an Offer) | packed snapshot | SHA-256 of all before

Calls block on the disk, so the node runs them in a thread, and one at a time. Files are readable by their owner only:
configurations will hold private keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from data_plane.node import messages
from data_plane.node.snapshot import (
    RAW_BYTES_MAX,
    NodeSnapshot,
    Offer,
    SnapshotRefused,
    check_sizes,
    pack,
    unpack,
)

MAGIC = b"pointsman last good 1\n"
HEADER_BYTES_MAX = 4096
_DIGEST_BYTES = 32
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


class BadFile(ValueError):
    """A last-good file that can't be trusted; the text says why."""


class LastGood:
    """The two generations in one folder, which belongs to one node process."""

    def __init__(self, folder: Path, *, raw_bytes_max: int = RAW_BYTES_MAX) -> None:
        self._folder = folder
        self._raw_bytes_max = raw_bytes_max

    def load(self, generation: Generation) -> Loaded:
        """A generation, if it is there and good. A bad file is moved aside; an unreadable one is left and reported."""
        path = self._folder / generation.value
        try:
            return Loaded(self._read(path), ())
        except FileNotFoundError:
            return Loaded(None, ())
        except BadFile as error:
            aside = path.with_suffix(".bad")
            try:
                os.replace(path, aside)
            except OSError as move_error:
                return Loaded(None, (f"{path}: {error}; it could not be moved aside: {move_error}",))
            return Loaded(None, (f"{path}: {error}; moved to {aside.name}",))
        except OSError as error:
            return Loaded(None, (f"{path}: {error}",))

    def save(self, snapshot: NodeSnapshot) -> None:
        """Makes `snapshot` the current generation.

        The file before it becomes the previous generation, unless it holds the same content: two copies of one
        content would be no way back. A crash at any step leaves at least one whole generation under its name.

        Raises:
            OSError: the disk did not take it; what was there is still there.
        """
        offer, packed = pack(snapshot)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        current = self._folder / Generation.CURRENT.value
        fresh = self._folder / "fresh.tmp"
        try:
            self._write(fresh, offer, packed)
            if self._content(current) not in (None, snapshot.snapshot_hash):
                os.replace(current, self._folder / Generation.PREVIOUS.value)
            os.replace(fresh, current)
        except BaseException:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        self._sync_folder()

    def _write(self, path: Path, offer: Offer, packed: bytes) -> None:
        header = messages.offer_to_wire(offer).SerializeToString(deterministic=True)
        digest = hashlib.sha256()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # left by a crash
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for part in (MAGIC, len(header).to_bytes(_LENGTH_BYTES, "big"), header, packed):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, path: Path) -> NodeSnapshot:
        with path.open("rb") as file:
            offer, start = _read_header(file.read(_START_BYTES))
            try:
                check_sizes(offer, raw_bytes_max=self._raw_bytes_max)
            except SnapshotRefused as error:
                raise BadFile(str(error)) from error
            file.seek(0)
            size = start + offer.packed_bytes + _DIGEST_BYTES
            content = file.read(size + 1)
        if len(content) != size:
            raise BadFile(f"the file has not the {size} bytes that its header says")
        if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
            raise BadFile("the file's checksum is wrong")
        try:
            return unpack(offer, content[start:-_DIGEST_BYTES], raw_bytes_max=self._raw_bytes_max)
        except SnapshotRefused as error:
            raise BadFile(str(error)) from error

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
