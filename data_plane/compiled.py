"""Which build of the hot path runs: compiled ahead of time, or the same sources as they are.

`setup.py` has Cython compile `MODULES`, each with the `.pxd` beside it that gives its classes their C fields, and then
notes of what (`STAMP`). The products lie beside their sources, where the import system would prefer them. But compiled
classes know each other's layout, and a product of yesterday's source would hide today's: so unless all is there and of
the very sources that are there now, the sources run. They behave the same and cost more CPU.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

MODULES = (
    "data_plane.balancer.endpoint",
    "data_plane.balancer.round_robin",
    "data_plane.balancer.upstream",
    "data_plane.observe.counters",
    "data_plane.observe.side_counts",
    "data_plane.observe.traffic",
    "data_plane.proxy.client",
    "data_plane.proxy.connection",
    "data_plane.proxy.exchange",
    "data_plane.proxy.forwarding",
    "data_plane.proxy.head",
    "data_plane.proxy.pool",
    "data_plane.proxy.response_head",
    "data_plane.proxy.shared",
    "data_plane.proxy.tables",
    "data_plane.proxy.upstream",
)

SWITCH = "POINTSMAN_COMPILED"
"""In the environment: 0 = the sources, though there are products of them."""
STAMP = "compiled.stamp"
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
"""Of products for this interpreter."""

COMPILED = "compiled"
PLAIN = "plain"
STALE = "plain: compiled from other sources, `make setup` compiles them anew"

_HERE = Path(__file__).parent


class _Sources:
    """Finds the sources of `MODULES`, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MODULES:
            return None
        return importlib.util.spec_from_file_location(fullname, source_of(_HERE.parent, fullname))


def source_of(root: Path, module: str) -> Path:
    """Where a module's source lies; `root` is the folder of the packages."""
    return root.joinpath(*module.split(".")).with_suffix(".py")


def stamp_of(root: Path) -> str:
    """What the stamp of products for this interpreter and of the sources below `root` says."""
    read = 0
    for module in MODULES:
        source = source_of(root, module)
        read = zlib.crc32(source.read_bytes(), read)
        read = zlib.crc32(source.with_suffix(".pxd").read_bytes(), read)
    return f"{SUFFIX} {read:08x}\n"


def choose() -> str:
    """Decide for this process, before any of `MODULES` is imported; returns which build runs."""
    try:
        stamp = (_HERE / STAMP).read_text()
    except OSError:
        stamp = ""
    if not stamp.startswith(SUFFIX + " ") or os.environ.get(SWITCH) == "0":
        build = PLAIN
    else:
        build = COMPILED if stamp == stamp_of(_HERE.parent) else STALE
    if build != COMPILED:
        sys.meta_path.insert(0, _Sources())
    return build
