"""Which version of this product runs."""

from __future__ import annotations


def software_version() -> str:
    """The version of the installed distribution; "0" when run from a checkout that is not installed."""
    import importlib.metadata  # noqa: PLC0415  # it takes long to load, and a node starts its workers before it asks

    try:
        return importlib.metadata.version("pointsman")
    except importlib.metadata.PackageNotFoundError:
        return "0"
