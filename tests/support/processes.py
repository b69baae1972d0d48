"""Real processes on loopback with kernel-chosen ports: a control plane, nodes and ledger upstreams.

Everything a test starts is a child with its own process group, logs to a file below the test's folder, says which
ports it got through a file, and is killed at the end whatever happened. A restarted part keeps its ports and data.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiohttp

from tests.support.patience import PATIENCE_S
from tests.support.postgres import KEYRING_LINE, own_database

T = TypeVar("T")


class StartError(RuntimeError):
    """A process ended or stayed silent instead of starting; the text holds the end of its log."""


class Process:
    """One child process with a log file."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.name = name
        self.arguments = list(arguments)
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.environment: dict[str, str] = {}
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, *extra: str) -> None:
        assert self._child is None or self._child.poll() is not None, f"{self.name} is running"
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*self.arguments, *extra], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, **self.environment},
            )  # fmt: skip

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Sends a signal to the process itself, not to its children."""
        if self.running:
            os.kill(self.pid, signal_number)

    async def wait(self, timeout_s: float = PATIENCE_S) -> int:
        assert self._child is not None
        return await asyncio.to_thread(self._child.wait, timeout_s)

    async def stop(self, timeout_s: float = 20.0) -> int | None:
        """SIGTERM, then SIGKILL for the whole group; returns the exit code."""
        if self._child is None:
            return None
        self.kill(signal.SIGTERM)
        try:
            code: int | None = await self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        self.destroy()
        return code

    def destroy(self) -> None:
        """Kills the whole process group."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    async def read_file(self, path: Path) -> str:
        """Waits for the file by which the process says that it is up."""
        return await self.until(lambda: path.read_text() if path.exists() else None, f"write {path.name}")

    async def until(self, probe: Callable[[], T | None], what: str) -> T:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if (value := probe()) is not None:
                return value
            if not self.running:
                raise StartError(f"{self.name} ended before it could {what}:\n{self.log_tail()}")
            await asyncio.sleep(0.02)
        raise StartError(f"{self.name} did not {what} within {PATIENCE_S:g} s:\n{self.log_tail()}")


class Upstream(Process):
    """A ledger upstream; `address` is its host:port, kept over restarts."""

    def __init__(self, colour: str, instance: str, folder: Path) -> None:
        super().__init__(
            instance,
            [sys.executable, "-m", "tests.support.ledger_upstream", "--colour", colour, "--instance", instance],
            folder,
        )
        self.colour = colour
        self.port = 0

    async def up(self) -> None:
        port_file = self.folder / f"{self.name}.port"
        port_file.unlink(missing_ok=True)
        self.start("--port", str(self.port), "--port-file", str(port_file))
        self.port = int(await self.read_file(port_file))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class ControlPlane(Process):
    """A control plane over the database at a URL, else over what `own_database` makes, else over SQLite."""

    def __init__(self, folder: Path, *extra: str, name: str = "control-plane", database: str = "") -> None:
        super().__init__(name, [sys.executable, "-m", "control_plane"], folder)
        self.admin = "127.0.0.1:0"
        self.fleet = "127.0.0.1:0"
        database = database or own_database(f"{folder.name}-{name}")
        self.database = database or str(folder / f"{name}.db")
        if database:  # SQLite brings its own
            self.environment["POINTSMAN_KEYRING"] = KEYRING_LINE
        self._extra = extra

    async def up(self) -> None:
        ports_file = self.folder / f"{self.name}.ports"
        ports_file.unlink(missing_ok=True)
        self.start(
            "--database", self.database,
            "--admin-listen", self.admin,
            "--fleet-listen", self.fleet,
            "--ports-file", str(ports_file),
            *self._extra,
        )  # fmt: skip
        ports = json.loads(await self.read_file(ports_file))
        self.admin, self.fleet = ports["admin"], ports["fleet"]

    @property
    def url(self) -> str:
        return f"http://{self.admin}"


class Node(Process):
    """A data-plane node: its node process and workers."""

    def __init__(self, name: str, folder: Path, fleet_address: str, *extra: str, workers: int = 1) -> None:
        super().__init__(name, [sys.executable, "-m", "data_plane"], folder)
        self.fleet_address = fleet_address
        self.proxy = "127.0.0.1:0"
        self.status = "127.0.0.1:0"
        self.node_id = ""
        self.workers = workers
        self._extra = extra

    async def up(self) -> None:
        ports_file = self.folder / f"{self.name}.ports"
        ports_file.unlink(missing_ok=True)
        self.start(
            "--control-plane", self.fleet_address,
            "--state-dir", str(self.folder / f"{self.name}.state"),
            "--proxy-listen", self.proxy,
            "--status-listen", self.status,
            "--workers", str(self.workers),
            "--ports-file", str(ports_file),
            *self._extra,
        )  # fmt: skip
        ports = json.loads(await self.read_file(ports_file))
        self.proxy, self.status, self.node_id = ports["proxy"][0], ports["status"], ports["node_id"]

    @property
    def proxy_address(self) -> tuple[str, int]:
        host, port = self.proxy.rsplit(":", 1)
        return host, int(port)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the Admin API or a status API; `body` is parsed JSON or None."""

    status: int
    headers: Mapping[str, str]
    body: object


class Fleet:
    """One control plane, its nodes and upstreams, torn down together.

    Use as an async context manager; `start()` brings up everything that was added so far.
    """

    def __init__(self, folder: Path, *, nodes: int, workers: int = 1, node_flags: Sequence[str] = ()) -> None:
        self.folder = folder
        self.control_plane = ControlPlane(folder)
        self.nodes: list[Node] = []
        self.upstreams: dict[str, Upstream] = {}
        self.spoiled: set[int] = set()
        """Nodes, by their place, whose last good files a test has damaged."""
        self._node_count = nodes
        self._workers = workers
        self._node_flags = tuple(node_flags)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2 * PATIENCE_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes():
            process.destroy()
        if self._session is not None:
            await self._session.close()

    def processes(self) -> list[Process]:
        return [*self.nodes, self.control_plane, *self.upstreams.values()]

    async def start(self, colours: Mapping[str, int]) -> None:
        """Starts `colours[c]` upstream servers of each colour, the control plane and the nodes."""
        for colour, count in colours.items():
            for number in range(1, count + 1):
                self.upstreams[f"{colour}-{number}"] = Upstream(colour, f"{colour}-{number}", self.folder)
        await asyncio.gather(self.control_plane.up(), *(upstream.up() for upstream in self.upstreams.values()))
        for number in range(1, self._node_count + 1):
            self.nodes.append(self.new_node(f"node-{number}"))
        await asyncio.gather(*(node.up() for node in self.nodes))

    def new_node(self, name: str) -> Node:
        return Node(name, self.folder, self.control_plane.fleet, *self._node_flags, workers=self._workers)

    async def call(
        self, method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        assert self._session is not None
        async with self._session.request(method, url, json=body, headers=headers) as response:
            text = await response.text()
            parsed = json.loads(text) if text and "json" in response.headers.get("Content-Type", "") else None
            return Answer(response.status, dict(response.headers), parsed)

    async def admin(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One call to the Admin API."""
        return await self.call(method, self.control_plane.url + path, body, headers)

    async def node_version(self, node: Node) -> int:
        """The version a node says that it runs; 0 = none."""
        answer = await self.call("GET", f"http://{node.status}/status")
        assert isinstance(answer.body, dict)
        version = answer.body.get("version", 0)
        assert isinstance(version, int)
        return version

    async def until_ready(self, timeout_s: float = PATIENCE_S) -> None:
        """Waits until every node answers ready."""
        end = time.monotonic() + timeout_s
        for node in self.nodes:
            while (await self.call("GET", f"http://{node.status}/status/ready")).status != 200:
                if time.monotonic() > end or not node.running:
                    raise StartError(f"{node.name} is not ready:\n{node.log_tail()}")
                await asyncio.sleep(0.02)
