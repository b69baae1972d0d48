"""What a node has before most of it is loaded: its ports, and workers that are on their way.

A node process loads the fleet link, the resolver and much else before its loop runs; a worker loads the router and the
proxy. Neither needs the other for that, so the first workers are launched as soon as the settings are read: a node
serves about half a second sooner. This module imports nothing that takes long.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from data_plane.handover import Handover
from data_plane.node.launch import Launched, launch
from data_plane.node.sockets import ListenSpec, address_of, bind_for_workers, bind_one, is_taken
from data_plane.settings import NodeSettings
from pointsman.settings import SocketAddress

if TYPE_CHECKING:
    from data_plane.node.default_pairs import DefaultPairs

_log = logging.getLogger(__name__)


class Front:
    """The sockets, and how workers are launched over them. Leave its context to end workers that nobody took over."""

    def __init__(self, settings: NodeSettings, node_id: str) -> None:
        """Raises SettingsError, ListenError and OSError."""
        specs = settings.listens()
        count = settings.worker_count()
        proxy = settings.proxy()
        self.default_pairs: DefaultPairs | None = settings.default_pairs() if any(spec.ssl for spec in specs) else None
        self._arguments = (
            "--handover="
            + Handover(
                proxy=proxy,
                backlogs=tuple(spec.backlog for spec in specs),
                tls=tuple(spec.ssl for spec in specs),
                proxy_protocol=tuple(spec.proxy_protocol for spec in specs),
                log_level=settings.log_level,
                log_format=settings.log_format,
                node_id=node_id,
                access_log=settings.access_log_settings(),
                series_max=settings.metrics_series_max,
                router_flavour=settings.router_flavor,
            ).to_json(),
        )
        self._cores = sorted(os.sched_getaffinity(0)) if settings.worker_affinity else []
        self._early: dict[int, Launched] = {}
        self.status_socket = bind_one(settings.status_listen)
        self.sockets: list[list[socket.socket]]
        """For each worker one socket of every listener."""
        try:
            self.sockets, self.addresses = _bind(specs, count)
        except BaseException:
            self.status_socket.close()
            raise

    def __enter__(self) -> Self:
        """Launch the first process of every worker. Raises OSError."""
        try:
            for index in range(len(self.sockets)):
                self._early[index] = self._launch(index)
        except BaseException:
            self._end_early()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_early()

    def launch(self, index: int) -> Launched:
        """A process for a worker: the early one at first, a new one afterwards. Raises OSError."""
        return self._early.pop(index, None) or self._launch(index)

    def _launch(self, index: int) -> Launched:
        cores = self._cores
        return launch(
            index,
            arguments=self._arguments,
            sockets=self.sockets[index],
            affinity=frozenset({cores[index % len(cores)]}) if cores else frozenset(),
            default_pairs=self.default_pairs,
        )

    def _end_early(self) -> None:
        while self._early:
            _, launched = self._early.popitem()
            launched.give_up()


def _bind(specs: Sequence[ListenSpec], count: int) -> tuple[list[list[socket.socket]], list[SocketAddress]]:
    by_listener: list[list[socket.socket]] = []
    try:
        for spec in specs:
            if is_taken(spec):
                _log.warning("another process listens on %s; connections will be shared with it", spec.address)
            by_listener.append(bind_for_workers(spec, count))
    except BaseException:
        for sockets in by_listener:
            for sock in sockets:
                sock.close()
        raise
    by_worker = [[sockets[index] for sockets in by_listener] for index in range(count)]
    return by_worker, [address_of(sockets[0]) for sockets in by_listener]
