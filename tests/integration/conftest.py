"""Which event loop the tests here run on, and a node that most of them can use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.support.node_rig import TinyUpstream, config, prepared_node, ready
from tests.support.processes import Node


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the proxy's tests on the loop of the product: what it does about half-closes, aborts and buffers counts."""
    if item.path.name.startswith("test_proxy_"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def blue() -> AsyncIterator[TinyUpstream]:
    """A real upstream that answers with its name."""
    async with TinyUpstream("blue") as upstream:
        yield upstream


@pytest.fixture
async def node(tmp_path: Path, blue: TinyUpstream) -> AsyncIterator[Node]:
    """A ready node of two workers before `blue`: 100 routes, of which the first takes everything, as version 7."""
    node = prepared_node(tmp_path, config(blue.address, routes=100, version=7))
    try:
        await node.up()
        await ready(node)
        yield node
    finally:
        node.destroy()
