"""The start of a worker's process: by exec, with its own copies of its listening sockets and its end of a channel.

Never by a fork: the node process runs grpc, whose threads do not survive one. Apart from `workers.py`, which speaks to
the process afterwards, because the first workers are launched before anything that takes long is loaded.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_plane.handover import Pair
    from data_plane.node.default_pairs import DefaultPairs


@dataclass(frozen=True, slots=True)
class Launched:
    """A process to which nobody has spoken yet, our end of its channel, and the default certificates it has."""

    index: int
    process: subprocess.Popen[bytes]
    channel_end: socket.socket
    pairs: Sequence[Pair]

    def give_up(self) -> None:
        """End a process that nobody is going to speak to."""
        self.channel_end.close()
        self.process.kill()
        self.process.wait()


def launch(
    index: int,
    *,
    arguments: Sequence[str],
    sockets: Sequence[socket.socket],
    affinity: frozenset[int] = frozenset(),
    default_pairs: DefaultPairs | None = None,
) -> Launched:
    """Start a worker with its own copies of `sockets`; `affinity` empty = any core. Raises OSError."""
    pairs = default_pairs.pairs if default_pairs is not None else ()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with theirs:
            descriptors = [sock.fileno() for sock in sockets]
            command = [
                sys.executable,
                "-m",
                "data_plane.worker",
                f"--index={index}",
                f"--channel-fd={theirs.fileno()}",
                f"--listen-fds={','.join(map(str, descriptors))}",
                *arguments,
            ]
            inherited = [theirs.fileno(), *descriptors]
            if default_pairs is not None:
                command.append(f"--default-pairs-fd={default_pairs.descriptor}")
                inherited.append(default_pairs.descriptor)
            # Popen uses vfork, so this returns in a millisecond or two; the loop's own subprocess API forks through
            # libuv, which would run grpc's fork handlers.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=inherited)  # noqa: S603 - our own
        if affinity:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, affinity)
    except BaseException:
        ours.close()
        raise
    return Launched(index, process, ours, pairs)
