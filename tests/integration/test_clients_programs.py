"""Clients that people use, through a real node: curl in all its ways, a browser-like load, wrk and h2load."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.support.echo_upstream import echo_running
from tests.support.node_rig import config, prepared_node, ready
from tests.support.patience import PATIENCE_S
from tests.support.programs import need_program

UPLOAD_BYTES = 3_000_000
PAGES = 40
FILES_A_PAGE = 12


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A node before one echo upstream, for all tests of this module, which therefore run in one event loop."""
    async with echo_running() as port:
        node = prepared_node(tmp_path_factory.mktemp("node"), config(f"127.0.0.1:{port}"), workers=1)
        try:
            await node.up()
            await ready(node)
            yield f"http://{node.proxy}"
        finally:
            node.destroy()


async def run(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Run a program to its end; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_S):
        output, errors = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, output or errors


async def curl(*arguments: str, stdin: bytes = b"") -> bytes:
    """Run curl, which must succeed; return what it wrote."""
    code, output = await run(need_program("curl", "curl"), "-sS", "--max-time", "20", *arguments, stdin=stdin)
    assert code == 0, output
    return output


async def test_curl_speaks_both_versions(url: str) -> None:
    told = await curl("--http1.1", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", f"{url}/a?b=c")
    assert told == b"200 1.1"
    told = await curl("--http1.0", "-i", f"{url}/a?b=c")
    assert b" 200 " in told.split(b"\r\n", 1)[0]
    assert b"connection: close" in told.lower()
    assert json.loads(told.partition(b"\r\n\r\n")[2])["path"] == "/a?b=c"


async def test_curl_keeps_its_connection(url: str) -> None:
    told = await curl(*([f"{url}/a", "-o", "/dev/null"] * 3), "-w", "%{num_connects}\n")
    assert told.split() == [b"1", b"0", b"0"]


async def test_curl_uploads_with_expect_length_and_chunks(url: str, tmp_path: Path) -> None:
    body = bytes(range(256)) * (UPLOAD_BYTES // 256)
    source = tmp_path / "upload"
    source.write_bytes(body)
    expected = hashlib.sha256(body).hexdigest().encode()
    for arguments in (
        ["-T", str(source)],
        ["-T", str(source), "-H", "Expect: 100-continue"],
        ["-T", str(source), "-H", "Transfer-Encoding: chunked"],
        ["-T", str(source), "-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
        ["--data-binary", f"@{source}"],
        ["--http1.0", "--data-binary", f"@{source}"],
    ):
        assert expected in await curl(*arguments, f"{url}/sink"), arguments


async def test_curl_is_told_to_continue_once(url: str) -> None:
    told = await curl("-i", "-d", "x", "-H", "Expect: 100-continue", f"{url}/a")
    assert told.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
    assert told.count(b"100 Continue") == 1


async def test_curl_asks_for_the_head_only(url: str) -> None:
    told = await curl("-I", f"{url}/big/100000")
    assert b" 200 " in told
    assert told.endswith(b"\r\n\r\n")


async def test_curl_posts_a_form_with_a_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"z" * 5000)
    told = json.loads(await curl("-F", "name=value", "-F", f"file=@{tmp_path / 'file'}", f"{url}/form"))
    assert told["method"] == "POST"
    assert told["bodylen"] > 5000


async def test_a_range_is_the_upstreams_business(url: str) -> None:
    told = json.loads(await curl("-r", "0-9", f"{url}/a"))
    assert [value for name, value in told["headers"] if name.lower() == "range"] == ["bytes=0-9"]


async def test_a_browser_like_load_gets_every_answer(url: str) -> None:
    """Pages with many files each over six kept connections a browser."""

    async def browser(number: int) -> None:
        connector = aiohttp.TCPConnector(limit=6)
        async with aiohttp.ClientSession(connector=connector) as session:
            for page in range(PAGES // 4):
                await asyncio.gather(*(file(session, f"/{number}/{page}/{each}") for each in range(FILES_A_PAGE)))

    async def file(session: aiohttp.ClientSession, path: str) -> None:
        async with session.get(url + path) as response:
            assert response.status == 200
            assert (await response.json(content_type=None))["path"] == path

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(browser(number) for number in range(4)))


async def test_wrk_sees_no_error(url: str) -> None:
    code, told = await run(need_program("wrk", "wrk"), "-t1", "-c16", "-d1s", f"{url}/a")
    assert code == 0, told
    assert b"Non-2xx" not in told, told
    assert b"Socket errors" not in told, told
    requests = re.search(rb"(\d+) requests in", told)
    assert requests is not None
    assert int(requests[1]) > 100


async def test_h2load_sees_no_error(url: str) -> None:
    code, told = await run(need_program("h2load", "nghttp2-client"), "--h1", "-n2000", "-c16", "-t1", f"{url}/a")
    assert code == 0, told
    assert b"2000 succeeded, 0 failed, 0 errored, 0 timeout" in told, told
