"""`GET /events`: what happens in the fleet, as server-sent events, for consoles and scripts.

    id: 5f0c2e9a-12
    event: switch
    data: {"id":"5f0c2e9a-12","type":"switch","at":1795849200.1,"data":{"switch":4,"state":"confirmed",...}}

`?types=switch,rollout` keeps to some. Whoever comes back with `Last-Event-ID`, as browsers do by themselves, or with
`?after=ID`, gets what happened meanwhile as far as it is kept, and a `gap` where it is not; `?after=0` gives all that
is kept. A comment each 15 s keeps the connection known to be alive, and is when a token is looked at again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from control_plane.admin.access import Door
from control_plane.admin.messages import Answer, Call, Refused, encode_json
from control_plane.admin.operations import Operation, Parameter
from control_plane.admin.table import PathTable
from control_plane.events.ring import Event, Follower, Kind, Ring

STREAMS_MAX = 64
EVENT_STREAM = "text/event-stream"
COMMENT_EVERY_S = 15.0
RETRY_MS = 1_000
_TYPES = [kind.value for kind in Kind if kind is not Kind.GAP]
_ABOUT = Operation(
    summary="Follow what happens, as server-sent events",
    parameters=(
        Parameter(name="types", schema={"type": "string"}, description=f"Only these, by commas: {', '.join(_TYPES)}."),
        Parameter(name="after", schema={"type": "string"}, description="Begin behind this event; 0 = all there is."),
    ),
    answers={200: {"type": "string"}},
    answer_type=EVENT_STREAM,
)


def mount(table: PathTable, streams: Streams) -> None:
    """Adds `/events`."""
    table.add("/events", {"GET": streams.open}, about={"GET": _ABOUT})


@dataclass(slots=True)
class Streams:
    """All that are open."""

    ring: Ring
    door: Door
    comment_every_s: float = COMMENT_EVERY_S
    followers: set[Follower] = field(default_factory=set)

    def end(self) -> None:
        """Ends all streams that are open."""
        for follower in self.followers:
            follower.end()

    async def open(self, call: Call, _path: tuple[str, ...]) -> Answer:
        kinds = _kinds(call.argument("types") or "")
        after = call.argument("after") or call.headers.get("Last-Event-ID") or ""
        if len(self.followers) >= STREAMS_MAX:
            raise Refused(503, f"{STREAMS_MAX} streams of events are open already", {"Retry-After": "5"})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if call.method == "HEAD":
            return Answer(200, headers=headers, content_type=EVENT_STREAM)
        # From here on nothing is missed, although the first word is sent later.
        follower = self.ring.follow(after=after, kinds=kinds)
        return Answer(200, headers=headers, content_type=EVENT_STREAM, stream=self._stream(call, follower))

    async def _stream(self, call: Call, follower: Follower) -> AsyncGenerator[bytes]:
        self.followers.add(follower)
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            while (events := await follower.next(wait_s=self.comment_every_s)) is not None:
                if events:
                    yield b"".join(_encoded(event) for event in events)
                    continue
                try:
                    await self.door.admit(call)
                except Refused:
                    return
                yield b":\n\n"
        finally:
            follower.close()
            self.followers.discard(follower)


def _encoded(event: Event) -> bytes:
    return f"id: {event.id}\nevent: {event.kind.value}\ndata: {encode_json(event.to_json())}\n\n".encode()


def _kinds(text: str) -> frozenset[Kind]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in _TYPES]
    if unknown:
        raise Refused(400, f"types: '{unknown[0]}' is no type of event; there are {', '.join(_TYPES)}")
    return frozenset(Kind(name) for name in names)
