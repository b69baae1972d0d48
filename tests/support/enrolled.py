"""Control planes and nodes that speak mutual TLS with certificates of the cluster's own CA."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
from typing_extensions import override

from data_plane.node.membership import FILE
from tests.support.processes import ControlPlane, Fleet, Node

ENROLLED = ("--cluster-mtls=enrolled", "--beat-interval-s=0.3")


class Plane(ControlPlane):
    """A control plane that also says where nodes enrol."""

    enroll = "127.0.0.1:0"

    @override
    async def up(self) -> None:
        self.environment["POINTSMAN_ENROLL_LISTEN"] = self.enroll
        await super().up()
        ports = json.loads((self.folder / f"{self.name}.ports").read_text())
        self.enroll = ports.get("enroll", "")

    async def token(self, *, uses: int = 1, labels: Mapping[str, str] | None = None) -> str:
        """A join token's text."""
        body = {"uses": uses, "labels": dict(labels or {})}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/fleet/join-tokens", json=body) as answer,
        ):
            assert answer.status == 201, await answer.text()
            return str((await answer.json())["token"])

    async def nodes(self) -> dict[str, dict[str, object]]:
        """What `/fleet/nodes` says, by id."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/fleet/nodes") as answer:
            return {node["node_id"]: node for node in (await answer.json())["data"]}

    async def ca_settled(self) -> bool:
        """Whether no rotation of the CA is under way."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/fleet/ca") as answer:
            return bool((await answer.json())["state"] == "settled")

    async def refusals(self) -> str:
        """The lines of the metric."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            return "\n".join(line for line in (await answer.text()).splitlines() if "refusals_total{" in line)


class EnrolledFleet(Fleet):
    """A fleet whose nodes join with one token and renew certificates of `life_s`."""

    def __init__(
        self, folder: Path, *, nodes: int, life_s: float, workers: int = 1, node_flags: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, nodes=nodes, workers=workers, node_flags=node_flags)
        self.plane = Plane(folder, "--cluster-mtls=enrolled", f"--node-certificate-life-s={life_s:g}")
        self.control_plane = self.plane
        self._token = ""

    @override
    async def start(self, colours: Mapping[str, int]) -> None:
        await self.plane.up()
        self._token = await self.plane.token(uses=100)
        await self.plane.stop()
        await super().start(colours)

    @override
    def new_node(self, name: str) -> Node:
        flags = ("--enroll-at", self.plane.enroll, *self._node_flags)
        made = Node(name, self.folder, self.plane.fleet, *flags, workers=self._workers)
        made.environment["POINTSMAN_JOIN"] = self._token
        return made

    def certificates(self) -> list[bytes]:
        """What each node shows now: the content of its identity file."""
        return [(self.folder / f"{node.name}.state" / FILE).read_bytes() for node in self.nodes]
