"""Puts the parts of a control plane together, in the order of the arrows, and takes them apart again in reverse.

store <- fleet (follows the store, talks to nodes) <- Admin API (writes to the store, asks the fleet)
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import ssl
import tempfile
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from control_plane.admin.guard import Guard
from control_plane.admin.server import AdminServer
from control_plane.admin.tls import AdminTls
from control_plane.events.ring import Kind, Ring
from control_plane.events.sources import Sources
from control_plane.events.webhooks import Webhooks
from control_plane.fleet.enrolment import EnrolmentServer
from control_plane.fleet.fleet import Fleet
from control_plane.fleet.gate import EnrolledGate, Gate, PkiGate, SharedGate
from control_plane.fleet.settings import FleetSettings
from control_plane.identity import first_token, node_ca
from control_plane.identity.node_certificates import NodeCertificates
from control_plane.identity.operators import Operators, Rules
from control_plane.settings import Settings
from control_plane.snapshot.consistency import before_commit
from control_plane.store.contract import Store, StoreError, StoreUnusable
from control_plane.store.opening import given_keyring, is_postgres, open_store, shown
from control_plane.store.resealing import Resealer
from control_plane.store.retention import Housekeeping, Retention
from control_plane.switching.canaries import Canaries
from control_plane.switching.schedule import Schedule
from pointsman.rules.cluster_mtls import ClusterMtls
from pointsman.settings import SocketAddress

_log = logging.getLogger(__name__)


class StartError(Exception):
    """Something that a control plane stands on can't be had. The text says what, and what to do."""


class ControlPlane:
    """A running control plane, as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.admin_address = settings.admin_listen
        self.fleet_address = settings.fleet_listen
        self.enrolment_address: SocketAddress | None = None
        self._stack = AsyncExitStack()
        self._store: Store | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def until_put_back(self) -> None:
        """Returns when the database was restored beneath this control plane, which is of no use from then on."""
        assert self._store is not None, "it is running"
        await self._store.until_put_back()

    async def _start(self) -> None:
        settings = self.settings
        if settings.insecure_admin and not settings.admin_listen.is_loopback:
            _log.warning("the Admin API is open to everyone who can reach %s", settings.admin_listen)
        if settings.insecure_fleet and not settings.fleet_listen.is_loopback:
            _log.warning("the fleet link is open to everyone who can reach %s", settings.fleet_listen)

        try:
            keyring = given_keyring(settings.keyring, settings.keyring_file)
            store = await open_store(settings.database, keyring=keyring, before_commit=before_commit)
        except (StoreError, StoreUnusable) as error:
            raise StartError(str(error)) from error
        self._stack.push_async_callback(store.close)
        self._store = store
        epoch = await store.epoch()
        housekeeping = Housekeeping(store, Retention(settings.versions_kept, settings.versions_kept_days))
        housekeeping.start()
        self._stack.push_async_callback(housekeeping.stop)

        resealer = Resealer(store)
        resealer.start()
        self._stack.push_async_callback(resealer.stop)

        gate = await _gate(store, settings)
        nodes = gate.nodes if isinstance(gate, EnrolledGate) else None
        fleet = Fleet(
            store,
            FleetSettings(
                listen=str(settings.fleet_listen),
                beat_interval_s=settings.beat_interval_s,
                canary_wait_s=settings.canary_wait_s,
                sole_plane=not is_postgres(settings.database),
                accept_rollback=settings.accept_rollback,
                accept_empty=settings.accept_empty,
            ),
            gate=gate,
        )
        try:
            await fleet.start()
        except OSError as error:
            raise _not_listening("fleet", settings.fleet_listen, error) from error
        self._stack.push_async_callback(fleet.stop)
        self.fleet_address = SocketAddress(settings.fleet_listen.host, fleet.port)

        if isinstance(gate, EnrolledGate):
            enrolment = EnrolmentServer(str(settings.enrolment_address), gate)
            try:
                await enrolment.start()
            except OSError as error:
                raise _not_listening("enroll", settings.enrolment_address, error) from error
            self._stack.push_async_callback(enrolment.stop)
            self.enrolment_address = SocketAddress(settings.enrolment_address.host, enrolment.port)

        canaries = Canaries(store, fleet.rollouts, fleet, sole=not is_postgres(settings.database))
        ring = Ring(wall=time.time)
        webhooks = Webhooks(ring, settings.webhooks, kinds=_webhook_kinds(settings), secret=settings.webhook_secret)
        await webhooks.start()
        self._stack.push_async_callback(webhooks.stop)
        schedule = Schedule(store)
        sources = Sources(ring, store, fleet.registry, fleet.rollouts, canaries=canaries, schedule=schedule)
        await sources.start()
        self._stack.push_async_callback(sources.stop)
        await canaries.start()
        self._stack.push_async_callback(canaries.stop)

        operators = await _operators(store, settings)
        tls = _admin_tls(settings)
        if tls is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, tls)
        admin = AdminServer(
            store,
            fleet,
            listen=settings.admin_listen,
            node_id=str(uuid.UUID(bytes=epoch, version=4)),
            limits=settings.limits(),
            guard=Guard(
                hosts=frozenset(name.lower() for name in (*settings.admin_hosts, settings.admin_listen.host)),
                origins=frozenset(settings.admin_origins),
            ),
            operators=operators,
            node_certificates=nodes,
            canaries=canaries,
            schedule=schedule,
            ring=ring,
            webhooks=webhooks,
            tls=None if tls is None else tls.context,
            log_level=settings.log_level,
        )
        try:
            await admin.start()
        except OSError as error:
            raise _not_listening("admin", settings.admin_listen, error) from error
        self._stack.push_async_callback(admin.stop)
        await schedule.start()
        self._stack.push_async_callback(schedule.stop)
        self.admin_address = admin.address

        if settings.ports_file:
            ports = {"admin": str(self.admin_address), "fleet": str(self.fleet_address)}
            if self.enrolment_address is not None:
                ports["enroll"] = str(self.enrolment_address)
            try:
                await asyncio.to_thread(_write_whole, Path(settings.ports_file), json.dumps(ports))
            except OSError as error:
                raise StartError(
                    f"{settings.ports_file} can't be written: {error.strerror}; check ports_file"
                ) from error
        _log.info(
            "the control plane is up", extra={"version": await store.head(), "database": shown(settings.database)}
        )


async def _gate(store: Store, settings: Settings) -> Gate | None:
    """Who may be a node; None = whoever reaches the link."""
    mode = settings.node_identity
    if mode is ClusterMtls.ENROLLED:
        try:
            authorities = await node_ca.load_or_make(store, now=time.time())
        except StoreError as error:
            raise StartError(f"the CA of the nodes can't be had: {error}") from error
        nodes = NodeCertificates(store, authorities, life_s=settings.node_certificate_life_s)
        return EnrolledGate(nodes, (settings.fleet_listen.host, *settings.fleet_names))
    if mode is ClusterMtls.OFF:
        return None
    try:
        return await asyncio.to_thread(_gate_of_files, settings, mode)
    except (OSError, ValueError) as error:
        raise StartError(f"cluster_cert, cluster_cert_key or cluster_ca_cert can't be used: {error}") from error


def _gate_of_files(settings: Settings, mode: ClusterMtls) -> Gate:
    certificate, key = Path(settings.cluster_cert).read_bytes(), Path(settings.cluster_cert_key).read_bytes()
    if mode is ClusterMtls.SHARED:
        _log.warning("all nodes share one certificate; none can be told from another, or shut out by itself")
        return SharedGate(certificate, key)
    trusted = Path(settings.cluster_ca_cert).read_bytes()
    return PkiGate(certificate, key, trusted, names=settings.cluster_allowed_names)


def _webhook_kinds(settings: Settings) -> frozenset[Kind]:
    return frozenset(Kind(name) for name in settings.webhook_types)


async def _operators(store: Store, settings: Settings) -> Operators:
    """Who may call the Admin API; makes the first admin's token where one is needed."""
    rules = Rules(
        required=settings.tokens_required,
        reads_per_s=settings.admin_reads_per_s,
        writes_per_s=settings.admin_writes_per_s,
    )
    operators = Operators(store, rules)
    if rules.required:
        beside = "pointsman" if is_postgres(settings.database) else settings.database
        file = Path(settings.admin_token_file or f"{beside}.admin-token")
        try:
            if await first_token.ensure(operators, file, now=time.time()):
                _log.warning("no admin had a token; the first one is in %s, readable by this user only", file)
        except OSError as error:
            raise StartError(
                f"the first admin's token can't be written to {file}: {error.strerror}; see admin_token_file"
            ) from error
    return operators


def _admin_tls(settings: Settings) -> AdminTls | None:
    if not settings.admin_tls_cert:
        return None
    try:
        return AdminTls.of(settings.admin_tls_cert, settings.admin_tls_key)
    except (OSError, ssl.SSLError) as error:
        raise StartError(
            f"admin_tls_cert {settings.admin_tls_cert} and admin_tls_key {settings.admin_tls_key} can't be used: "
            f"{error.strerror or error}; give PEM files of a certificate and its key"
        ) from error


def _reload(tls: AdminTls) -> None:
    try:
        tls.reload()
    except OSError as error:  # ssl.SSLError is one
        _log.error("the Admin API's certificate is not changed: %s", error.strerror or error)
    else:
        _log.info("the Admin API's certificate was read again")


def _not_listening(name: str, address: SocketAddress, error: OSError) -> StartError:
    why = error.strerror or str(error)
    return StartError(f"can't listen on {address}: {why}; is another one running? choose another {name}_listen")


def _write_whole(path: Path, text: str) -> None:
    """Readers see all of the file or none of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(temporary).replace(path)
