"""What both ends of the fleet link say about a snapshot: which one is meant, and why a node refused it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from typing_extensions import override

RAW_BYTES_MAX = 256 * 1024 * 1024
"""Default ceiling of a node for a snapshot after decompression."""


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """Names one snapshot. Equal hashes mean equal content; versions order within one epoch only."""

    epoch: bytes
    version: int
    snapshot_hash: bytes

    def reached(self, version: int, *, epoch: bytes) -> bool:
        """Whether this is `version` or a later one of the history `epoch`."""
        return self.epoch == epoch and self.version >= version

    @override
    def __str__(self) -> str:
        return f"version {self.version} ({self.snapshot_hash.hex()[:12] or 'no content'})"


NOTHING = SnapshotRef(b"", 0, b"")
"""What a node runs that has no configuration yet, and the head of an empty store."""


class Stage(enum.Enum):
    """How far a snapshot came on a node before it was refused, in the order of the steps; operators read the values."""

    UNKNOWN = "unknown"  # the word of a node whose later version of the software has other steps
    PULL = "pull"  # sizes, checksum, decompression
    VERIFY = "verify"  # the snapshot's hash
    DECODE = "decode"
    BUILD = "build"  # a worker could not make its tables
    ACTIVATE = "activate"


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason for a refusal, in the node's words for the operator. Never an entity's body, never a secret.

    `code` is stable (HASH_MISMATCH, TOO_LARGE, UNKNOWN_ENTITY, BAD_REGEX, DANGLING_REFERENCE ...). The entity's parts
    are empty when no single entity is at fault.
    """

    code: str
    collection: str = ""
    entity_id: str = ""
    entity_name: str = ""
    field: str = ""
    message: str = ""
