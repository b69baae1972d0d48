"""A mistake of ours inside requests of a real node: its worker lives on, and everybody can see that it happened.

The mistake comes with the environment: a module that Python loads at every start breaks one function of the proxy for
one path. The product has no switch for it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.node_rig import TinyUpstream, config, prepared_node, ready, request, status_address

MISTAKE = """
from data_plane.proxy.exchange import Exchange

real = Exchange.start

def start(self, plan, head, *arguments, **options):
    if head.path == b"/broken":
        raise KeyError("of ours")
    return real(self, plan, head, *arguments, **options)

Exchange.start = start
"""
GOOD = 40


async def test_a_mistake_is_told_counted_and_outlived(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(MISTAKE)
    async with TinyUpstream("blue") as blue:
        node = prepared_node(tmp_path, config(blue.address, version=7), workers=1)
        node.environment["PYTHONPATH"] = str(tmp_path)
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
            assert 'kong_http_requests_total{service="example",route="r0",code="500",source="kong"' in metrics
            log = node.log.read_text()
            assert log.count("KeyError: 'of ours'") == broken
            assert log.count("route r0, version 7") == broken
        finally:
            node.destroy()
