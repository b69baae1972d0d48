"""What becomes of a process that can open nothing more: its descriptors counted, and all of them taken."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest


def descriptors() -> int:
    """Return how many this process has open."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Take all descriptors that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        with closing(socket.socket()) as probe:
            resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno() + 8, hard))
        with pytest.raises(OSError, match="Too many open files"):  # noqa: PT012 - as many as it takes
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
