"""Questions to nodes: each answer reaches who asked, and no question waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.entities.types import EntityBody
from control_plane.fleet.nodes import Node
from control_plane.fleet.tracing import (
    WAITING_MAX,
    NoNode,
    NotAnswered,
    Question,
    TooManyQuestions,
    Traces,
    choose,
)
from pointsman.snapshots import SnapshotRef
from pointsman.wire.v1.fleet_pb2 import PlaneMessage, TraceAnswer, TraceRequest

QUESTION = Question("GET", "http", "/a?b", 80, (("Host", "a.test"), ("x", "\u00fc")))


def node(name: str, version: int = 1) -> Node:
    return Node(name, 0.0, 0.0, hostname=f"host-{name}", running=SnapshotRef(b"e" * 16, version, b"h" * 32))


class Asked:
    """One question on its way; what was sent is kept."""

    def __init__(self, traces: Traces, *, timeout_s: float = 10.0) -> None:
        self.sent: list[TraceRequest] = []
        self.task: asyncio.Task[EntityBody] = asyncio.create_task(
            traces.ask(node("n"), QUESTION, self._send, timeout_s=timeout_s)
        )

    def _send(self, frame: bytes) -> None:
        self.sent.append(PlaneMessage.FromString(frame).trace_request)

    async def number(self) -> int:
        while not self.sent:
            await asyncio.sleep(0)
        return self.sent[0].id


async def test_each_answer_reaches_its_asker() -> None:
    traces = Traces()
    one, two = Asked(traces), Asked(traces)
    first, second = await one.number(), await two.number()
    assert first != second
    traces.answered("n", TraceAnswer(id=second, version=2))
    traces.answered("n", TraceAnswer(id=first, version=1))
    assert ((await one.task)["version"], (await two.task)["version"]) == (1, 2)
    assert one.sent[0].target == b"/a?b"
    assert [(header.name, header.value) for header in one.sent[0].headers] == [("Host", "a.test"), ("x", "\u00fc")]


async def test_answers_of_others_and_late_ones_are_dropped() -> None:
    traces = Traces()
    asked = Asked(traces)
    number = await asked.number()
    traces.answered("somebody else", TraceAnswer(id=number, version=9))
    traces.answered("n", TraceAnswer(id=number + 1, version=9))
    traces.answered("n", TraceAnswer(id=number, version=1))
    traces.answered("n", TraceAnswer(id=number, version=2))
    assert (await asked.task)["version"] == 1
    traces.answered("n", TraceAnswer(id=number, version=3))


async def test_a_node_that_says_why_not_goes_away_or_stays_silent_ends_the_wait() -> None:
    traces = Traces()
    refused, left, silent = Asked(traces), Asked(traces), Asked(traces, timeout_s=0.0)
    traces.answered("n", TraceAnswer(id=await refused.number(), error="no worker of this node is ready"))
    with pytest.raises(NotAnswered, match="no worker"):
        await refused.task
    await left.number()
    traces.gone("n")
    with pytest.raises(NotAnswered, match="ended"):
        await left.task
    with pytest.raises(NotAnswered):
        await silent.task


async def test_questions_are_bounded() -> None:
    traces = Traces()
    asked = [Asked(traces) for _ in range(WAITING_MAX)]
    for each in asked:
        await each.number()
    with pytest.raises(TooManyQuestions):
        await Asked(traces).task
    traces.gone("n")
    results = await asyncio.gather(*(each.task for each in asked), return_exceptions=True)
    assert all(isinstance(result, NotAnswered) for result in results)


def test_who_is_asked() -> None:
    old, new = node("a", 1), node("b", 2)
    assert choose([old, new], None) is new
    assert choose([old, new], "a") is old
    assert choose([old, new], "host-a") is old
    with pytest.raises(NoNode, match="no node is live"):
        choose([], None)
    with pytest.raises(NoNode, match="'c'"):
        choose([old, new], "c")
