"""`python -m data_plane.worker`: how the node process starts a worker. Nobody else does.

The channel and the listening sockets are inherited descriptors named on the command line. Signals meant for the node
(a terminal's Ctrl-C, a service manager's SIGTERM to the whole group) are ignored: the node process says when to end,
over the channel or by closing it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from data_plane.channel import Channel
from data_plane.handover import Handover, Pair, read_pairs
from data_plane.observe.access_log import OFF, AccessLog
from data_plane.observe.counters import Counters
from data_plane.observe.log_lines import line_of
from data_plane.proxy.serving import client_factory
from data_plane.proxy.tables import Active
from data_plane.proxy.tls import DefaultPairs, listener_context
from data_plane.worker import memory
from data_plane.worker.acceptor import Greeting
from data_plane.worker.certificates import Credentials
from data_plane.worker.listeners import Listeners
from data_plane.worker.process import Worker
from pointsman import logs


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m data_plane.worker", allow_abbrev=False)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--listen-fds", required=True)
    parser.add_argument("--handover", required=True)
    parser.add_argument("--default-pairs-fd", type=int, default=-1)
    given = parser.parse_args(arguments)
    handover = Handover.from_json(given.handover)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    logs.set_up(level=handover.log_level, form=handover.log_format)
    channel_end = socket.socket(fileno=given.channel_fd)
    sockets = [socket.socket(fileno=int(descriptor)) for descriptor in given.listen_fds.split(",") if descriptor]
    for inherited in (channel_end, *sockets):
        inherited.set_inheritable(False)
    default_pairs: list[Pair] = []
    if given.default_pairs_fd >= 0:
        default_pairs = read_pairs(given.default_pairs_fd)
        os.close(given.default_pairs_fd)
    trusted_file = handover.proxy.upstream_tls_trusted_certificate
    trusted = Path(trusted_file).read_text(encoding="ascii", errors="replace") if trusted_file else ""
    credentials = Credentials(handover.proxy, serves=any(handover.tls), trusted=trusted)
    memory.take_over()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(handover, channel_end, sockets, default_pairs, credentials))
    return 0


async def _serve(
    handover: Handover,
    channel_end: socket.socket,
    sockets: Sequence[socket.socket],
    default_pairs: Sequence[Pair],
    credentials: Credentials,
) -> None:
    loop = asyncio.get_running_loop()
    active, counters = Active(), Counters(series_max=handover.series_max)
    access_log: AccessLog | None = None
    if handover.access_log.path != OFF:
        access_log = AccessLog(handover.access_log, line_of(handover.access_log.format, node_id=handover.node_id))
        access_log.start()
    factory = client_factory(active, handover.proxy, loop, counters, access_log=access_log)
    settings = handover.proxy
    defaults: DefaultPairs | None = None
    context: ssl.SSLContext | None = None
    if any(handover.tls):
        defaults = DefaultPairs(settings, default_pairs)
        context = listener_context(active, defaults)
    greetings: list[Greeting | None] = [
        Greeting(factory, context if encrypted else None, announced, settings.head_timeout_s)
        if encrypted or announced
        else None
        for encrypted, announced in zip(handover.tls, handover.proxy_protocol, strict=True)
    ]
    channel: Channel | None = None

    def send(message: bytes) -> None:
        if channel is not None:
            channel.send(message)

    worker = Worker(
        active=active,
        factory=factory,
        counters=counters,
        listeners=Listeners(sockets, factory, backlogs=handover.backlogs, greetings=greetings),
        send=send,
        access_log=access_log,
        credentials=credentials,
        router_flavour=handover.router_flavour,
        defaults=defaults,
        # Nobody handles it, so it ends this process, whatever the loop is stuck in.
        end_by=lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds),
    )
    channel = await Channel.open(channel_end, worker.on_message, worker.on_channel_lost)
    worker.attach(channel)
    await worker.run()
    channel.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
