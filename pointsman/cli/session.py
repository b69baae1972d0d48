"""What the global options say, for the command that runs."""

from __future__ import annotations

import os
from collections.abc import Sequence

import typer

from pointsman.cli.client import AdminClient
from pointsman.cli.contexts import Target, chosen
from pointsman.cli.errors import ExitCode, failure
from pointsman.cli.output import Format, Output
from pointsman.cli.planes import MODULES

_WITH_VALUE = ("--addr", "--output", "-o", "--token", "--ca", "--context")
_FLAGS = ("--quiet", "-q", "--read-only")


class Session:
    """One run of the command line: where its control plane is, how it prints, and the connection once there is one."""

    def __init__(self, given: Target, output: Output, *, context: str = "") -> None:
        self.output = output
        self.given = given
        """What the options and the environment say; an empty address = nothing."""
        self._context = context
        self._client: AdminClient | None = None

    def client(self) -> AdminClient:
        """The connection to the control plane, one for the whole command."""
        if self._client is None:
            target = chosen(self.given, self._context, os.environ)
            self._client = AdminClient(
                target.address, token=target.token, ca_file=target.ca_file, read_only=target.read_only
            )
        return self._client

    def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.close()


def session_of(context: typer.Context) -> Session:
    """The session that the root command made."""
    session = context.find_root().obj
    assert isinstance(session, Session)
    return session


def output_format(value: str) -> Format:
    """The format named by `-o`."""
    try:
        return Format(value)
    except ValueError as error:
        known = ", ".join(Format)
        raise failure(
            ExitCode.USAGE, f"'{value}' is not an output format", where="-o", remedy=f"one of: {known}"
        ) from error


def hoist(arguments: Sequence[str]) -> list[str]:
    """The arguments with the global options in front, so that they may stand anywhere.

    `pointsman nodes -o json` is what hands type. Arguments after `--` and those of the planes are left alone.
    """
    leading: list[str] = []
    rest: list[str] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if argument == "--" or (argument in MODULES and not rest):
            rest += [argument, *pending]
            break
        if argument in _WITH_VALUE:
            leading.append(argument)
            if pending:
                leading.append(pending.pop(0))
        elif (
            argument in _FLAGS
            or argument.startswith(("--addr=", "--output=", "--token=", "--ca=", "--context="))
            or _is_short_output(argument)
        ):
            leading.append(argument)
        else:
            rest.append(argument)
    return leading + rest


def _is_short_output(argument: str) -> bool:
    return argument.startswith("-o") and argument[2:].lstrip("=") in set(Format)
