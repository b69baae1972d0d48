"""Which version of this product runs."""

from __future__ import annotations

import importlib.metadata


def software_version() -> str:
    """The version of the installed distribution; "0" when run from a checkout that is not installed."""
    try:
        return importlib.metadata.version("pointsman")
    except importlib.metadata.PackageNotFoundError:
        return "0"
