"""A service's host that is no upstream: one address, or all addresses of a name in turn.

There are no weights (but those of SRV records), no health and no threshold; attempts rotate, so a retry goes to the
next address. The same calls as an upstream's, so that the proxy need not know which one it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from data_plane.balancer.endpoint import Endpoint, NoEndpoint, Reason, endpoint_key
from data_plane.balancer.round_robin import RoundRobin
from data_plane.resolve.answers import NOT_CACHED, Answer, Record
from data_plane.resolve.system import as_address


@final
class DirectHost:
    """The balancer of a host and port in one worker. `port` is the service's; SRV records bring their own."""

    plain = True
    hashing: None = None
    measures = False

    def __init__(self, host: str, port: int, *, on_retire: Callable[[Endpoint], None] | None = None) -> None:
        self.host = host
        self.port = port
        self._on_retire = on_retire
        self._endpoints: dict[str, Endpoint] = {}
        self._turns = RoundRobin()
        self._error = NOT_CACHED
        self._not_found = False
        self._literal = as_address(host.removeprefix("[").removesuffix("]"))
        if self._literal is not None:
            self._become((Record(str(self._literal)),))

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """All endpoints by key, in the nameserver's order."""
        return self._endpoints

    def reconcile(self, answers: Callable[[str], Answer | None]) -> None:
        """Follow what the name resolves to now; without an answer yet, what is there stays."""
        if self._literal is not None:
            return
        answer = answers(self.host)
        if answer is not None:
            self._error = answer.error
            self._not_found = answer.not_found
            self._become(answer.records)

    def pick(self, tried: Sequence[Endpoint] = (), key: bytes = b"") -> Endpoint:
        """Choose the next address, one that is not in `tried` while there are others; raises NoEndpoint."""
        excluded: set[Endpoint] = set()
        if tried:
            excluded = set(tried)
            if all(endpoint in excluded for endpoint in self._endpoints.values()):
                excluded = set(tried[len(tried) - len(tried) % max(len(self._endpoints), 1) :])
        endpoint = self._turns.pick(excluded, key)
        if endpoint is None:
            if self._not_found:
                raise NoEndpoint(Reason.NAME_FAILED)
            raise NoEndpoint(Reason.NAME_UNKNOWN, host=self.host, error=self._error or NOT_CACHED)
        return endpoint

    def take(self, endpoint: Endpoint) -> None:
        """Count an attempt that begins on the endpoint."""
        endpoint.in_flight += 1

    def release(self, endpoint: Endpoint) -> None:
        """Count the end of an attempt begun with `take`, once."""
        assert endpoint.in_flight > 0, "an attempt is released once"
        endpoint.in_flight -= 1

    def observe(self, endpoint: Endpoint, seconds: float, *, failed: bool = False) -> None:
        """Ignore how long an attempt took: addresses simply take turns."""

    def retire(self) -> None:
        """Let go of everything: no service uses this host any more."""
        self._become(())

    def _become(self, records: Sequence[Record]) -> None:
        kept: dict[str, Endpoint] = {}
        for record in records:
            port = record.port or self.port
            name = endpoint_key(self.host, self.port, record.ip, port)
            endpoint = self._endpoints.get(name)
            if endpoint is None:
                endpoint = Endpoint(key=name, ip=record.ip, port=port, host=self.host, weight=1)
            endpoint.weight = record.weight or 1
            kept[name] = endpoint
        for name, endpoint in self._endpoints.items():
            if name not in kept:
                endpoint.retired = True
                endpoint.available = False
                if self._on_retire is not None:
                    self._on_retire(endpoint)
        self._endpoints = kept
        self._turns.reconcile(list(kept.values()))
