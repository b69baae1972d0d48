"""What became of a snapshot on this node: active everywhere, or refused and why.

The applier makes these, the session remembers them and the link tells them to the control plane. They are plain values,
so that neither the applier nor the workers' side ever sees the link's messages.
"""

from __future__ import annotations

from dataclasses import dataclass

from pointsman.snapshots import Fault, Stage

FAULTS_MAX = 32
"""Faults reported for one snapshot. A config broken in more places is understood from the first of them."""


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
