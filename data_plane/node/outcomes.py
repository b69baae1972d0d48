"""What became of a snapshot on this node: active everywhere, or refused and why.

The applier makes these, the session remembers them and the link tells them to the control plane. They are plain values,
so that neither the applier nor the workers' side ever sees the link's messages.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

FAULTS_MAX = 32
"""Faults reported for one snapshot. A config broken in more places is understood from the first of them."""


class Stage(enum.Enum):
    """How far a snapshot came before it was refused, in the order of the steps."""

    PULL = "pull"  # sizes, checksum, decompression
    VERIFY = "verify"  # the snapshot's hash
    DECODE = "decode"
    BUILD = "build"  # a worker could not make its tables
    ACTIVATE = "activate"


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason for a refusal, in words for the operator. Never an entity's body, never a secret.

    `code` is stable (HASH_MISMATCH, TOO_LARGE, UNKNOWN_ENTITY, BAD_REGEX, DANGLING_REFERENCE ...). The entity's parts
    are empty when no single entity is at fault.
    """

    code: str
    collection: str = ""
    entity_id: str = ""
    entity_name: str = ""
    field: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """The snapshot is active in all workers, `took_s` seconds after it was handed over."""

    took_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The snapshot is not active anywhere; the one before it still serves."""

    stage: Stage
    faults: tuple[Fault, ...]


ApplyOutcome = Applied | Refused
