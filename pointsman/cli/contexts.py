"""Contexts: control planes by name, each with its address, token and CA, in a file of the operator's own.

`~/.config/pointsman/contexts.toml`, or what POINTSMAN_CONTEXTS names:

    use = "prod"

    [contexts.prod]
    addr = "https://admin.example:8444"
    token = "..."
    ca = "/etc/pointsman/ca.pem"
    read_only = true

The file holds tokens, so it is written for its owner only, and not read when others could. An address that is given by
itself stands alone: a token is sent to the control plane that it was kept for and to no other.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pointsman.cli.errors import CliError, ExitCode, failure

DEFAULT_ADDRESS = "http://127.0.0.1:8001"

FILE_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """A control plane and how to speak to it. `read_only` = nothing that writes is sent to it."""

    address: str
    token: str = ""
    ca_file: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the file says. `used` is the name of the one in use; empty = none."""

    used: str = ""
    by_name: Mapping[str, Target] = field(default_factory=dict)

    def named(self, name: str) -> Target:
        """The context of this name. Raises CliError for none."""
        found = self.by_name.get(name)
        if found is None:
            raise failure(
                ExitCode.NOT_FOUND,
                f"there is no context '{name}'",
                where=str(contexts_path(os.environ)),
                remedy="see what there is with `pointsman context list`, or make it with `pointsman context set`",
            )
        return found


def contexts_path(environment: Mapping[str, str]) -> Path:
    """Where the contexts are kept."""
    if named := environment.get("POINTSMAN_CONTEXTS"):
        return Path(named)
    base = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME") or "~").expanduser() / ".config")
    return Path(base) / "pointsman" / "contexts.toml"


def read_contexts(path: Path) -> Contexts:
    """The contexts of a file; none when it is not there. Raises CliError for one that can't or must not be read."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise _unusable(path, f"can't be read: {error.strerror}", "correct its permissions") from error
    if mode & (stat.S_IRGRP | stat.S_IROTH) and b"token" in text:
        raise _unusable(path, "holds tokens and can be read by others", f"chmod 600 {path}")
    if len(text) > FILE_BYTES_MAX:
        raise _unusable(path, f"is longer than {FILE_BYTES_MAX} bytes", "move it away")
    import tomllib

    try:
        return _contexts(tomllib.loads(text.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, _Malformed) as error:
        raise _unusable(path, f"is no file of contexts: {error}", "correct it, or move it away") from error


def write_contexts(path: Path, contexts: Contexts) -> None:
    """Puts the contexts in the place of what the file held, for its owner only."""
    lines = [f"use = {json.dumps(contexts.used)}"] if contexts.used else []
    for name, target in sorted(contexts.by_name.items()):
        lines += ["", f"[contexts.{json.dumps(name)}]", f"addr = {json.dumps(target.address)}"]
        lines += [f"token = {json.dumps(target.token)}"] if target.token else []
        lines += [f"ca = {json.dumps(target.ca_file)}"] if target.ca_file else []
        lines += ["read_only = true"] if target.read_only else []
    written = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write("\n".join(lines).lstrip("\n") + "\n")
        written.replace(path)
    except OSError as error:
        written.unlink(missing_ok=True)
        raise _unusable(path, f"can't be written: {error.strerror}", "correct the permissions of its folder") from error


def chosen(given: Target, name: str, environment: Mapping[str, str]) -> Target:
    """What the command line and the environment say, else the context named, else the one in use, else the default.

    Raises CliError for a name that there is not, and for a file that can't be read.
    """
    if given.address and not name:
        return given
    contexts = read_contexts(contexts_path(environment))
    name = name or contexts.used
    context = contexts.named(name) if name else Target(DEFAULT_ADDRESS)
    if given.address and given.address != context.address:
        raise failure(
            ExitCode.USAGE,
            f"--addr and the context '{name}' name different control planes",
            where=f"{given.address} and {context.address}",
            remedy="leave one of them out",
        )
    return Target(
        context.address,
        given.token or context.token,
        given.ca_file or context.ca_file,
        given.read_only or context.read_only,
    )


class _Malformed(ValueError):
    """The file's tree is not one of contexts; the text says where."""


def _contexts(tree: Mapping[str, object]) -> Contexts:
    used = _text(tree, "use", "")
    named = tree.get("contexts", {})
    if unknown := sorted(tree.keys() - {"use", "contexts"}):
        raise _Malformed(f"'{unknown[0]}' is not known")
    if not isinstance(named, dict):
        raise _Malformed("'contexts' must be a table")
    return Contexts(used, {name: _target(name, body) for name, body in named.items()})


def _target(name: str, body: object) -> Target:
    place = f"contexts.{name}"
    if not isinstance(body, dict):
        raise _Malformed(f"'{place}' must be a table")
    if unknown := sorted(body.keys() - {"addr", "token", "ca", "read_only"}):
        raise _Malformed(f"'{place}.{unknown[0]}' is not known")
    read_only = body.get("read_only", False)
    if not isinstance(read_only, bool):
        raise _Malformed(f"'{place}.read_only' must be true or false")
    address = _text(body, "addr", place)
    if not address:
        raise _Malformed(f"'{place}.addr' is missing")
    return Target(address, _text(body, "token", place), _text(body, "ca", place), read_only)


def _text(tree: Mapping[str, object], name: str, place: str) -> str:
    value = tree.get(name, "")
    if not isinstance(value, str):
        raise _Malformed(f"'{place}{'.' if place else ''}{name}' must be a text")
    return value


def _unusable(path: Path, why: str, remedy: str) -> CliError:
    return failure(ExitCode.ERROR, f"the file {why}", where=str(path), remedy=remedy)
