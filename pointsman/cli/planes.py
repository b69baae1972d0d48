"""Starting the two planes. The command line hands its process over: it imports neither of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

MODULES = {"control-plane": "control_plane", "data-plane": "data_plane"}


def control_plane(context: typer.Context) -> None:
    """Run the control plane. Its own options: control-plane --help."""
    become("control-plane", context.args)


def data_plane(context: typer.Context) -> None:
    """Run one data-plane node. Its own options: data-plane --help."""
    become("data-plane", context.args)


def become(command: str, arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by the plane of that command; all arguments are its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    module = MODULES[command]
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - our own interpreter, no shell
