"""A mistake of ours inside requests of a real node: its worker lives on, and everybody can see that it happened.

The mistake comes with the environment: a module that Python loads at every start breaks one function of the proxy for
one path. The product has no switch for it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.node_rig import TinyUpstream, config, prepared_node, ready, request, status_address

IN_A_METHOD = """
from data_plane.proxy.exchange import Exchange

real = Exchange.start

def start(self, plan, head, *arguments, **options):
    if head.path == b"/broken":
        raise KeyError("of ours")
    return real(self, plan, head, *arguments, **options)

Exchange.start = start
"""
IN_A_FUNCTION = """
from data_plane.proxy import client

real = client.make_plan

def make_plan(tables, head, **options):
    if head.path == b"/broken":
        raise KeyError("of ours")
    return real(tables, head, **options)

client.make_plan = make_plan
"""
GOOD = 40


@pytest.mark.parametrize(
    ("compiled", "mistake", "service", "route"),
    [("0", IN_A_METHOD, "example", "r0"), ("", IN_A_FUNCTION, "", "-")],
    ids=["plain", "compiled"],
)
async def test_a_mistake_is_told_counted_and_outlived(
    tmp_path: Path, compiled: str, mistake: str, service: str, route: str
) -> None:
    """Methods of compiled classes can't be replaced; the function that can has no route yet."""
    (tmp_path / "sitecustomize.py").write_text(mistake)
    async with TinyUpstream("blue") as blue:
        node = prepared_node(tmp_path, config(blue.address, version=7), workers=1)
        node.environment["PYTHONPATH"] = str(tmp_path)
        if compiled:
            node.environment["POINTSMAN_COMPILED"] = compiled
        try:
            await node.up()
            await ready(node)
            paths = ["/good"] * GOOD
            paths[5::10] = ["/broken"] * len(paths[5::10])
            answers = await asyncio.gather(*(request(node.proxy_address, path) for path in paths))
            assert [answer.status for answer in answers] == [500 if path == "/broken" else 200 for path in paths]
            metrics = (await request(status_address(node), "/metrics")).body
            broken = paths.count("/broken")
            assert f"pointsman_internal_errors_total {broken}\n" in metrics
            assert "pointsman_worker_restarts_total 0\n" in metrics
            if service:
                assert (
                    f'kong_http_requests_total{{service="{service}",route="{route}",code="500",source="kong"' in metrics
                )
            log = node.log.read_text()
            assert log.count("KeyError: 'of ours'") == broken
            assert log.count(f"route {route}, version 7") == broken
        finally:
            node.destroy()
