"""Foreign HTTP servers behind one node, each with a tap between, so that three views of the same request can be
compared: what the client sent, what the node sent (the tap's octets, read by a strict reader), and what the server says
it got (its books).

    install()                                  # servers that are not in the venv,
    below .bench/; may raise Unavailable
    async with OriginRig(folder, ["aiohttp", "tornado"]) as rig:
        await rig.send("tornado", [b"GET / HTTP/1.1\\r\\n..."])
        faults = rig.compare("tornado")
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote_to_bytes

from typing_extensions import override

from data_plane.node.snapshot import NodeSnapshot
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.wire.v1 import config_pb2 as wire
from tests.conformance.strict_http import Message, NotStrictError, read_answer, read_request
from tests.support.node_rig import config, prepared_node, ready
from tests.support.origin_apps.serve import SERVERS
from tests.support.patience import PATIENCE_S
from tests.support.processes import Process

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements-origins.lock"
INSTALLED = ROOT / ".bench" / "origins"
ALREADY_THERE = ("aiohttp", "http.server")
SILENCE_S = 0.4
ALL = (*SERVERS, "node", "nginx")

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log crit;
events {{ worker_connections 512; }}
http {{
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e; client_body_buffer_size 2m; client_max_body_size 0;
  merge_slashes off; keepalive_timeout 60s;
  log_format books escape=json '{{"method":"$request_method","target":"$request_uri","body":"$request_body"}}';
  # It also logs requests that were cut off inside, as 400 or 499.
  map $status $whole {{ 200 1; default 0; }}
  server {{
    listen 127.0.0.1:{port}; access_log {books} books if=$whole;
    location / {{ proxy_pass http://127.0.0.1:{inner}; }}
  }}
  server {{ listen 127.0.0.1:{inner}; access_log off; location / {{ return 200 "seen"; }} }}
}}
"""


PORTS_BELOW = 10_000


class Unavailable(RuntimeError):
    """Something outside the project is missing; the text says what."""


def install() -> Path:
    """Install the servers of requirements-origins.lock below .bench/ unless they are there; return the folder."""
    stamp = INSTALLED / ".installed"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return INSTALLED
    shutil.rmtree(INSTALLED, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary",
        ":all:",
         "--require-hashes", "--target", str(INSTALLED), "-r", str(LOCK)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Unavailable(f"pip could not install {LOCK.name}: {done.stderr.strip()[-300:]}")
    stamp.write_text(wanted)
    return INSTALLED


def available(names: Sequence[str]) -> list[str]:
    """Return those of the origins that can run here; node and nginx must be installed."""
    return [name for name in names if name not in ("node", "nginx") or shutil.which(name)]


@dataclass(frozen=True, order=True, slots=True)
class Seen:
    """One request as somebody saw it: the target with its query, decoded where a server tells only that."""

    method: str
    target: bytes
    sha256: str


def decoded(seen: Seen) -> Seen:
    """The request as a server sees it that only tells the decoded path."""
    path, mark, query = seen.target.partition(b"?")
    return Seen(seen.method, unquote_to_bytes(path) + (mark + query if query else b""), seen.sha256)


class Tap:
    """Listens before one origin, passes octets both ways, and reads what passes with the strict reader."""

    def __init__(self, origin_port: int) -> None:
        self.sent: list[Seen] = []
        self.accepted: list[Seen] = []
        self.refused: list[tuple[Seen, int]] = []
        self.faults: list[str] = []
        self.port = 0
        self._origin_port = origin_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._origin_port, limit=1 << 22)
            waiting: list[Seen] = []
            try:
                with contextlib.suppress(ConnectionError):
                    down = asyncio.create_task(self._answers(up_reader, writer, waiting))
                    try:
                        await self._requests(reader, up_writer, waiting)
                    finally:
                        down.cancel()
                        await asyncio.gather(down, return_exceptions=True)
            finally:
                up_writer.close()
        except asyncio.CancelledError:
            # `stop` asked for it; the stream's own callback would take a cancelled task for a fault.
            return
        except OSError as error:
            self.faults.append(f"the origin is not there: {error}")
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waiting: list[Seen]) -> None:
        pending = b""
        while data := await reader.read(1 << 16):
            pending += data
            try:
                while pending and (read := read_request(pending)) is not None:
                    message, pending = read
                    seen = _seen(message)
                    self.sent.append(seen)
                    waiting.append(seen)
            except NotStrictError as fault:
                self.faults.append(f"the node sent what is not strict: {fault}: {pending[:200]!r}")
                pending = b""
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waiting: list[Seen]) -> None:
        pending = b""
        while True:
            data = await reader.read(1 << 16)
            pending += data
            with contextlib.suppress(NotStrictError):
                while pending and waiting:
                    read = read_answer(pending, no_body=waiting[0].method == "HEAD", ended=not data)
                    if read is None:
                        break
                    message, pending = read
                    if message.status < 200:
                        continue
                    seen = waiting.pop(0)
                    if message.status == 200:
                        self.accepted.append(seen)
                    else:
                        self.refused.append((seen, message.status))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()


def _seen(message: Message) -> Seen:
    method, target = message.start
    return Seen(method.decode(), target, hashlib.sha256(message.body).hexdigest())


@dataclass
class Origin:
    """One running server with its books and its tap."""

    name: str
    process: Process
    books: Path
    tap: Tap
    port: int
    read_to: int = 0
    entries: list[Seen] = field(default_factory=list)
    decodes: bool = False

    def read_books(self) -> list[Seen]:
        """Return everything that the server says it got."""
        text = self.books.read_bytes()[self.read_to :] if self.books.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        self.read_to += len(whole)
        for line in whole.splitlines():
            entry = json.loads(line.decode("latin-1"))
            # nginx can't hash, so it tells the body itself.
            hashed = hashlib.sha256(entry["body"].encode("latin-1")).hexdigest() if "body" in entry else entry["sha256"]
            if "target" in entry:
                target = entry["target"].encode("latin-1")
            else:
                self.decodes = True
                target = entry["path"].encode("latin-1") + (b"?" + entry["query"].encode() if entry["query"] else b"")
            self.entries.append(Seen(entry["method"], target, hashed))
        return self.entries


class OriginProcess(Process):
    """A server that keeps books and can import what was installed for it."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, books: Path) -> None:
        super().__init__(name, arguments, folder)
        self._books = books

    @override
    def start(self, *extra: str) -> None:
        path = os.pathsep.join([str(ROOT), *([str(INSTALLED)] if INSTALLED.exists() else [])])
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*self.arguments, *extra], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "ORIGIN_BOOKS": str(self._books), "PYTHONPATH": path}, cwd=ROOT,
            )  # fmt: skip


class OriginRig:
    """The origins, their taps, and one node that routes `<name>.test` to each."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.origins: dict[str, Origin] = {}
        self._folder = folder
        self._names = names

    async def __aenter__(self) -> Self:
        try:
            for name in self._names:
                self.origins[name] = await self._start(name)
            self.node = prepared_node(self._folder, self._config(), workers=1)
            await self.node.up()
            await ready(self.node)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        if hasattr(self, "node"):
            self.node.destroy()
        for origin in self.origins.values():
            await origin.tap.stop()
            origin.process.destroy()

    async def _start(self, name: str) -> Origin:
        books = self._folder / f"{name}.books"
        port = _free_port()
        if name == "node":
            arguments = ["node", str(ROOT / "tests/support/origin_apps/node_origin.js"), str(port)]
        elif name == "nginx":
            conf = self._folder / "origin-nginx.conf"
            conf.write_text(_NGINX.format(folder=self._folder, port=port, inner=_free_port(), books=books))
            arguments = ["nginx", "-p", str(self._folder), "-c", str(conf)]
        else:
            arguments = [sys.executable, "-m", "tests.support.origin_apps.serve", name, str(port)]
        process = OriginProcess(f"origin-{name}", arguments, self._folder, books)
        process.start()
        tap = Tap(port)
        await tap.start()
        origin = Origin(name, process, books, tap, port)
        self.origins[name] = origin
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.running, process.log_tail()
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return origin

    def _config(self) -> NodeSnapshot:
        entities = dict(config("127.0.0.1:1").entities)
        service = wire.Entity.FromString(entities[("services", "s1")]).service
        route = wire.Entity.FromString(entities[("routes", "r0")]).route
        entities.clear()
        for name, origin in self.origins.items():
            own_service = wire.Service()
            own_service.CopyFrom(service)
            own_service.id, own_service.name, own_service.host = name, name, "127.0.0.1"
            own_service.port, own_service.retries = origin.tap.port, 0
            own_route = wire.Route()
            own_route.CopyFrom(route)
            own_route.id, own_route.service = f"r-{name}", name
            del own_route.hosts[:]
            own_route.hosts.append(f"{name}.test")
            entities[("services", name)] = wire.Entity(service=own_service).SerializeToString()
            entities[("routes", own_route.id)] = wire.Entity(route=own_route).SerializeToString()
        return NodeSnapshot(b"e" * 16, 1, snapshot_hash(entities), entities)

    async def send(self, requests: Sequence[bytes]) -> list[bytes]:
        """Send each on a connection of its own, all at once; return all that came back until the node closed."""
        return await asyncio.gather(*(self._one(request) for request in requests))

    async def _one(self, octets: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(*self.node.proxy_address)
            answer = b""
            try:
                writer.write(octets)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                    ended = False
                    while True:
                        try:
                            piece = await asyncio.wait_for(reader.read(1 << 16), PATIENCE_S if ended else SILENCE_S)
                        except TimeoutError:
                            # What is still to come can't come without an end: half a request, or a long answer.
                            writer.write_eof()
                            ended = True
                            continue
                        if not piece:
                            return answer
                        answer += piece
                return answer
            finally:
                writer.close()

    def compare(self, name: str) -> list[str]:
        """Say where the node's and the origin's views differ; empty = nowhere."""
        origin = self.origins[name]
        tap = origin.tap
        books = origin.read_books()
        sent, accepted, got = list(tap.sent), list(tap.accepted), list(books)
        if origin.decodes:
            sent, accepted, got = [[decoded(each) for each in seen] for seen in (sent, accepted, got)]
        if name in ("uvicorn-h11", "uvicorn-httptools", "hypercorn"):
            # ASGI has no empty query.
            sent, accepted, got = [[_without_mark(each) for each in seen] for seen in (sent, accepted, got)]
        faults = [f"{name}: {fault}" for fault in tap.faults]
        faults += [f"{name} got what was never sent: {seen}" for seen in (Counter(got) - Counter(sent)).elements()]
        faults += [
            f"{name} answered 200 without having got {seen}" for seen in (Counter(accepted) - Counter(got)).elements()
        ]
        if not self.node.running:
            faults.append(f"the node is gone: {self.node.log_tail()}")
        return faults


def _without_mark(seen: Seen) -> Seen:
    return Seen(seen.method, seen.target.removesuffix(b"?"), seen.sha256)


def _free_port() -> int:
    """A port that nobody has, below those that the kernel gives to whoever asks for any: a server that starts later
    still finds it free. A tap that was given its own origin's port would pass everything on to itself."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    first = max(1024, lowest - PORTS_BELOW)
    while True:
        port = first + secrets.randbelow(lowest - first)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
