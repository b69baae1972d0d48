"""Starting the two planes. The command line hands its process over: it imports neither of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

MODULES = {"control-plane": "control_plane", "data-plane": "data_plane"}
DATABASES = "control_plane.databases"
DATABASE_COMMANDS = ("db", "backup", "restore")
"""They work on the database itself, with the control plane's own code and settings."""


def control_plane(context: typer.Context) -> None:
    """Run the control plane. Its own options: control-plane --help."""
    become("control-plane", context.args)


def data_plane(context: typer.Context) -> None:
    """Run one data-plane node. Its own options: data-plane --help."""
    become("data-plane", context.args)


def databases(_context: typer.Context) -> None:
    """Only for the help page: `main` hands these commands over before it parses anything."""
    raise AssertionError("handed over before")


def become(command: str, arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by the plane of that command; all arguments are its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    module = MODULES.get(command, DATABASES)
    if command in DATABASE_COMMANDS:
        arguments = [command, *arguments]
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - our own interpreter, no shell
