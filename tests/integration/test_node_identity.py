"""Nodes that prove who they are, as an operator meets them: real processes, the command line, real handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
import trustme

from data_plane.node.membership import FILE, Membership
from pointsman.rules.node_names import node_id_of
from tests.integration.test_admin_access import pointsman
from tests.support.enrolled import ENROLLED, Plane
from tests.support.patience import PATIENCE_S
from tests.support.postgres import PostgresServer
from tests.support.processes import Node

QUICK = ("--drain-delay-s=0",)


async def until(look: Callable[[], object], what: str) -> None:
    """Waits for an awaitable look to be true, with one patience."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.05)


def node(plane: Plane, name: str, *flags: str, token: str = "") -> Node:
    made = Node(name, plane.folder, plane.fleet, "--enroll-at", plane.enroll, *QUICK, *flags)
    if token:
        made.environment["POINTSMAN_JOIN"] = token
    return made


def connected(plane: Plane, node: Node) -> Callable[[], object]:
    async def look() -> bool:
        known = (await plane.nodes()).get(node.node_id)
        return bool(known and known["connected"])

    return look


async def problem(node: Node) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://{node.status}/status") as answer:
        return str((await answer.json())["control_plane_problem"])


def says(node: Node, words: str) -> Callable[[], object]:
    async def look() -> bool:
        return words in await problem(node)

    return look


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    plane = Plane(tmp_path, *ENROLLED, "--node-certificate-life-s=12")
    await plane.up()
    yield plane
    await plane.stop()


async def test_a_node_joins_renews_is_revoked_and_approved(plane: Plane) -> None:
    joined = node(plane, "joined", token=await plane.token(labels={"zone": "a"}))
    second = node(plane, "late")
    try:
        await joined.up()
        await until(connected(plane, joined), "the node to join")
        assert (await plane.nodes())[joined.node_id]["labels"] == {"zone": "a"}
        file = plane.folder / "joined.state" / FILE
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

        first = file.read_bytes()
        await until(lambda: file.read_bytes() != first, "the certificate to be renewed")

        # Its token is used up; a second node gets to hear that, and neither is without an answer to its clients.
        second.environment["POINTSMAN_JOIN"] = joined.environment["POINTSMAN_JOIN"]
        await second.up()
        await until(says(second, "is used up"), "the used token to be refused")
        assert 'reason="token_used_up"' in await plane.refusals()
        _, refused, _ = await pointsman("--addr", plane.url, "node", "refused", "-o", "json")
        assert second.node_id in refused
        assert "is used up" in refused

        expires_at = (await plane.nodes())[joined.node_id]["certificate_expires_at"]
        assert isinstance(expires_at, float)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{plane.url}/clustering/data-planes") as answer:
                details = {row["id"]: row["cert_details"] for row in (await answer.json())["data"]}
            async with session.get(f"http://{joined.status}/metrics") as answer:
                page = await answer.text()
        assert abs(details[joined.node_id]["expiry_timestamp"] - expires_at) <= 12
        assert f"kong_data_plane_cluster_cert_expiry_timestamp {str(int(expires_at))[:6]}" in page
        _, table, _ = await pointsman("--addr", plane.url, "nodes")
        assert "CERTIFICATE UNTIL" in table

        code, _, err = await pointsman("--addr", plane.url, "node", "revoke", joined.node_id)
        assert code == 0, err
        await until(says(joined, "was revoked"), "the stream to be closed")
        # After a restart of either side it is still shut out.
        await plane.stop()
        await plane.up()
        await joined.stop()
        await joined.up()
        await until(says(joined, "was revoked"), "the hello to be refused")

        code, _, err = await pointsman("--addr", plane.url, "node", "approve", joined.node_id)
        assert code == 0, err
        await joined.stop()
        await joined.up()
        await until(connected(plane, joined), "the node to be let in again")
    finally:
        await joined.stop()
        await second.stop()


async def test_the_ca_is_rotated_under_nodes_that_stay(tmp_path: Path) -> None:
    plane = Plane(tmp_path, *ENROLLED)  # certificates of a day: it is the rotation that has them renewed
    await plane.up()
    first = node(plane, "first", token=await plane.token())
    stranger = node(plane, "stranger", token=await plane.token())
    try:
        await first.up()
        await until(connected(plane, first), "the node to join")
        code, before, err = await pointsman("--addr", plane.url, "-o", "json", "ca", "rotate")
        assert code == 0, err
        assert json.loads(before)["state"] == "introducing"
        old = json.loads(before)["authorities"][0]["fingerprint"]

        async def settled() -> bool:
            _, out, _ = await pointsman("--addr", plane.url, "-o", "json", "ca", "show")
            return bool(json.loads(out)["state"] == "settled")

        await until(settled, "the rotation to end")
        file = plane.folder / "first.state" / FILE
        await until(lambda: file.read_bytes().count(b"BEGIN CERTIFICATE") == 2, "the node to trust the new CA alone")
        _, names, _ = await pointsman("--addr", plane.url, "-o", "name", "ca", "show")
        assert names.strip() != old
        assert "is gone" not in (plane.folder / "control-plane.log").read_text()
        await first.stop()
        await first.up()
        await until(connected(plane, first), "the node to come back by the new CA")

        await stranger.up()
        await until(says(stranger, "make a new one if the CA was rotated"), "the old token to be refused")
        code, _, err = await pointsman("--addr", plane.url, "ca", "advance")
        assert code != 0
        assert "no rotation of the CA is under way" in err
    finally:
        await first.stop()
        await stranger.stop()
        await plane.stop()


async def test_a_node_without_token_or_certificate_or_of_another_cluster_is_refused(
    plane: Plane, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Plane(tmp_path / "other", *ENROLLED)
    await other.up()
    stranger = node(plane, "stranger", token=await other.token())
    silent = node(plane, "silent", "--cluster-mtls=enrolled")
    plain = node(plane, "plain")
    try:
        for each in (stranger, silent, plain):
            await each.up()
        await until(says(stranger, "not the one that the join token names"), "the other CA to be refused")
        await until(says(silent, "no join token"), "the node to ask for a token")
        await until(says(plain, "UNAVAILABLE"), "the plain dial to fail")
        assert not await plane.nodes()
    finally:
        for each in (stranger, silent, plain):
            await each.stop()
        await other.stop()


async def test_a_certificate_is_good_for_its_own_node_id_only(plane: Plane) -> None:
    first = node(plane, "first", token=await plane.token(uses=2))
    second = node(plane, "second", token=first.environment["POINTSMAN_JOIN"])
    try:
        for each in (first, second):
            await each.up()
            await until(connected(plane, each), "the node to join")
            await each.stop()
        states = [plane.folder / f"{name}.state" for name in ("first", "second")]
        assert all(Membership.exists(state) for state in states)
        (states[1] / "node_id").write_bytes((states[0] / "node_id").read_bytes())  # claims to be the first
        await second.up()
        await until(says(second, "the hello says"), "the other id to be refused")
        assert 'reason="other_node"' in await plane.refusals()
    finally:
        await first.stop()
        await second.stop()


async def test_a_node_joins_at_one_control_plane_and_is_renewed_at_another(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """They share one CA by the database. It is rotated where the node is not, and has it renewed where it is."""
    url = postgres.create(tmp_path.name)
    here, there = (Plane(tmp_path, *ENROLLED, name=name, database=url) for name in ("here", "there"))
    await asyncio.gather(here.up(), there.up())
    joined = Node("joined", tmp_path, there.fleet, "--enroll-at", here.enroll, *QUICK)
    joined.environment["POINTSMAN_JOIN"] = await here.token()
    try:
        await joined.up()
        await until(connected(there, joined), "the node to be let in by the other control plane")
        file = tmp_path / "joined.state" / FILE
        first = file.read_bytes()
        code, _, err = await pointsman("--addr", here.url, "ca", "rotate")
        assert code == 0, err

        async def settled() -> bool:
            _, out, _ = await pointsman("--addr", here.url, "-o", "json", "ca", "show")
            return bool(json.loads(out)["state"] == "settled")

        await until(settled, "the rotation to end")
        assert file.read_bytes() != first
        assert await connected(there, joined)()  # type: ignore[misc]  # a coroutine function
        code, _, err = await pointsman("--addr", here.url, "node", "revoke", joined.node_id)
        assert code == 0, err
        await until(says(joined, "was revoked"), "the other control plane to close the stream")
    finally:
        for process in (joined, here, there):
            process.destroy()


@pytest.mark.parametrize("mode", ["shared", "pki"])
async def test_certificates_from_files(tmp_path: Path, mode: str) -> None:
    authority, name = trustme.CA(), "one.gateways.example.org"
    server = authority.issue_cert("localhost", "127.0.0.1", "gateways.example.org")
    client = authority.issue_cert(name) if mode == "pki" else server
    wrong = authority.issue_cert("intruder.example.org" if mode == "pki" else "localhost")
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    files: dict[str, tuple[str, str]] = {}
    for kind, pair in (("server", server), ("client", client), ("wrong", wrong)):
        pair.private_key_pem.write_to_path(tmp_path / f"{kind}.key")
        pair.cert_chain_pems[0].write_to_path(tmp_path / f"{kind}.pem")
        files[kind] = (f"--cluster-cert={tmp_path / kind}.pem", f"--cluster-cert-key={tmp_path / kind}.key")
    common = (f"--cluster-mtls={mode}", *((f"--cluster-ca-cert={ca}",) if mode == "pki" else ()))
    names = ("--cluster-allowed-names=*.gateways.example.org",) if mode == "pki" else ()
    plane = Plane(tmp_path, "--beat-interval-s=0.3", *common, *names, *files["server"])
    await plane.up()
    good = Node("good", tmp_path, plane.fleet, *QUICK, *common, *files["client"])
    bad = Node("bad", tmp_path, plane.fleet, *QUICK, *common, *files["wrong"])
    try:
        await good.up()
        await until(connected(plane, good), "the node to be let in")
        if mode == "pki":
            assert good.node_id == node_id_of(name)
        await bad.up()
        words = "fits none of cluster_allowed_names" if mode == "pki" else "UNAVAILABLE"
        await until(says(bad, words), "the other certificate to be refused")
        assert len(await plane.nodes()) == 1
    finally:
        for each in (good, bad):
            await each.stop()
        await plane.stop()


async def test_strangers_who_all_connect_at_once_do_not_end_the_control_plane(tmp_path: Path) -> None:
    """Nor need they show anything for it: it is the handshakes' beginning that must bear company."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])

    async def connect(address: str) -> None:
        host, port = address.rsplit(":", 1)
        for _ in range(20):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port), ssl=context)
                writer.close()

    plane = Plane(tmp_path, *ENROLLED)
    await plane.up()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(connect(plane.fleet) for _ in range(24)))
        assert plane.running, plane.log_tail()
        assert await plane.token()
    finally:
        await plane.stop()
