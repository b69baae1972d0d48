"""One node's control stream as it is written: what waits to be sent, what goes first, and what a newer word replaces.

A node that does not read delays nobody. There is one slot for the latest offer and one for the latest acknowledgement,
queues are bounded, and a write that is not taken in time ends the stream.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from control_plane.fleet import messages
from control_plane.fleet.gate import Caller, Trust
from control_plane.fleet.nodes import Node, Nodes
from control_plane.fleet.published import Published, Shelf
from control_plane.fleet.tracing import WAITING_MAX

HINTS_WAITING_MAX = 256
URGENT_WAITING_MAX = 64


class Connection:
    """One node's control stream: what waits to be sent to it."""

    def __init__(
        self,
        node: Node,
        boot_id: int,
        shelf: Shelf,
        caller: Caller,
        *,
        write_timeout_s: float,
        plane_now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.node = node
        self.caller = caller
        self._shelf = shelf
        self.boot_id = boot_id
        self.gone = asyncio.Event()
        self._write_timeout_s = write_timeout_s
        self._plane_now_ns = plane_now_ns
        self._urgent: deque[bytes] = deque(maxlen=URGENT_WAITING_MAX)
        self._offer: Published | None = None
        self._ack: tuple[int, int] | None = None
        self._health_request: bytes | None = None
        self._hints: deque[bytes] = deque(maxlen=HINTS_WAITING_MAX)
        self._questions: deque[bytes] = deque(maxlen=WAITING_MAX)
        self.trust_told: Trust | None = None
        """What this stream has told the node about CAs."""
        self._goodbye: bytes | None = None
        self._goodbye_reason = ""
        self._wake = asyncio.Event()

    def offer(self, published: Published) -> None:
        """The head to offer; takes the place of one that is not sent yet."""
        self._offer = published
        self._wake.set()

    def acknowledge(self, sequence: int, received_ns: int) -> None:
        """The answer to the latest beat, which came in at that plane time. It is stamped when it goes out."""
        self._ack = (sequence, received_ns)
        self._wake.set()

    def urge(self, frame: bytes) -> None:
        """A word about a rollout: goes before everything else, in order."""
        self._urgent.append(frame)
        self._wake.set()

    def ask_health(self, frame: bytes) -> None:
        """Asks for a full health report."""
        self._health_request = frame
        self._wake.set()

    def hint(self, frames: Sequence[bytes]) -> None:
        """What others see of targets. A node that does not read loses the oldest, and hears all of it again later."""
        self._hints.extend(frames)
        self._wake.set()

    def ask(self, frame: bytes) -> None:
        """A question of an operator's."""
        self._questions.append(frame)
        self._wake.set()

    @property
    def ending(self) -> bool:
        """Whether goodbye is said, or is about to be."""
        return self._goodbye is not None

    def say_goodbye(self, frame: bytes, reason: str) -> None:
        """Ends the stream after this word; what else waits is dropped."""
        self._goodbye = frame
        self._goodbye_reason = reason
        self._wake.set()

    async def write(self, context: grpc.aio.ServicerContext[bytes, bytes], nodes: Nodes) -> str:
        """Sends what comes; returns why it stopped."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._goodbye is not None:
                    async with asyncio.timeout(self._write_timeout_s):
                        await context.write(self._goodbye)
                    return self._goodbye_reason
                while self._urgent and self._goodbye is None:
                    async with asyncio.timeout(self._write_timeout_s):
                        await context.write(self._urgent.popleft())
                if self._ack is not None:
                    (sequence, received_ns), self._ack = self._ack, None
                    ack = messages.beat_ack(
                        sequence, self._shelf.head_ref, received_ns=received_ns, sent_ns=self._plane_now_ns()
                    )
                    async with asyncio.timeout(self._write_timeout_s):
                        await context.write(ack)
                if self._health_request is not None:
                    request, self._health_request = self._health_request, None
                    async with asyncio.timeout(self._write_timeout_s):
                        await context.write(request)
                while self._offer is not None and self._goodbye is None:
                    published = self._offer
                    frame = await self._frame(published)
                    if self._offer is not published:
                        continue  # a newer head arrived while this one was packed
                    self._offer = None
                    nodes.offered(self.node, published.ref)
                    async with asyncio.timeout(self._write_timeout_s):
                        await context.write(frame)
                while self._questions and self._goodbye is None:
                    async with asyncio.timeout(self._write_timeout_s):
                        await context.write(self._questions.popleft())
                if self._hints:
                    async with asyncio.timeout(self._write_timeout_s):
                        await context.write(self._hints.popleft())
                    self._wake.set()  # one at a time: words about snapshots go first
        except TimeoutError:
            return f"did not read for {self._write_timeout_s:g} s"
        except grpc.aio.BaseError:
            return "the stream broke"

    async def _frame(self, published: Published) -> bytes:
        """What tells this node of a snapshot: a delta from what it runs, or the offer of the whole."""
        session = self.node.session
        base = session.base if session is not None else None
        if base is not None and (snapshot := self._shelf.base(base)) is not None:
            delta = await published.delta(base, snapshot)
            if delta is not None:
                return delta
        return (await published.frames()).offer
