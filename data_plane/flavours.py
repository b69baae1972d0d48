"""Kong's `router_flavor`, as far as it is there. Settings name it and the router goes by it."""

from __future__ import annotations

import enum

TRADITIONAL_COMPATIBLE = "traditional_compatible"
TRADITIONAL = "traditional"


class RouterFlavour(enum.StrEnum):
    """The documented order, or the older one by kinds and age."""

    TRADITIONAL_COMPATIBLE = TRADITIONAL_COMPATIBLE
    TRADITIONAL = TRADITIONAL
