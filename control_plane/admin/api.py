"""All paths of the Admin API, and the way of one call through them.

    guard -> token -> path -> method -> role -> handler -> answer, or the answer that an error stands for

Nothing here knows of sockets; `server.py` does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from control_plane.admin import (
    access,
    audit,
    batch,
    certificates,
    collections,
    events,
    files,
    history,
    information,
    kong_config,
    manual_health,
    metrics,
    node_identities,
    nodes,
    openapi,
    planned,
    plugins,
    rollouts,
    service_settings,
    switches,
    tags,
    targets,
    tracing,
    traffic,
    upstream_health,
    upstream_settings,
)
from control_plane.admin.errors import error_answer, store_answer
from control_plane.admin.guard import WRITING
from control_plane.admin.messages import Answer, Call, Instead, Refused, message_answer
from control_plane.admin.parts import Parts
from control_plane.admin.preconditions import not_modified
from control_plane.admin.table import Found, PathTable
from control_plane.admin.writes import Writes
from control_plane.entities.errors import EntityError
from control_plane.entities.plugin import PLUGINS
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.schema import Schema
from control_plane.events.webhooks import Webhooks
from control_plane.identity.operators import Operators
from control_plane.store.contract import StoreError
from pointsman.version import software_version

_log = logging.getLogger(__name__)


class AdminApi:
    """The Admin API as a function from calls to answers."""

    def __init__(
        self,
        parts: Parts,
        *,
        identity: information.Identity,
        connections: Callable[[], information.Connections],
        schemas: Mapping[str, Schema] = SCHEMAS,
    ) -> None:
        store, fleet = parts.store, parts.fleet
        self.guard = parts.guard
        webhooks = parts.webhooks or Webhooks(parts.ring, (), kinds=frozenset())
        operators = parts.operators or Operators(store)
        self.door = access.Door(operators)
        self.writes = Writes(store, fleet)
        self.table = table = PathTable()
        collections.mount(
            table,
            schemas,
            self.writes,
            nested_only=frozenset({targets.TARGETS}),
            apart=frozenset({certificates.CERTIFICATES}),
        )
        if certificates.CERTIFICATES in schemas:
            certificates.mount(table, schemas, self.writes)
        if targets.TARGETS in schemas:
            below_upstreams = targets.Targets(schemas[targets.TARGETS], self.writes)
            targets.mount(table, below_upstreams)
            upstream_health.mount(table, below_upstreams, fleet, node_id=identity.node_id)
            upstream_settings.mount(table, self.writes)
            manual_health.mount(table, self.writes, fleet)
        if "services" in schemas:
            service_settings.mount(table, self.writes)
        planned.mount(table)
        plugins.mount(table, PLUGINS)
        tags.mount(table, self.writes)
        history.mount(table, self.writes)
        audit.mount(table, store)
        self._refusals = audit.Refusals(store)
        nodes.mount(table, fleet)
        node_identities.mount(table, parts.node_certificates)
        if fleet.rollouts is not None:
            rollouts.mount(table, fleet.rollouts, self.writes.now)
        if parts.switches is not None:
            switches.mount(table, parts.switches, self.writes.now)
        tracing.mount(table, fleet)
        traffic.mount(table, store, fleet)
        self.streams = events.Streams(parts.ring, self.door)
        events.mount(table, self.streams)
        self.lag = metrics.LoopLag()
        metrics.mount(table, self.writes, fleet, identity, connections, lag=self.lag, webhooks=webhooks)
        files.mount(table, self.writes)
        kong_config.mount(table, self.writes)
        batch.mount(table, self.writes)
        access.mount(table, operators)
        information.mount(table, schemas, store, identity, connections)
        openapi.mount(table, schemas, version=software_version())

    async def answer(self, call: Call) -> Answer:
        """Answers every call; what goes wrong is an answer too, and refused writes are noted in the audit trail."""
        answer = await self._answer(call)
        if answer.status >= 400 and (call.method in WRITING or answer.status in (401, 403)):
            await self._refusals.note(call, answer.status)
        return answer

    async def _answer(self, call: Call) -> Answer:
        try:
            found = self.table.find(call.path)
            call.template = "" if found is None else found.template
            self.guard.check(call.method, call.headers)
            if call.method != "OPTIONS":  # browsers ask without credentials; it tells methods, nothing else
                await self.door.admit(call)
            if found is None:
                return message_answer(404, "Not found")
            if call.method == "OPTIONS":
                return _options(call, found)
            handler = found.methods.get("GET" if call.method == "HEAD" else call.method)
            if handler is None:
                return message_answer(405, "Method not allowed")
            access.check(call)
            answer = await handler(call, found.variables)
            if call.method in ("GET", "HEAD") and not_modified(call, answer):
                return Answer(304, headers=answer.headers)
            return answer
        except Instead as instead:
            return instead.answer
        except Refused as refused:
            return refused.answer()
        except EntityError as error:
            return error_answer(error)
        except StoreError as error:
            _log.warning(
                "the store refused a request", extra={"method": call.method, "path": call.template, "why": error}
            )
            return store_answer(error)
        except Exception:
            _log.exception(
                "a request failed", extra={"method": call.method, "path": call.template}
            )  # a path may hold a key
            return message_answer(500, "An unexpected error occurred")


def _options(call: Call, found: Found) -> Answer:
    return Answer(
        204,
        headers={
            "Allow": found.allowed,
            "Access-Control-Allow-Methods": found.allowed,
            "Access-Control-Allow-Headers": call.headers.get("Access-Control-Request-Headers") or "Content-Type",
        },
    )
