"""What a worker counts about its traffic, as plain sums.

The hot path adds to attributes and does nothing else: no locks (one loop), no label look-ups, no formatting. The worker
copies them for the node process, which adds up its workers.
"""

from __future__ import annotations

STATUS_CLASSES = 6


class Counters:
    """Sums since the worker's start; `*_open` and `in_flight` are levels, latencies are seconds."""

    __slots__ = (
        "answers_by_class",
        "answers_own",
        "attempts_failed",
        "bytes_from_clients",
        "bytes_to_clients",
        "connections_accepted",
        "connections_open",
        "errors_internal",
        "in_flight",
        "latency_proxy_s",
        "latency_upstream_s",
        "requests",
        "requests_malformed",
        "retries",
        "upstream_connections_open",
        "upstream_connections_opened",
        "upstream_connections_reused",
    )

    def __init__(self) -> None:
        self.requests: int = 0
        self.requests_malformed: int = 0
        self.in_flight: int = 0
        self.answers_own: int = 0
        self.answers_by_class: list[int] = [0] * STATUS_CLASSES
        self.attempts_failed: int = 0
        self.retries: int = 0
        self.errors_internal: int = 0
        self.connections_accepted: int = 0
        self.connections_open: int = 0
        self.upstream_connections_open: int = 0
        self.upstream_connections_opened: int = 0
        self.upstream_connections_reused: int = 0
        self.bytes_from_clients: int = 0
        self.bytes_to_clients: int = 0
        self.latency_proxy_s: float = 0.0
        self.latency_upstream_s: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Return a copy, flat: what goes to the node process."""
        flat: dict[str, float] = {}
        for name in self.__slots__:
            if name != "answers_by_class":
                flat[name] = getattr(self, name)
        for cls, count in enumerate(self.answers_by_class):
            flat[f"answers_{cls}xx"] = count
        return flat
