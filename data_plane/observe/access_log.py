"""The access log: one line a request, written by a thread of its own.

A request puts a `Record` into a bounded queue and goes on. The thread makes lines of records and writes them. When it
does not keep up (a full disk, a pipe nobody reads), records are dropped and counted, and no request waits. Each line
goes out whole in one write to a file opened for appending, so several workers share one file.

No secret is logged: fields that carry credentials are left out, and the whole `Authorization` with them.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from data_plane.model import RouteConfig, ServiceConfig


QUEUE_MAX = 10_000
"""Records that may wait, in a worker."""
OFF = "off"
STOP_WITHIN_S = 1.0
"""How long a stopping worker waits for what is still to be written."""
COMPLAIN_EVERY_S = 60.0
# While a writer thread runs, the loop may have to wait for the interpreter this long at most.
_SWITCH_INTERVAL_S = 0.0005
_BATCH_MAX = 64
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}

_log = logging.getLogger(__name__)


class AccessLogFormat(StrEnum):
    """How a line looks."""

    JSON = "json"  # the field names of Kong's file-log plugin
    COMBINED = "combined"  # nginx's combined format with Kong's request id behind it


@dataclass(frozen=True, slots=True)
class AccessLogSettings:
    """`path` is `off`, `/dev/stdout`, `/dev/stderr` or a file's, which is created when it is missing."""

    path: str = OFF
    format: AccessLogFormat = AccessLogFormat.JSON
    queue_max: int = QUEUE_MAX


class Attempt(NamedTuple):
    """One try of a request, at `at` by the monotonic clock."""

    ip: str
    port: int
    at: float


class Record(NamedTuple):
    """One request as it ended. Bytes are as they came; times are seconds, `ended` since 1970, `ended_at` monotonic.

    `fields` is the block of request field lines, `answer` the lines of the answer's head. `status` 0 = the client left
    first. `upstream_s` < 0 = no upstream answered. `side` is the upstream's name; empty = none was asked, or a host
    that is no upstream.
    """

    ended: float
    ended_at: float
    client: bytes
    scheme: str
    port: int
    method: bytes
    path: bytes
    query: bytes
    http10: bool
    host: bytes
    fields: bytes
    status: int
    own: bool
    answer: tuple[bytes, ...]
    bytes_in: int
    bytes_out: int
    request_id: bytes
    route: RouteConfig | None
    service: ServiceConfig | None
    upstream_start: bytes
    proxy_s: float
    upstream_s: float
    request_s: float
    attempts: tuple[Attempt, ...]
    version: int
    side: str = ""


class AccessLog:
    """The queue and its thread. `put` is for the loop's thread alone."""

    def __init__(self, settings: AccessLogSettings, line: Callable[[Record], bytes]) -> None:
        self.dropped: int = 0
        """Records that found the queue full."""
        self.lost: int = 0
        """Records that could not be written."""
        self.written: int = 0
        self._settings = settings
        self._line = line
        self._queue: queue.SimpleQueue[Record | _Order] = queue.SimpleQueue()
        self._taken_in: int = 0
        self._done: int = 0  # by the thread alone
        self._file: int = -1
        self._stopping = False
        self._complained_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL_S))
        self._thread.start()

    def put(self, record: Record) -> None:
        """Have a record written, or drop it when too many wait."""
        if self._taken_in - self._done >= self._settings.queue_max:
            self.dropped += 1
            return
        self._taken_in += 1
        self._queue.put(record)

    def reopen(self) -> None:
        """Open the file anew before the next record: it was moved away."""
        self._queue.put(_REOPEN)

    def stop(self) -> None:
        """Write what waits, within a time, and end."""
        self._queue.put(_STOP)
        self._thread.join(STOP_WITHIN_S)
        self._stopping = True

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            batch: list[bytes] = []
            taken = 0
            order: _Order | None = None
            item: Record | _Order = first
            while True:
                if isinstance(item, _Order):
                    order = item
                    break
                taken += 1
                try:
                    batch.append(self._line(item))
                except Exception:  # one record that can't be written must not end the log
                    self.lost += 1
                    self._complain("a record could not be made a line", exc_info=True)
                time.sleep(0)  # lets the loop have the interpreter between two lines
                if len(batch) >= _BATCH_MAX or self._queue.empty():
                    break
                item = self._queue.get()
            if batch:
                self._write(batch)
            self._done += taken
            if order is _STOP:
                self._close()
                return
            if order is _REOPEN:
                self._close()

    def _write(self, lines: list[bytes]) -> None:
        try:
            if self._file < 0:
                self._file = _opened(self._settings.path)
            for line in lines:
                self._write_whole(line)
                self.written += 1
        except OSError as error:
            self.lost += len(lines)
            self._close()
            self._complain(f"access log {self._settings.path} can't be written: {error.strerror}")

    def _write_whole(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            try:
                left = left[os.write(self._file, left) :]
            except BlockingIOError:
                if self._stopping:
                    raise
                select.select((), (self._file,), (), 1.0)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _complain(self, text: str, *, exc_info: bool = False) -> None:
        now = time.monotonic()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            _log.error("%s; %d records lost so far", text, self.lost, exc_info=exc_info)


class _Order:
    """Something for the thread to do in its turn."""

    __slots__ = ()


_REOPEN = _Order()
_STOP = _Order()


def _opened(path: str) -> int:
    stream = _STREAMS.get(path)
    if stream is not None:
        return os.dup(stream)  # by number: the path can't be opened when it is a socket
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
