"""What the connections on both sides of a worker have in common: a transport, and what the sweep goes by."""

from __future__ import annotations

import asyncio
from typing import cast


class Connection:
    """`active_at` is the coarse time of the last octet either way. `stalled_bytes` is what the sweep, when it looked
    last, found waiting to be taken by the peer."""

    __slots__ = ("active_at", "stalled_bytes", "transport")

    def __init__(self) -> None:
        self.active_at: float = 0.0
        self.stalled_bytes: int = 0
        self.transport: asyncio.Transport

    def begin_on(self, transport: asyncio.BaseTransport, buffer_bytes_max: int) -> None:
        """Take over a transport that was just made, and bound what it keeps of what its peer does not take."""
        # uvloop's transports are what they claim to be, without inheriting from it.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(buffer_bytes_max)
