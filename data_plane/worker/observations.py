"""What this worker saw of its traffic, gathered for a few milliseconds and told to the node process.

The worker decides nothing (`data_plane/health`). Equal sightings of an endpoint in a row travel as one with a count,
because their order among other endpoints' does not matter. What waits is bounded: while the node process does not read,
new runs beyond the bound are dropped, and the health they speak of is seen again with the next requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import assert_never

from data_plane.balancer import Endpoint
from data_plane.health import Sighting
from pointsman.wire.v1 import worker_pb2 as wire

GATHER_S = 0.004
"""From the first sighting until it is told; with the way there and back, verdicts take effect within 10 ms."""
RUNS_PER_MESSAGE = 1000
RUNS_MAX = 20_000

_Run = list[int]
"""Status, or minus one for a TCP failure and minus two for a timeout; and how often in a row."""

_TCP_FAILURE = -1
_TIMEOUT = -2


class Observations:
    """The gathering; `report` is what balancers are given. `congested` tells that nothing should be sent now."""

    def __init__(
        self,
        send: Callable[[wire.FromWorker], None],
        *,
        congested: Callable[[], bool] = lambda: False,
        call_later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._send = send
        self._congested = congested
        self._call_later = call_later or asyncio.get_running_loop().call_later
        self._runs: dict[tuple[str, str], list[_Run]] = {}
        self._count = 0
        self._scheduled = False
        self.dropped = 0

    def report(self, endpoint: Endpoint, sighting: Sighting, status: int) -> None:
        """Note one attempt's outcome."""
        match sighting:
            case Sighting.STATUS:
                what = status
            case Sighting.TCP_FAILURE:
                what = _TCP_FAILURE
            case Sighting.TIMEOUT:
                what = _TIMEOUT
            case _:
                assert_never(sighting)
        runs = self._runs.setdefault((endpoint.upstream, endpoint.key), [])
        if runs and runs[-1][0] == what:
            runs[-1][1] += 1
        elif self._count < RUNS_MAX:
            runs.append([what, 1])
            self._count += 1
        else:
            self.dropped += 1
            return
        if not self._scheduled:
            self._scheduled = True
            self._call_later(GATHER_S, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._congested():
            self._scheduled = True
            self._call_later(GATHER_S, self._flush)
            return
        gathered, self._runs = self._runs, {}
        self._count = 0
        message = wire.FromWorker()
        for (upstream, key), runs in gathered.items():
            for what, count in runs:
                observation = message.observations.observations.add(count=count)
                observation.endpoint.upstream = upstream
                observation.endpoint.key = key
                if what == _TCP_FAILURE:
                    observation.kind = wire.OBSERVATION_TCP_FAILURE
                elif what == _TIMEOUT:
                    observation.kind = wire.OBSERVATION_TIMEOUT
                else:
                    observation.kind = wire.OBSERVATION_STATUS
                    observation.status = what
            if len(message.observations.observations) >= RUNS_PER_MESSAGE:
                self._send(message)
                message = wire.FromWorker()
        if message.observations.observations:
            self._send(message)
