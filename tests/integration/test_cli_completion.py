"""What a shell offers when Tab is pressed: the names that the control plane has at that moment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.processes import Fleet


async def offered(words: str, *, addr: str) -> list[str]:
    """What bash would show after these words; a last space begins a new one."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("pointsman")),
        env={
            **os.environ,
            "POINTSMAN_ADDR": addr,
            "_POINTSMAN_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b""), err.decode()
    return out.decode().split()


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with Fleet(tmp_path, nodes=0) as fleet:
        await fleet.start({})
        yield fleet


async def test_live_names(plane: Fleet) -> None:
    addr = plane.control_plane.url
    for name in ("blue", "green", "grey"):
        assert (await plane.admin("POST", "/upstreams", {"name": name})).status == 201
    await plane.admin("POST", "/upstreams/green/targets", {"target": "10.0.0.1:80"})
    await plane.admin("POST", "/services", {"name": "shop", "host": "blue"})
    nameless: object = (await plane.admin("POST", "/services", {"host": "blue"})).body
    assert isinstance(nameless, dict)

    assert await offered("pointsman upstream get ", addr=addr) == ["blue", "green", "grey"]
    assert await offered("pointsman upstream health gr", addr=addr) == ["green", "grey"]
    assert await offered("pointsman service set ", addr=addr) == sorted(["shop", nameless["id"]])
    assert await offered("pointsman target list --upstream b", addr=addr) == ["blue"]
    assert await offered("pointsman target get --upstream green ", addr=addr) == ["10.0.0.1:80"]
    assert await offered("pointsman target get ", addr=addr) == []


async def test_nothing_is_offered_by_a_control_plane_that_is_not_there() -> None:
    assert await offered("pointsman upstream get ", addr="http://127.0.0.1:1") == []
    assert await offered("pointsman upstream get ", addr="nonsense://") == []
