"""Fetching a snapshot's bytes: resumable, bounded, and distrustful until the hash is right.

What arrived of an interrupted pull is kept, for one snapshot, until another one is wanted. It is good for going on
only if the packed bytes are the very same ones, so it is known by their checksum: a control plane that was upgraded
in between may pack the same snapshot differently.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio

from data_plane.node import messages
from data_plane.node.keeping import Ready
from data_plane.node.reconnect import Reconnect
from data_plane.node.snapshot import (
    PIECE_BYTES_MAX,
    NodeSnapshot,
    Offer,
    RepairHeader,
    SnapshotRefused,
    apply_repair,
    check_packed_sizes,
    check_sizes,
    make_delta,
    unpack,
)
from pointsman.snapshots import Stage
from pointsman.wire.v1 import fleet_pb2

log = logging.getLogger(__name__)

NODE_ID_KEY = "pointsman-node-id"
"""Metadata by which the control plane knows whose pull it is."""
SETTLE_S = 0.5
"""The shortest pause before a pull is taken up again. If it was the connection that broke, the conversation ends
meanwhile and this pull with it; without the pause it would open a connection of its own first."""
_PULL = "/pointsman.wire.v1.FleetLink/Pull"


REPAIR_BYTES_MIN = 64 * 1024
"""A snapshot that packs to less is pulled whole: naming what one has takes 32 KiB."""


class SnapshotGone(Exception):
    """The snapshot will not come: the control plane has it no longer, or a newer one waits and this one stalls."""


@dataclass(slots=True)
class Partial:
    """The first pieces of what `packed_sha256` will be the checksum of."""

    packed_sha256: bytes
    total: int
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, piece: fleet_pb2.Piece, *, size_max: int) -> None:
        """Takes the next piece. Raises SnapshotRefused when it is another one, or too much."""
        if piece.index != len(self.pieces) or piece.total != self.total:
            message = f"piece {piece.index} of {piece.total} came instead of {len(self.pieces)} of {self.total}"
            raise SnapshotRefused(Stage.PULL, "BAD_PIECE", message)
        self.size += len(piece.data)
        if len(piece.data) > PIECE_BYTES_MAX or self.size > size_max:
            raise SnapshotRefused(Stage.PULL, "TOO_LARGE", "more bytes arrive than were offered")
        self.pieces.append(piece.data)

    @property
    def complete(self) -> bool:
        return len(self.pieces) == self.total


class Pulls:
    """Fetches snapshots, one at a time."""

    def __init__(self, node_id: str, *, raw_bytes_max: int, piece_timeout_s: float, pace: Reconnect) -> None:
        self._metadata = ((NODE_ID_KEY, node_id),)
        self._raw_bytes_max = raw_bytes_max
        self._piece_timeout_s = piece_timeout_s
        self._pace = pace
        self._partial: Partial | None = None

    async def fetch(self, channel: grpc.aio.Channel, offer: Offer, *, give_up: Callable[[], bool]) -> Ready:
        """The verified snapshot and its bytes.

        An interrupted pull is taken up again until it is whole or `give_up` says otherwise.

        Raises:
            SnapshotRefused: its sizes, bytes or content are not what was offered, or too much for this node.
            SnapshotGone: it can't be had any longer.
        """
        check_sizes(offer, raw_bytes_max=self._raw_bytes_max)
        partial = self._partial
        if partial is None or partial.packed_sha256 != offer.packed_sha256 or partial.total != offer.pieces:
            partial = self._partial = Partial(offer.packed_sha256, offer.pieces)
        elif partial.pieces:
            log.info("resuming the pull of %s at piece %d of %d", offer.ref, len(partial.pieces), partial.total)
        try:
            while not partial.complete:
                had = len(partial.pieces)
                reason = await self._attempt(channel, offer, partial)
                if partial.complete:
                    break
                if give_up():
                    raise SnapshotGone(reason)
                log.warning("pull of %s stopped at piece %d: %s", offer.ref, len(partial.pieces), reason)
                progressed = len(partial.pieces) > had
                pause_s = self._pace.after_loss(connected_s=float("inf") if progressed else 0.0)
                await asyncio.sleep(max(pause_s, SETTLE_S))
            # From here on nothing is left to resume, whatever comes of the bytes.
            self._partial = None
            packed = b"".join(partial.pieces)
            partial.pieces.clear()
            snapshot = await asyncio.to_thread(unpack, offer, packed, raw_bytes_max=self._raw_bytes_max)
            return Ready(snapshot, packed=(offer, packed))
        except SnapshotRefused:
            self._partial = None
            raise

    async def repair(self, channel: grpc.aio.Channel, offer: Offer, base: NodeSnapshot) -> Ready | None:
        """The snapshot made of `base` by pulling only the buckets that differ; None where that is not the way.

        Tried once, before a large snapshot is pulled whole, which can be resumed and needs no base.
        """
        if offer.packed_bytes < REPAIR_BYTES_MIN:
            return None
        check_sizes(offer, raw_bytes_max=self._raw_bytes_max)
        call = channel.unary_stream(
            _PULL,
            request_serializer=fleet_pb2.PullRequest.SerializeToString,
            response_deserializer=fleet_pb2.Piece.FromString,
        )(messages.repair_request(offer.ref, base.content.bucket_hashes), metadata=self._metadata)
        header: RepairHeader | None = None
        partial: Partial | None = None
        try:
            while partial is None or not partial.complete:
                async with asyncio.timeout(self._piece_timeout_s):
                    piece = await call.read()
                if not isinstance(piece, fleet_pb2.Piece):
                    return None
                if header is None or partial is None:
                    header = messages.repair_from_wire(piece.repair)
                    check_packed_sizes(header.raw_bytes, header.packed_bytes, raw_bytes_max=self._raw_bytes_max)
                    partial = Partial(header.packed_sha256, piece.total)
                partial.add(piece, size_max=header.packed_bytes)
            assert header is not None, "it came with the first piece"
            packed = b"".join(partial.pieces)
            made = await asyncio.to_thread(
                apply_repair, offer.ref, header, packed, base, raw_bytes_max=self._raw_bytes_max
            )
            log.info("repaired %d buckets with %d bytes to get %s", len(header.buckets), len(packed), offer.ref)
            return Ready(made, delta=await asyncio.to_thread(make_delta, base, made))
        except (SnapshotRefused, TimeoutError, grpc.aio.AioRpcError) as error:
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
            log.info("%s is pulled whole, a repair does not do: %s", offer.ref, why)
            return None
        finally:
            call.cancel()

    async def _attempt(self, channel: grpc.aio.Channel, offer: Offer, partial: Partial) -> str:
        """One call; returns why it ended."""
        call = channel.unary_stream(
            _PULL,
            request_serializer=fleet_pb2.PullRequest.SerializeToString,
            response_deserializer=fleet_pb2.Piece.FromString,
        )(messages.pull_request(offer.ref, from_piece=len(partial.pieces)), metadata=self._metadata)
        try:
            while not partial.complete:
                async with asyncio.timeout(self._piece_timeout_s):
                    piece = await call.read()
                if not isinstance(piece, fleet_pb2.Piece):
                    return "the stream ended early"
                partial.add(piece, size_max=offer.packed_bytes)
            return ""
        except TimeoutError:
            return f"no piece for {self._piece_timeout_s:g} s"
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise SnapshotGone(str(error.details())) from None
            return f"{error.code().name}: {error.details()}"
        finally:
            call.cancel()
