"""A control plane in a network namespace of its own, so that the kernel itself loses what is sent over one link.

    healthy nodes, Admin API ---- a pair of interfaces ----.
                                                            control plane
    the victim -------------- another pair of interfaces --'

A direction goes dead when the neighbour's hardware address is made a wrong one: packets leave, and nobody takes them.
Nothing is told to either end, as with a cable that is cut beyond the next switch. `ip` is enough for that; it needs
root, and where that is missing, `fault_proxy.py` is what tests break links with.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import override

from tests.support.processes import ControlPlane

_NOBODY = "02:00:00:00:00:01"
"""A locally administered address that no interface has."""
_numbers = itertools.count()


def why_not() -> str | None:
    """Why no such namespace can be had here; None = it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the program 'ip' is not installed"
    name = f"pm-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"ip netns add: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True, capture_output=True)
    return None


class SplitNetwork:
    """A namespace with two links to it; the addresses are of the range for such tests (RFC 2544), a block a network.

    `well` and `sick` are the control plane's addresses on the one that stays and on the one that breaks.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        self.name = f"pm{os.getpid()}n{number}"
        first = (os.getpid() * 16 + number % 16) * 8 % 2**16  # blocks of eight in 198.18.0.0/16
        self._addresses = [f"198.18.{(first + host) >> 8}.{(first + host) & 255}" for host in (1, 2, 5, 6)]
        self._links = [(f"{self.name}{kind}0", f"{self.name}{kind}1") for kind in "ab"]

    @property
    def well(self) -> str:
        return self._addresses[1]

    @property
    def sick(self) -> str:
        return self._addresses[3]

    def make(self) -> None:
        _ip("netns", "add", self.name)
        self._inside("link", "set", "lo", "up")
        for (here, there), at in zip(self._links, (0, 2), strict=True):
            _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self.name)
            _ip("addr", "add", f"{self._addresses[at]}/30", "dev", here)
            self._inside("addr", "add", f"{self._addresses[at + 1]}/30", "dev", there)
            _ip("link", "set", here, "up")
            self._inside("link", "set", there, "up")

    def remove(self) -> None:
        """The interfaces go with the namespace, once the processes in it have ended."""
        for here, _ in self._links:
            subprocess.run(["ip", "link", "del", here], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)

    def lose(self, *, to_plane: bool, to_node: bool) -> None:
        """From now on what is sent over the sick link in these directions is lost."""
        here, there = self._links[1]
        if to_plane:
            _ip("neigh", "replace", self._addresses[3], "lladdr", _NOBODY, "dev", here, "nud", "permanent")
        if to_node:
            self._inside("neigh", "replace", self._addresses[2], "lladdr", _NOBODY, "dev", there, "nud", "permanent")

    def down(self) -> None:
        """Takes the sick link's interface down: both ends' kernels know that there is no way any more."""
        _ip("link", "set", self._links[1][0], "down")

    def heal(self) -> None:
        """Ends whatever is wrong with the sick link."""
        here, there = self._links[1]
        _ip("link", "set", here, "up")
        for run, address, interface in ((_ip, self._addresses[3], here), (self._inside, self._addresses[2], there)):
            with contextlib.suppress(subprocess.CalledProcessError):  # it was not made a wrong one
                run("neigh", "del", address, "dev", interface)

    def _inside(self, *arguments: str) -> None:
        _ip("-n", self.name, *arguments)


@contextlib.contextmanager
def split_network() -> Iterator[SplitNetwork]:
    network = SplitNetwork()
    try:
        network.make()
        yield network
    finally:
        network.remove()


class FarControlPlane(ControlPlane):
    """A control plane inside of a `SplitNetwork`; `admin` and `fleet` are its addresses on the link that stays well."""

    def __init__(self, folder: Path, network: SplitNetwork, *extra: str) -> None:
        super().__init__(folder, *extra, "--insecure-admin", "--insecure-fleet")
        self.arguments[:0] = ["ip", "netns", "exec", network.name]
        self.admin = self.fleet = "0.0.0.0:0"
        self._network = network

    @override
    async def up(self) -> None:
        self.admin, self.fleet = f"0.0.0.0:{_port(self.admin)}", f"0.0.0.0:{_port(self.fleet)}"
        await super().up()
        self.admin, self.fleet = f"{self._network.well}:{_port(self.admin)}", f"{self._network.well}:{self.port}"

    @property
    def port(self) -> str:
        """Of the fleet link."""
        return _port(self.fleet)


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
