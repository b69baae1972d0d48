"""Asking a live node what would become of a request, over the stream it holds anyway.

The control plane has no router: only a node, with the very tables it serves by, can say. A question goes to one node
and waits for its answer within a deadline. Nothing is queued for a node that is not there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from google.protobuf.message import Message

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.nodes import Node
from pointsman.wire.v1 import fleet_pb2

WAITING_MAX = 64
"""Questions that may wait for answers at once."""


class NoNode(Exception):
    """Nobody can be asked: no node is live, or not the one that was named."""


class NotAnswered(Exception):
    """The node was asked and gave no answer; the text says why."""


class TooManyQuestions(Exception):
    """Too many questions wait already."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request as a client would send it. `target` is the raw path and query; Host is among `headers`."""

    method: str
    scheme: str
    target: str
    port: int
    headers: tuple[tuple[str, str], ...]
    sni: str = ""


class Traces:
    """Questions under way; `answered` is fed by the link."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[str, asyncio.Future[EntityBody]]] = {}

    async def ask(
        self, node: Node, question: Question, send: Callable[[bytes], None], *, timeout_s: float
    ) -> EntityBody:
        """Ask and return the answer, as `/fleet/trace` shows it. Raises NotAnswered and TooManyQuestions."""
        if len(self._waiting) >= WAITING_MAX:
            raise TooManyQuestions(f"{WAITING_MAX} traces wait for answers already")
        number = next(self._ids)
        answer: asyncio.Future[EntityBody] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (node.id, answer)
        try:
            send(_frame(number, question))
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise NotAnswered(f"node {node.hostname} did not answer within {timeout_s:g} s") from None
        finally:
            del self._waiting[number]

    def answered(self, node_id: str, answer: fleet_pb2.TraceAnswer) -> None:
        """Take in a node's answer; one that nobody waits for any more is dropped."""
        asked, waiting = self._waiting.get(answer.id, ("", None))
        if waiting is None or asked != node_id or waiting.done():
            return
        if answer.error:
            waiting.set_exception(NotAnswered(answer.error))
        else:
            waiting.set_result(_body(answer))

    def gone(self, node_id: str) -> None:
        """A node's stream ended: it answers nothing any more."""
        for asked, waiting in self._waiting.values():
            if asked == node_id and not waiting.done():
                waiting.set_exception(NotAnswered("the node's connection ended"))


def choose(live: Iterable[Node], wanted: str | None) -> Node:
    """Return the node to ask: the one named by id or hostname, else one that runs the newest version. Raises NoNode."""
    nodes = sorted(live, key=lambda node: (-node.running.version, node.hostname, node.id))
    for node in nodes:
        if wanted is None or wanted in (node.id, node.hostname):
            return node
    raise NoNode("no node is live" if wanted is None else f"no live node is named '{wanted}'")


def _frame(number: int, question: Question) -> bytes:
    request = fleet_pb2.TraceRequest(
        id=number,
        method=question.method,
        scheme=question.scheme,
        target=question.target.encode(),
        port=question.port,
        sni=question.sni,
    )
    for name, value in question.headers:
        request.headers.add(name=name, value=value)
    return fleet_pb2.PlaneMessage(trace_request=request).SerializeToString()


def _body(answer: fleet_pb2.TraceAnswer) -> EntityBody:
    return {
        "version": answer.version,
        "routes": answer.routes,
        "status": answer.status or None,
        "message": answer.message,
        "path": answer.path,
        "matched_path": answer.matched_path,
        "captures": dict(answer.captures),
        "route": _route(answer.route) if answer.HasField("route") else None,
        "upstream": _upstream(answer.upstream) if answer.HasField("upstream") else None,
        "near": [_near(near) for near in answer.near],
    }


def _route(route: fleet_pb2.TraceRoute) -> EntityBody:
    return {
        "id": route.id,
        "name": route.name or None,
        "service": {"id": route.service_id, "name": route.service_name or None} if route.service_id else None,
    }


def _near(near: fleet_pb2.TraceNear) -> EntityBody:
    failures: list[JsonValue] = [_plain(failure) for failure in near.failures]
    return {"route": _route(near.route), "failures": failures, "outranked": near.outranked}


def _upstream(upstream: fleet_pb2.TraceUpstream) -> EntityBody:
    endpoints: list[JsonValue] = [_plain(endpoint) for endpoint in upstream.endpoints]
    return {
        "method": upstream.method,
        "protocol": upstream.protocol,
        "path": upstream.path,
        "host": upstream.host or None,
        "name": upstream.name or None,
        "endpoints": endpoints,
        "endpoints_total": upstream.endpoints_total,
        "error": upstream.error,
    }


def _plain(message: Message) -> EntityBody:
    """A message of nothing but single texts, numbers and truths, by the names of its fields."""
    return {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
