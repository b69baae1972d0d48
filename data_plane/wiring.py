"""Puts a node together from its settings, runs it until a signal, and takes it apart again."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from data_plane.front import Front
from data_plane.node.applying import Applier, ApplyLimits
from data_plane.node.fence import Contact, FenceKeeper
from data_plane.node.fleet_access import BadFiles, FilesAccess, FleetAccess, PlainAccess
from data_plane.node.following import Followers
from data_plane.node.health_care import HealthCare
from data_plane.node.last_good import LastGood
from data_plane.node.link import Link, LinkSettings
from data_plane.node.membership import BadIdentity, Membership
from data_plane.node.messages import Introduction
from data_plane.node.metrics_sum import MetricsSum
from data_plane.node.names import Names
from data_plane.node.node import Levels, Node
from data_plane.node.rollouts import Rollouts
from data_plane.node.side_sums import SideReports
from data_plane.node.sockets import address_of
from data_plane.node.supervisor import Slot, Supervisor
from data_plane.node.workers import WorkerProcess
from data_plane.resolve.answers import Answer
from data_plane.resolve.cache import Cache, CacheRules
from data_plane.resolve.client import Client
from data_plane.resolve.resolver import Resolver
from data_plane.resolve.system import Nameserver, ResolvConf, parse_hosts, parse_resolv_conf
from data_plane.settings import NodeSettings
from pointsman import heap
from pointsman.rules.cluster_mtls import ClusterMtls
from pointsman.rules.plane_clock import PlaneClock
from pointsman.settings import SettingsError
from pointsman.version import software_version

RESOLV_CONF = Path("/etc/resolv.conf")

_log = logging.getLogger(__name__)


def run(settings: NodeSettings, own_id: str, front: Front) -> None:
    """Serve until SIGTERM or SIGINT and end in good order; a second signal ends at once.

    Raises SettingsError and OSError for what can't be had at start.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings, own_id, front))


async def _run(settings: NodeSettings, own_id: str, front: Front) -> None:
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    resolver = _resolver(settings)
    access, node_id = fleet_access(settings, own_id)
    node = _assemble(settings, node_id, resolver, access, front)
    loop.add_signal_handler(signal.SIGHUP, node.reread)
    life = asyncio.create_task(_live(node, settings), name="node")
    told = asyncio.create_task(signals.get(), name="first signal")
    try:
        await asyncio.wait((life, told), return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            life.result()
        else:
            await _cancel(life)  # a start that is still under way ends here; a running node just goes on
            await _end(node, settings, signals)
    finally:
        await _cancel(life, told)
        await node.stop()
        await resolver.close()


async def _live(node: Node, settings: NodeSettings) -> None:
    """Start and go on until a part fails that nothing works without."""
    with heap.undisturbed():
        await node.start(ports_file=Path(settings.ports_file) if settings.ports_file else None)
    heap.settle()
    await node.failed()


async def _end(node: Node, settings: NodeSettings, signals: asyncio.Queue[signal.Signals]) -> None:
    """The good end, unless there is a second signal."""
    ending = asyncio.create_task(
        node.end(accept_for_s=settings.drain_delay_s, finish_within_s=settings.drain_timeout_s), name="end"
    )
    again = asyncio.create_task(signals.get(), name="second signal")
    try:
        await asyncio.wait((ending, again), return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            ending.result()
        else:
            _log.warning("told to stop again: ending at once")
    finally:
        await _cancel(ending, again)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def fleet_access(settings: NodeSettings, own_id: str) -> tuple[FleetAccess, str]:
    """How this node gets through to the control plane, and its id, which a certificate of an own CA may give.

    Raises SettingsError.
    """
    try:
        mode = settings.identity_mode(joined=Membership.exists(settings.state_dir))
        if mode is ClusterMtls.ENROLLED:
            membership = Membership(
                settings.state_dir,
                own_id,
                token=settings.join_token,
                enrol_at=settings.enrolment_addresses(),
                addresses=tuple(str(address) for address in settings.control_plane),
                hostname=socket.gethostname(),
            )
            return membership, own_id
        if mode is ClusterMtls.OFF:
            return PlainAccess(), own_id
        authority = Path(settings.cluster_ca_cert) if mode is ClusterMtls.PKI else None
        files = FilesAccess(
            Path(settings.cluster_cert),
            Path(settings.cluster_cert_key),
            authority,
            server_name=settings.cluster_server_name,
        )
        return files, files.node_id() if mode is ClusterMtls.PKI else own_id
    except (BadIdentity, BadFiles) as error:
        raise SettingsError(f"setting cluster_mtls: {error}") from None


def _assemble(settings: NodeSettings, node_id: str, resolver: Resolver, access: FleetAccess, front: Front) -> Node:
    slots = [Slot(index, sockets) for index, sockets in enumerate(front.sockets)]
    default_pairs = front.default_pairs
    cache_rules = _cache_rules(settings)
    sums = MetricsSum(settings.metrics_series_max)
    plane_clock = PlaneClock()
    side_reports = SideReports(sums.sides, lambda at_ns: plane_clock.to_plane(at_ns, time.monotonic_ns()) or 0)

    async def spawn(slot: Slot) -> WorkerProcess:
        launched = front.launch(slot.index)
        process = await WorkerProcess.take_over(launched)
        if default_pairs is not None and default_pairs.pairs is not launched.pairs:
            process.replace_default_pairs(default_pairs.pairs)  # they were read anew while it started
        sums.watch(process)
        process.on_observations = health.verdicts.observed
        return process

    supervisor = Supervisor(slots, spawn=spawn)

    def tell_workers(answers: Sequence[Answer]) -> None:
        for process in supervisor.processes:
            process.push_names(answers)
        health.verdicts.names_changed(answer.name for answer in answers)

    def tell_all(message: bytes) -> None:
        for process in supervisor.processes:
            process.push(message)

    names = Names(resolver.resolve, Cache(cache_rules), on_change=tell_workers)
    health = HealthCare(node_id, answers=lambda name: next(iter(names.answers((name,))), None), broadcast=tell_all)
    fences = FenceKeeper(tell_all, Contact(settings.state_dir / "last-contact"))
    applier = Applier(
        supervisor,
        names,
        health=Followers(health.verdicts, fences),
        limits=ApplyLimits(
            names_s=settings.names_wait_s,
            prepare_s=settings.prepare_timeout_s,
            activate_s=settings.activate_timeout_s,
        ),
    )
    levels = Levels()
    rollouts = Rollouts(
        node_id,
        applier,
        plane_clock,
        workers=len(slots),
        outlook=health.verdicts.outlook,
        snapshot_bytes_max=settings.snapshot_bytes_max,
        follower=lambda: link.intake,  # made below
    )
    link = Link(
        LinkSettings(
            addresses=tuple(str(address) for address in settings.control_plane),
            snapshot_bytes_max=settings.snapshot_bytes_max,
        ),
        Introduction(
            node_id=node_id,
            hostname=socket.gethostname(),
            software=software_version(),
            boot_id=time.time_ns(),
            labels=dict(settings.labels),
            workers=len(slots),
            proxy_addresses=tuple(str(address) for address in front.addresses),
            status_address=str(address_of(front.status_socket)),
        ),
        applier,
        LastGood(settings.state_dir / "last-good", raw_bytes_max=settings.snapshot_bytes_max),
        in_flight=levels,
        tracer=supervisor.trace,
        health=health.reports,
        sides=side_reports,
        rollouts=rollouts,
        plane_clock=plane_clock,
        touch=fences,
        access=access,
    )
    return Node(
        node_id=node_id,
        supervisor=supervisor,
        applier=applier,
        names=names,
        link=link,
        rollouts=rollouts,
        levels=levels,
        health=health,
        fences=fences,
        sums=sums,
        side_reports=side_reports,
        default_pairs=default_pairs,
        proxy_addresses=front.addresses,
        status_socket=front.status_socket,
    )


def _resolver(settings: NodeSettings) -> Resolver:
    try:
        conf = parse_resolv_conf(RESOLV_CONF.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        conf = ResolvConf()
        _log.warning("%s can't be read (%s); asking %s", RESOLV_CONF, error.strerror, conf.nameservers[0].ip)
    try:
        hosts = settings.resolver_hosts_file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        hosts = ""
        _log.warning("hosts file %s can't be read (%s); going on without", settings.resolver_hosts_file, error.strerror)
    unknown = set(settings.resolver_family) - {"A", "AAAA", "SRV"}
    if unknown:
        raise SettingsError(f"setting resolver_family: '{unknown.pop()}' is none of A, AAAA, SRV")
    try:
        nameservers = tuple(Nameserver.parse(str(address)) for address in settings.resolver) or conf.nameservers
    except ValueError as error:
        raise SettingsError(f"setting resolver: {error}; a nameserver is given by its address") from None
    client = Client(nameservers, attempt_timeout_s=conf.attempt_timeout_s, attempts=conf.attempts, rotate=conf.rotate)
    return Resolver(client, conf=conf, hosts=parse_hosts(hosts), families=settings.resolver_family)


def _cache_rules(settings: NodeSettings) -> CacheRules:
    try:
        return CacheRules(
            valid_ttl_s=settings.resolver_valid_ttl_s or None,
            ttl_min_s=settings.resolver_ttl_min_s,
            ttl_max_s=settings.resolver_ttl_max_s,
            stale_ttl_s=settings.resolver_stale_ttl_s,
            error_ttl_s=settings.resolver_error_ttl_s,
            error_ttl_max_s=max(30.0, settings.resolver_error_ttl_s),
        )
    except ValueError as error:
        raise SettingsError(f"resolver settings: {error}") from None
