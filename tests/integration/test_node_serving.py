"""One real node process with two real workers on loopback: it serves from its last good file and ends in good order."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.node_rig import TinyUpstream, config, prepared_node, read_response, ready, request, status_address
from tests.support.patience import PATIENCE_S
from tests.support.processes import Node


async def test_a_node_serves_from_disk_with_no_control_plane_and_says_what_it_runs(
    node: Node, blue: TinyUpstream
) -> None:
    for _ in range(20):
        answer = await request(node.proxy_address, "/anything")
        assert (answer.status, answer.body) == (200, "blue")
    status = json.loads((await request(status_address(node), "/status?unit=b")).body)
    assert status["version"] == 7
    assert status["node_id"] == node.node_id
    assert status["snapshot_hash"].startswith(status["configuration_hash"])
    assert status["server"]["total_requests"] == 20
    assert status["server"]["connections_accepted"] == 20
    assert status["workers"]["ready"] == 2
    assert [worker["version"] for worker in status["workers"]["processes"]] == [7, 7]
    assert all(worker["http_allocated_gc"] > 0 for worker in status["memory"]["workers_lua_vms"])
    assert status["control_plane_connected"] is False


async def test_the_status_api_answers_like_kongs(node: Node) -> None:
    address = status_address(node)
    assert (await request(address, "/status/live")).status == 200
    assert (await request(address, "/nowhere")).body == '{"message": "Not found"}'
    for other in ("/status/dns", "/upstreams"):
        assert (await request(address, other)).status == 404
    refused = await request(address, "/status", method="DELETE")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    assert (await request(address, "/status?unit=x")).status == 400
    assert (await request(address, "/status?scale=x")).status == 400
    form = ["Content-Type: application/x-www-form-urlencoded"]
    wrong = await request(address, "/status/ready", method="POST", body="status=gone", headers=form)
    assert wrong.status == 400
    assert (await request(address, "/status/ready")).status == 200
    told = await request(address, "/status/ready", method="POST", body="status=draining", headers=form)
    assert told.status == 204
    answer = await request(address, "/status/ready")
    assert (answer.status, answer.body) == (503, '{"message": "draining"}')
    assert (await request(node.proxy_address)).status == 200


async def test_without_a_config_a_node_lives_but_refuses_connects(tmp_path: Path) -> None:
    node = prepared_node(tmp_path, None)
    try:
        await node.up()
        answer = await request(status_address(node), "/status/ready")
        assert answer.status == 503
        assert "configuration hash is not initialized" in answer.body
        assert (await request(status_address(node), "/status/live")).status == 200
        with pytest.raises(ConnectionRefusedError):
            await request(node.proxy_address)
        assert await node.stop() == 0
    finally:
        node.destroy()


async def test_sigterm_finishes_what_is_in_flight_and_says_close(node: Node, blue: TinyUpstream) -> None:
    reader, writer = await asyncio.open_connection(*node.proxy_address)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await read_response(reader)).headers.get("connection", "keep-alive") != "close"
    slow = asyncio.create_task(request(node.proxy_address, "/slow"))
    await asyncio.wait_for(blue.asked.wait(), PATIENCE_S)
    node.kill(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_S):
        while (await request(status_address(node), "/status/ready")).status != 503:
            await asyncio.sleep(0.005)
    # Draining is told to the workers in the same moment; a connection within the delay is served for the last time.
    while (answer := await request(node.proxy_address)).headers.get("connection") != "close":
        await asyncio.sleep(0.005)
    assert answer.status == 200
    blue.go.set()
    assert (await slow).status == 200
    assert await node.wait() == 0
    with pytest.raises(OSError, match=r"."):
        await request(node.proxy_address)
    writer.close()


async def test_a_second_sigterm_ends_at_once(node: Node, blue: TinyUpstream) -> None:
    slow = asyncio.create_task(request(node.proxy_address, "/slow"))
    await asyncio.wait_for(blue.asked.wait(), PATIENCE_S)
    node.kill(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_S):
        while (await request(status_address(node), "/status/ready")).status != 503:
            await asyncio.sleep(0.005)
    node.kill(signal.SIGTERM)
    assert await node.wait() == 0
    with pytest.raises(ConnectionError):
        await slow


async def test_targets_by_name_follow_the_nameserver(tmp_path: Path, blue: TinyUpstream) -> None:
    async with DnsServer() as dns:
        dns.set("blue.test", "A", ["127.0.0.1"], ttl=0)
        node = prepared_node(
            tmp_path,
            config(f"blue.test:{blue.port}"),
            f"--resolver=127.0.0.1:{dns.port}",
            "--resolver-ttl-min-s=0.05",
        )
        try:
            await node.up()
            await ready(node)
            assert (await request(node.proxy_address)).body == "blue"
            dns.set("blue.test", "A", ["127.0.0.99"], ttl=0)  # nothing listens there
            async with asyncio.timeout(PATIENCE_S):
                while (await request(node.proxy_address)).status == 200:
                    await asyncio.sleep(0.02)
            dns.set("blue.test", "A", ["127.0.0.1"], ttl=0)
            async with asyncio.timeout(PATIENCE_S):
                while (await request(node.proxy_address)).status != 200:
                    await asyncio.sleep(0.02)
        finally:
            node.destroy()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--proxy-listen=127.0.0.1:0 http2",), 64, "HTTP/2 is not there yet"),
        (("--ssl-cipher-suite=best",), 64, "ssl_cipher_suite"),
        (("--ssl-protocols=SSLv3",), 64, "ssl_protocols"),
        (("--proxy-listen=127.0.0.1:0 ssl", "--ssl-cert=/none.pem", "--ssl-cert-key=/none.key"), 64, "/none.pem"),
        (("--proxy-listen=127.0.0.1:0 fast",), 64, "unknown flag 'fast'"),
        (("--proxy-listen=off",), 64, "nothing to serve"),
        (("--proxy-listen=192.0.2.1:8000",), 1, "can't bind 192.0.2.1:8000"),
        (("--status-listen=192.0.2.1:8007",), 1, "can't bind 192.0.2.1:8007"),
        (("--trusted-ips=nowhere",), 64, "trusted_ips"),
        (("--resolver=ns.test:53",), 64, "resolver"),
        (("--resolver-family=A,MX",), 64, "'MX' is none of"),
        (("--resolver-ttl-min-s=9", "--resolver-ttl-max-s=1"), 64, "TTL"),
        (("--wrokers=2",), 64, "--wrokers"),
    ],
)
async def test_settings_that_cannot_be_used_end_the_start_with_a_reason(
    tmp_path: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    node = prepared_node(tmp_path, None)
    try:
        node.start(f"--state-dir={tmp_path / 'state'}", "--status-listen=127.0.0.1:0", *flags)
        assert await node.wait() == code
        assert said in node.log_tail()
    finally:
        node.destroy()


async def test_two_nodes_never_share_a_state_directory(node: Node, tmp_path: Path) -> None:
    other = prepared_node(tmp_path, None, name="other")
    try:
        other.start(
            f"--state-dir={tmp_path / 'node.state'}", "--status-listen=127.0.0.1:0", "--proxy-listen=127.0.0.1:0"
        )
        assert await other.wait() == 1
        assert "give each node its own --state-dir" in other.log_tail()
    finally:
        other.destroy()
