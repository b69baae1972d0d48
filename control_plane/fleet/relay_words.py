"""What control planes over one database tell each other in a rollout, as texts for `Store.tell_planes`.

    coordinator                                        another control plane with nodes
        Take      ---- keep your nodes as they are ---->
                  <--- which, and what they run --------   Taken, in parts
        Prepare   ---- the frame for them is in the store ->
                  <--- votes; who is lost --------------   Said
        Activate, End ---------------------------------->
                  <--- activations ---------------------   Said
        Time, Count, Weigh <---------------------------->  Timed, Counted, Weighed

Each process has a clock of its own: Take and Time are exchanges by which the coordinator knows the other one's, and an
instant is told to each control plane in its own time. A word that is lost costs the nodes that it was about their part
in the rollout and nothing else; they take the version as any change.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pointsman.wire.v1 import fleet_pb2

PART_BYTES_MAX = 5_000
"""Of what one word carries of nodes; the database takes 7,000 in all."""
COUNTS_MAX = 80
"""Nodes whose counts one word carries."""
MESSAGE_BYTES_MAX = 3_000
"""Of a node's message; a vote with more findings than that loses some of them on the way."""


@dataclass(frozen=True, slots=True)
class Take:
    """Keep your nodes at what they run, and say which they are. `sent_ns` is the coordinator's time."""

    rollout: int
    fence: int
    sent_ns: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Some of these nodes, host names by id; `version` is what they are to run now, and `last` ends the parts."""

    rollout: int
    fence: int
    nodes: Mapping[str, str]
    version: int
    last: bool
    sent_ns: int  # the Take's
    received_ns: int  # this control plane's time
    answered_ns: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """The frame of this round is in the store: pass it on. Faults of these codes make no refusal."""

    rollout: int
    fence: int
    round: int
    tolerate: Sequence[str]


@dataclass(frozen=True, slots=True)
class Activate:
    """It is decided: whoever is ready swaps at this instant, by the time of the control plane that is told."""

    rollout: int
    fence: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class End:
    """The rollout is over; `aborted` says why nothing came of it, and is empty when something did."""

    rollout: int
    fence: int
    aborted: str


@dataclass(frozen=True, slots=True)
class Said:
    """What nodes said, as (node id, NodeMessage in base64), and whose stream ended, as (node id, why)."""

    rollout: int
    fence: int
    messages: Sequence[tuple[str, str]]
    gone: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Time:
    """One exchange of clocks."""

    sent_ns: int


@dataclass(frozen=True, slots=True)
class Timed:
    """Its answer."""

    sent_ns: int
    received_ns: int
    answered_ns: int


@dataclass(frozen=True, slots=True)
class Count:
    """How many requests are open towards these upstreams?"""

    upstreams: Sequence[str]


@dataclass(frozen=True, slots=True)
class Counted:
    """Of one upstream, by node: how old its count is, in seconds, and the count."""

    upstream: str
    nodes: Mapping[str, tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Weigh:
    """What have your nodes counted of each side of this service?"""

    service: str


@dataclass(frozen=True, slots=True)
class Weighed:
    """Of one service, some nodes' sums by upstream (`distant_sides.packed`); a node without any has counted nothing."""

    service: str
    nodes: Mapping[str, Mapping[str, Sequence[int]]]


Word = Take | Taken | Prepare | Activate | End | Said | Time | Timed | Count | Counted | Weigh | Weighed

_KINDS: Mapping[str, type[Word]] = {
    kind.__name__.lower(): kind
    for kind in (Take, Taken, Prepare, Activate, End, Said, Time, Timed, Count, Counted, Weigh, Weighed)
}


def to_text(word: Word, *, plane: str, to: str) -> str:
    """A word from the control plane `plane` to the one `to`."""
    told = {"plane": plane, "to": to, "word": type(word).__name__.lower(), **asdict(word)}
    return json.dumps(told, separators=(",", ":"))


def parse(text: str, *, to: str) -> tuple[str, Word] | None:
    """Who says what to `to`; None when it is for others, about something else, or of a later version of ours."""
    told: dict[str, Any] = json.loads(text)
    kind = _KINDS.get(str(told.get("word")))
    if kind is None or told.get("to") != to:
        return None
    return str(told["plane"]), kind(**{each.name: told[each.name] for each in fields(kind)})


def packed(message: fleet_pb2.NodeMessage) -> str:
    """A node's message as it travels. What a vote found of single targets goes first where there is too much."""
    data = message.SerializeToString()
    if len(data) > MESSAGE_BYTES_MAX:
        short = fleet_pb2.NodeMessage.FromString(data)
        if short.HasField("vote"):
            for upstream in short.vote.upstreams:
                del upstream.failures[1:]
            del short.vote.faults[4:]
            del short.vote.upstreams[8:]
        else:
            del short.rollout_activated.late_us[256:]
        data = short.SerializeToString()
    return base64.b64encode(data).decode("ascii")


def unpacked(text: str) -> fleet_pb2.NodeMessage:
    """The message again."""
    return fleet_pb2.NodeMessage.FromString(base64.b64decode(text))


def parts(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Pairs of texts in portions that a word can carry; at least one portion, which may be empty."""
    portion: list[tuple[str, str]] = []
    size = 0
    for pair in pairs:
        cost = len(json.dumps(pair))
        if portion and size + cost > PART_BYTES_MAX:
            yield portion
            portion, size = [], 0
        portion.append(pair)
        size += cost
    yield portion
