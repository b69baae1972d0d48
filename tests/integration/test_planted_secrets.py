"""Recognisable secrets in every secret field, through every door; then a search of all that is left behind.

What is searched: the database's files (with the log, while it runs), its rows, a backup, the logs of both planes at
debug, a node's files, and every page and command that is not the secret's own. Names that are no secrets are found in
the same places, so that a search that finds nothing means something.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import zstandard
from sqlalchemy import Connection, MetaData, select

from control_plane import databases
from control_plane.entities.registry import STORED
from control_plane.store.postgres import postgres_offline
from control_plane.store.sqlite import sqlite_offline
from pointsman.cli.main import main
from tests.support.patience import PREFER
from tests.support.postgres import KEYRING_LINE, PostgresServer
from tests.support.processes import ControlPlane, Node
from tests.support.tls import issued

MARK = "planted27182818"
"""Part of every secret that can be chosen."""
NAMED = "named31415926"
"""Part of what is no secret."""
FIELDS = {
    "key-auth": {"key": "{}"},
    "basic-auth": {"username": "{name}", "password": "{}"},
    "hmac-auth": {"username": "{name}", "secret": "{}"},
    "jwt": {"key": "{name}", "secret": "{}"},
    "oauth2": {"name": "{name}", "client_id": "{name}", "client_secret": "{}"},
}
FILE_NAMES = {
    "key-auth": "keyauth_credentials",
    "basic-auth": "basicauth_credentials",
    "hmac-auth": "hmacauth_credentials",
    "jwt": "jwt_secrets",
    "oauth2": "oauth2_credentials",
}
PAGES = (
    "/", "/status", "/metrics", "/versions?size=1000", "/config/dump", "/config/dump?format=json", "/audit", "/tags",
    "/consumers", "/snis", "/fleet/nodes", "/fleet/rollouts", "/identity/tokens", "/openapi.json", "/services",
    "/schemas/certificates", "/acls",
)  # fmt: skip


@dataclass
class Rig:
    """A control plane, a node, and what was planted and answered."""

    folder: Path
    plane: ControlPlane
    node: Node
    session: aiohttp.ClientSession
    token: str
    certificates: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    planted: int = 0

    @property
    def needles(self) -> list[str]:
        """The mark, and a line out of the middle of each private key: PEM can't be marked."""
        return [MARK, base64.b64encode(MARK.encode()).decode().rstrip("=")[:-2], *self.certificates]

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str]:
        headers["Authorization"] = f"Bearer {self.token}"
        async with self.session.request(method, self.plane.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.text()

    async def write(self, method: str, path: str, body: object, **headers: str) -> str:
        status, text = await self.ask(method, path, body, **headers)
        assert status in (200, 201), (method, path, status, text)
        return str(json.loads(text).get("id"))

    async def fail(self, method: str, path: str, body: object) -> None:
        status, text = await self.ask(method, path, body)
        assert 400 <= status < 500, (method, path, status, text)
        self.errors.append(text)

    def fields(self, kind: str) -> dict[str, str]:
        self.planted += 1
        secret, name = f"{MARK}-{self.planted}", f"{NAMED}-{self.planted}"
        return {field: text.replace("{name}", name).format(secret) for field, text in FIELDS[kind].items()}

    def certificate(self) -> dict[str, object]:
        self.planted += 1
        rsa = issued(f"rsa{self.planted}.test", ecdsa=False, serial=self.planted)
        ecdsa = issued(f"ec{self.planted}.test", serial=self.planted)
        for pem in (rsa.key, ecdsa.key):
            self.certificates.append(pem.splitlines()[2])
        return {"cert": rsa.cert, "key": rsa.key, "cert_alt": ecdsa.cert, "key_alt": ecdsa.key}


@pytest.fixture(params=["postgres", "sqlite"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    database = ""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        database = server.create(tmp_path.name)
    token_file = tmp_path / "token"
    plane = ControlPlane(
        tmp_path, "--log-level=debug", "--admin-tokens=required", f"--admin-token-file={token_file}", database=database
    )
    node: Node | None = None
    try:
        await plane.up()
        node = Node("node", tmp_path, plane.fleet, "--log-level=debug", "--proxy-listen=127.0.0.1:0 ssl")
        await node.up()
        async with aiohttp.ClientSession() as session:
            yield Rig(tmp_path, plane, node, session, token_file.read_text().strip())
    finally:
        for process in (plane, node):
            if process is not None:
                process.destroy()


async def plant(rig: Rig) -> None:
    """Every secret field, by every way in, changed and deleted too."""
    await rig.write("POST", "/consumers", {"username": NAMED})
    for kind in FIELDS:
        below = f"/consumers/{NAMED}/{kind}"
        made = await rig.write("POST", below, rig.fields(kind), **{"Idempotency-Key": f"k-{kind}"})
        await rig.write("PATCH", f"{below}/{made}", rig.fields(kind))
        await rig.write("PUT", f"{below}/{made}", rig.fields(kind))
        await rig.ask("POST", f"{below}?dry_run=1", rig.fields(kind))
        gone = await rig.write("POST", below, rig.fields(kind))
        assert (await rig.ask("DELETE", f"{below}/{gone}"))[0] == 204
    one = await rig.write("POST", "/certificates", {**rig.certificate(), "snis": ["a.test"]})
    await rig.write("PATCH", f"/certificates/{one}", rig.certificate(), **{"Idempotency-Key": "k-cert"})
    key = rig.fields("key-auth")
    await rig.write("POST", f"/consumers/{NAMED}/key-auth", key)
    batch = {"method": "POST", "path": f"/consumers/{NAMED}/key-auth", "body": rig.fields("key-auth")}
    await rig.write("POST", "/batch", {"operations": [batch]})
    change = {"operation": "create", "collection": "certificates", "body": rig.certificate()}
    status, text = await rig.ask("POST", "/fleet/rollouts", {"changes": [change]}, Prefer=PREFER)
    assert status == 200, text
    await rig.fail("POST", f"/consumers/{NAMED}/key-auth", key)  # taken
    await rig.fail("PATCH", f"/consumers/{NAMED}/key-auth/{MARK}-none", {"tags": ["a"]})
    await rig.fail("GET", f"/consumers/{NAMED}/key-auth/{MARK}-none", None)
    await rig.fail("POST", f"/consumers/{NAMED}/hmac-auth", {"secret": [f"{MARK}-list"], "username": "u"})
    await rig.fail("POST", f"/consumers/{NAMED}/key-auth", {"key": {"a": f"{MARK}-map"}})
    await rig.fail("POST", "/certificates", {**rig.certificate(), "key": rig.certificate()["key"]})
    await rig.fail("POST", "/certificates", {**rig.certificate(), "key": f"-----BEGIN {MARK}"})
    await rig.fail("POST", "/basic-auths", {"password": f"{MARK}-no-consumer", "username": "u"})
    await rig.write("POST", "/config/sync", file_of(rig, NAMED))
    await rig.fail("POST", "/config/sync", {**file_of(rig, NAMED), "certificates": [{"key": f"{MARK}-bad"}]})
    await rig.write("POST", "/config", file_of(rig, f"{NAMED}-2"))
    version = json.loads((await rig.ask("GET", "/versions?size=1"))[1])["data"][0]["version"]
    await rig.write("POST", f"/versions/{version - 1}/rollback", {"reason": "to search it"}, Prefer=PREFER)


def file_of(rig: Rig, consumer: str) -> dict[str, object]:
    credentials = {FILE_NAMES[kind]: [rig.fields(kind)] for kind in FIELDS}
    return {
        "_format_version": "3.0",
        "certificates": [rig.certificate()],
        "consumers": [{"username": consumer, **credentials}],
    }


def files_of(rig: Rig) -> Iterator[Path]:
    for file in rig.folder.rglob("*"):
        if file.is_file() and not file.name.endswith(".keyring") and file.name != "token":
            yield file


def rows(connection: Connection) -> str:
    found = MetaData()
    found.reflect(connection)
    return str([connection.execute(select(table)).all() for table in found.sorted_tables])


async def left_behind(rig: Rig, capsys: pytest.CaptureFixture[str]) -> dict[str, bytes]:
    """All that is searched, by where it is."""
    found = {f"error {number}": text.encode() for number, text in enumerate(rig.errors)}
    newest = json.loads((await rig.ask("GET", "/versions?size=1"))[1])["data"][0]["version"]
    histories = [f"/versions/{number}" for number in range(1, newest + 1)]
    compared = [f"/versions/{newest}/diff?against={number}" for number in (0, 1, newest // 2)]
    for page in (*PAGES, *histories, *compared):
        status, text = await rig.ask("GET", page)
        assert status == 200, (page, status, text)
        found[page] = text.encode()
    _, found["diff"] = 0, (await rig.ask("POST", "/config/diff", file_of(rig, NAMED)))[1].encode()
    for command in (("dump",), ("history",), ("version", "show", str(newest)), ("version", "diff", "1", str(newest)),
                    ("audit", "list")):  # fmt: skip
        code = await asyncio.to_thread(main, ["--addr", rig.plane.url, "--token", rig.token, *command])
        shown = capsys.readouterr()
        assert code == 0, (command, shown.err)
        found[f"pointsman {' '.join(command)}"] = (shown.out + shown.err).encode()
    backup = rig.folder / "saved.backup"
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        flags = ["backup", str(backup), "--database", rig.plane.database]
        assert await asyncio.to_thread(databases.main, flags, {"POINTSMAN_KEYRING": KEYRING_LINE}) == 0
    with backup.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        found["backup"] = stream.read()
    if "://" in rig.plane.database:
        text = await postgres_offline(rig.plane.database, rows, writes=False)
    else:
        text = await asyncio.to_thread(sqlite_offline, Path(rig.plane.database), rows, writes=False)
    found["rows"] = text.encode()
    for path in files_of(rig):
        found[str(path.relative_to(rig.folder))] = path.read_bytes()
    return found


async def test_planted_secrets_are_found_nowhere(
    rig: Rig, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    await plant(rig)
    assert {name for schema in STORED.values() for name in schema.secrets} == {
        "key", "key_alt", "password", "secret", "client_secret"
    }, "a new kind of secret is planted here too"  # fmt: skip
    assert MARK in (await rig.ask("GET", "/key-auths"))[1], "its own page shows it"
    assert rig.certificates[0] not in (await rig.ask("GET", "/certificates"))[1]
    assert "PRIVATE KEY" in (await rig.ask("GET", "/certificates"))[1]
    found = await left_behind(rig, capsys)
    if "://" in rig.plane.database:
        server: PostgresServer = request.getfixturevalue("postgres")
        server.psql("CHECKPOINT")
        for path in server.folder.rglob("*"):
            if path.is_file():
                found[f"server {path.relative_to(server.folder)}"] = path.read_bytes()
    await rig.node.stop()
    await rig.plane.stop()
    for path in files_of(rig):
        found[f"{path.relative_to(rig.folder)} after the end"] = path.read_bytes()
    for needle in (*rig.needles, rig.token, KEYRING_LINE.partition(":")[2]):
        places = [place for place, content in found.items() if needle.encode() in content]
        assert places == [], f"{needle} in {places}"
    for place in ("rows", "backup", "/consumers", "pointsman dump"):
        assert NAMED.encode() in found[place], f"the search would not see anything in {place}"
    assert b"PRIVATE KEY" not in found["rows"] + found["backup"]
    assert any("last-good" in place or "node.state" in place for place in found)
    if "://" not in rig.plane.database:
        assert any(NAMED.encode() in content for place, content in found.items() if "control-plane.db" in place)
