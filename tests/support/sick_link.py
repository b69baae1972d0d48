"""The link of one node to its control plane, which a test can break: by the kernel where it may, else by a proxy.

Both break it in the same ways. What the kernel loses neither end's TCP knows anything of; a proxy holds it back between
two connections that are well.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from tests.support.fault_proxy import FaultProxy
from tests.support.processes import ControlPlane
from tests.support.split_network import FarControlPlane, SplitNetwork, split_network, why_not

BEATS = ("--beat-interval-s", "1")
"""A second apart, so that a dead link is found within three."""


class SickLink(Protocol):
    """A control plane and the way of one node to it. Nodes need `node_flags` to go there."""

    control_plane: ControlPlane
    node_flags: tuple[str, ...]

    def address(self) -> str:
        """Where the node dials; once the control plane is up."""

    def cut(self) -> None:
        """Ends it, and lets both ends know."""

    def lose(self, *, to_plane: bool, to_node: bool) -> None:
        """From now on nothing arrives in these directions, and nobody is told."""

    def mend(self) -> None:
        """Ends whatever is wrong with it."""


class ProxyLink:
    """Through a `FaultProxy`."""

    node_flags: tuple[str, ...] = ()

    def __init__(self, folder: Path, proxy: FaultProxy) -> None:
        self.control_plane = ControlPlane(folder, *BEATS)
        self._proxy = proxy

    def address(self) -> str:
        self._proxy.target_port = int(self.control_plane.fleet.rsplit(":", 1)[1])
        return self._proxy.address

    def cut(self) -> None:
        self._proxy.refuse = True
        self._proxy.cut()

    def lose(self, *, to_plane: bool, to_node: bool) -> None:
        for wanted, to_client in ((to_node, True), (to_plane, False)):
            if wanted:
                self._proxy.stall_one_way(to_client=to_client)

    def mend(self) -> None:
        self._proxy.refuse = False
        self._proxy.resume()


class NetworkLink:
    """Over an interface of a `SplitNetwork`."""

    node_flags: tuple[str, ...] = ("--insecure-fleet",)

    def __init__(self, folder: Path, network: SplitNetwork) -> None:
        self._far = FarControlPlane(folder, network, *BEATS)
        self.control_plane: ControlPlane = self._far
        self._network = network

    def address(self) -> str:
        return f"{self._network.sick}:{self._far.port}"

    def cut(self) -> None:
        self._network.down()

    def lose(self, *, to_plane: bool, to_node: bool) -> None:
        self._network.lose(to_plane=to_plane, to_node=to_node)

    def mend(self) -> None:
        self._network.heal()


@contextlib.asynccontextmanager
async def sick_link(folder: Path, *, by_kernel: bool | None = None) -> AsyncIterator[SickLink]:
    """A link that can be broken; None = by the kernel if it can be."""
    if why_not() is None if by_kernel is None else by_kernel:
        with split_network() as network:
            yield NetworkLink(folder, network)
    else:
        async with FaultProxy() as proxy:
            yield ProxyLink(folder, proxy)
