"""A network namespace of a test's own: any address may be given to its loopback, any port bound, and nothing gets out.

A program goes on inside (`continue_inside`), where it is root over the namespace and nothing else. There,
`open_loopback` and `add_addresses` make the addresses that a test's upstreams have.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

_MARK = "POINTSMAN_TEST_NAMESPACE"


class NamespaceError(RuntimeError):
    """No namespace can be had here; the text says why. In CI that is a failure, elsewhere a reason to skip."""


def inside() -> bool:
    """Tell whether this process was started by `continue_inside`."""
    return os.environ.get(_MARK) == "1"


def must_work() -> bool:
    """Tell whether a missing namespace is a failure: in CI a skipped test proves nothing."""
    return bool(os.environ.get("CI"))


def check() -> None:
    """Raise NamespaceError unless namespaces can be had."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            raise NamespaceError(f"the program {program!r} is not installed")
    done = subprocess.run([*_ENTER, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NamespaceError(f"unshare: {done.stderr.strip() or done.returncode}")


def continue_inside(arguments: Sequence[str]) -> NoReturn:
    """Become that program in a fresh namespace, with our input and output.

    This process becomes the one that holds the namespace, so whoever ends it ends all that runs inside.
    """
    check()
    sys.stdout.flush()
    os.execvpe(_ENTER[0], [*_ENTER, *arguments], {**os.environ, _MARK: "1"})


def open_loopback() -> None:
    """Bring loopback up in this namespace."""
    assert inside()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def add_addresses(addresses: Iterable[str]) -> None:
    """Give loopback these addresses; those it has already stay."""
    assert inside()
    for text in addresses:
        address = ipaddress.ip_address(text)
        if address.is_loopback:
            continue  # all of 127.0.0.0/8 and ::1 are there
        command = ["ip", "addr", "replace", f"{address}/{address.max_prefixlen}", "dev", "lo"]
        subprocess.run(command, check=True, capture_output=True)


# A namespace of processes too: when its first one ends, or `unshare` is killed, the kernel ends all others.
_ENTER = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--mount-proc", "--fork", "--kill-child")
