"""How the two ends of the fleet link know one another; both planes take the same words."""

from __future__ import annotations

from enum import StrEnum


class ClusterMtls(StrEnum):
    """How a node proves who it is."""

    AUTO = "auto"
    ENROLLED = "enrolled"
    SHARED = "shared"
    PKI = "pki"
    OFF = "off"
