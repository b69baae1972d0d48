"""The node's own HTTP port: is it alive, is it ready, what does it run (spec/proxy.md section 15).

    GET  /status         figures and the running version; 200 as long as the process serves
    GET  /status/live    the same promise without the figures
    GET  /status/ready   200 only when a config is active in every worker, no switch of the fleet has left the node
                         behind, and it is not on its way out
    POST /status/ready   `status=draining` takes the node out of its load balancers
    GET  /metrics        everything counted, for Prometheus

Everything here is read from the node process; the version shown is the new one only when the last worker has activated
it, because clients take this answer as the node's word. Kong's shape and texts, with our facts beside them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from data_plane import BUILD
from data_plane.node.metrics import MetricFacts, NodeMetrics
from data_plane.node.snapshot import NodeSnapshot
from data_plane.observe.prometheus import CONTENT_TYPE
from pointsman.wire.v1 import config_pb2

REQUEST_BYTES_MAX = 64 * 1024
STATUS_WITHIN_S = 0.5
"""How long `/status` waits for a worker's figures; one that is busy is left out rather than waited for."""

_NO_HASH = "0" * 32
_UNITS = {"b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_UNIT_NAMES = {"k": "KiB", "m": "MiB", "g": "GiB"}
_SCALE = re.compile(r"\d{1,2}")

JsonTree = dict[str, object]


class NodeFacts(MetricFacts, Protocol):
    """What the status API reads of the node, beyond what the metrics do."""

    @property
    def left_behind(self) -> str:
        """Why the node is not ready although it serves; empty when it is."""
        ...

    def mark_draining(self) -> None: ...


class StatusApi:
    """The listener and its handlers."""

    def __init__(self, facts: NodeFacts) -> None:
        self._facts = facts
        self._metrics = NodeMetrics(facts)
        self._runner: web.AppRunner | None = None

    async def start(self, sock: socket.socket) -> None:
        """Serve on a bound socket, which belongs to this object from now on."""
        application = web.Application(client_max_size=REQUEST_BYTES_MAX, middlewares=[_kong_errors])
        application.router.add_get("/status", self._status)
        application.router.add_get("/status/live", self._live)
        application.router.add_get("/status/ready", self._ready)
        application.router.add_post("/status/ready", self._set_ready)
        application.router.add_get("/metrics", self._metrics_page)
        application.router.add_get("/robots.txt", _robots)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, sock).start()

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _status(self, request: web.Request) -> web.Response:
        unit = request.query.get("unit", "m").lower()
        scale_text = request.query.get("scale", "2")
        if unit not in _UNITS:
            return _message(400, f"invalid unit '{unit}' (expected 'k/K', 'm/M', 'g/G' or 'b/B')")
        if not _SCALE.fullmatch(scale_text):
            return _message(400, "scale must be a number from 0 to 99")
        facts = self._facts
        counters = await facts.counters(timeout_s=STATUS_WITHIN_S)
        running = facts.running
        accepted = sum(worker.connections_accepted for worker in counters)
        active = sum(worker.connections_active for worker in counters)
        reading = sum(worker.connections_reading for worker in counters)
        in_flight = sum(worker.in_flight for worker in counters)
        body: JsonTree = {
            "server": {
                "connections_accepted": accepted,
                "connections_handled": accepted,
                "connections_active": active,
                "connections_reading": reading,
                "connections_writing": in_flight,
                "connections_waiting": max(active - reading - in_flight, 0),
                "total_requests": sum(worker.requests for worker in counters),
            },
            "memory": {
                "workers_lua_vms": [
                    {"pid": worker.pid, "http_allocated_gc": _size(worker.rss_bytes, unit, int(scale_text))}
                    for worker in counters
                ],
                "lua_shared_dicts": {},
            },
            # Kong's hash is 32 hex digits; ours is longer, and whole under its own name.
            "configuration_hash": running.snapshot_hash.hex()[:32] if running is not None else _NO_HASH,
            "node_id": facts.node_id,
            "build": BUILD,
            "version": running.version if running is not None else 0,
            "snapshot_hash": running.snapshot_hash.hex() if running is not None else "",
            "epoch": running.epoch.hex() if running is not None else "",
            "control_plane_connected": facts.connected,
            "control_plane_problem": facts.link_problem,
            "certificate_expires_at": facts.certificate_expires_at,
            "draining": facts.draining,
            "fenced_services": [
                {"id": fenced.id, "name": _service_name(running, fenced.id), "since": round(fenced.since, 3)}
                for fenced in facts.fenced()
            ],
            "workers": {
                "total": facts.worker_count,
                "ready": facts.workers_ready,
                "restarts": facts.worker_restarts,
                "processes": [
                    {
                        "pid": worker.pid,
                        "version": worker.version,
                        "requests": worker.requests,
                        "connections": worker.connections_active,
                        "in_flight": worker.in_flight,
                        "rss_bytes": worker.rss_bytes,
                    }
                    for worker in counters
                ],
            },
        }
        return web.json_response(body)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        return web.Response(body=await self._metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    async def _live(self, request: web.Request) -> web.Response:
        return _message(200, "live")

    async def _ready(self, request: web.Request) -> web.Response:
        facts = self._facts
        if facts.draining:
            return _message(503, "draining")
        if facts.running is None:
            return _message(503, "no configuration available (configuration hash is not initialized)")
        if not facts.running.entities:
            return _message(503, "no configuration available (empty configuration present)")
        if facts.workers_ready < facts.worker_count:
            return _message(
                503,
                "router builds not yet complete, "
                f"router ready in {facts.workers_ready} of {facts.worker_count} workers",
            )
        if facts.left_behind:
            return _message(503, facts.left_behind)
        return _message(200, "ready")

    async def _set_ready(self, request: web.Request) -> web.Response:
        status = await _form_value(request, "status")
        if status != "draining":
            return _message(400, "the body must say status=draining")
        self._facts.mark_draining()
        return web.Response(status=204)


def _service_name(running: NodeSnapshot | None, service: str) -> str | None:
    """What operators call the service; None when it has no name."""
    data = running.entities.get(("services", service)) if running is not None else None
    return (config_pb2.Entity.FromString(data).service.name or None) if data is not None else None


async def _form_value(request: web.Request, name: str) -> str | None:
    """One field of a form or a JSON object; None when the body is neither."""
    if request.content_type == "application/json":
        try:
            body = await request.json()
        except ValueError:
            return None
        value = body.get(name) if isinstance(body, dict) else None
        return value if isinstance(value, str) else None
    value = (await request.post()).get(name)
    return value if isinstance(value, str) else None


async def _robots(request: web.Request) -> web.Response:
    return web.Response(text="User-agent: *\nDisallow: /\n", content_type="text/plain")


@web.middleware
async def _kong_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _message(404, "Not found")
    except web.HTTPMethodNotAllowed as refusal:
        response = _message(405, "Method not allowed")
        response.headers["Allow"] = ", ".join(sorted(refusal.allowed_methods))
        return response
    except web.HTTPRequestEntityTooLarge:
        return _message(413, "Payload too large")


def _message(status: int, text: str) -> web.Response:
    return web.json_response({"message": text}, status=status)


def _size(size_bytes: int, unit: str, scale: int) -> object:
    if unit == "b":
        return size_bytes
    return f"{size_bytes / _UNITS[unit]:.{scale}f} {_UNIT_NAMES[unit]}"
