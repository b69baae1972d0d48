"""What the Admin API says about itself: `/`, `/status`, `/endpoints` and `/schemas/...`."""

from __future__ import annotations

import os
import platform
import resource
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from control_plane.admin.bodies import entity_body
from control_plane.admin.messages import Answer, Call, Refused, json_answer
from control_plane.admin.operations import FORM, JSON, Operation
from control_plane.admin.plugins import about_plugins
from control_plane.admin.table import PathTable
from control_plane.entities.plugin import PLUGINS
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Store
from pointsman.version import software_version

KONG_VERSION = "3.10.0"
"""The Kong whose Admin API this is. decK reads the first two numbers and chooses its file format by them."""

SERVER = f"kong/{KONG_VERSION}"

_UNITS: Mapping[str, tuple[int, str]] = {"b": (0, ""), "k": (10, "KiB"), "m": (20, "MiB"), "g": (30, "GiB")}
_SCALE_MAX = 10


@dataclass(frozen=True, slots=True)
class Connections:
    """The Admin API's own traffic since its start."""

    accepted: int
    active: int
    requests: int
    writing: int  # requests being answered


@dataclass(frozen=True, slots=True)
class Identity:
    """What this process is; the same for its whole life."""

    node_id: str
    admin_address: Callable[[], str]  # known once it listens
    log_level: str = "info"


def mount(
    table: PathTable,
    schemas: Mapping[str, Schema],
    store: Store,
    identity: Identity,
    connections: Callable[[], Connections],
    *,
    clock: Callable[[], float] = time.time,
) -> None:
    """Adds the paths."""
    information = _Information(table, store, identity, connections)
    table.add("/", {"GET": information.root}, about=_about("Show what this gateway is", "version", "configuration"))
    table.add(
        "/status",
        {"GET": information.status},
        about=_about("Show the database's and the connections' state", "database"),
    )
    table.add("/endpoints", {"GET": information.endpoints}, about=_about("List all paths", "data"))
    documents = _Schemas(schemas, clock)
    table.add("/schemas/{schemas}", {"GET": documents.get}, about=_about("Describe a kind of entity", "fields"))
    validating = Operation(
        summary="Say whether an entity could be created, without looking at the store",
        body={JSON: {"type": "object"}, FORM: {"type": "object"}},
        answers={200: {"type": "object", "required": ["message"]}},
    )
    table.add("/schemas/{schemas}/validate", {"POST": documents.validate}, about={"POST": validating})
    nothing = Operation(summary="Always 404: there is no such thing", answers={})
    table.add(
        "/schemas/plugins/validate",
        {"GET": documents.no_plugin, "POST": documents.validate_plugin},
        about={"GET": nothing, "POST": validating},
    )
    table.add("/schemas/vaults/{name}", {"GET": documents.no_vault}, about={"GET": nothing})


def _about(summary: str, *required: str) -> dict[str, Operation]:
    return {"GET": Operation(summary=summary, answers={200: {"type": "object", "required": [*required]}})}


@dataclass(frozen=True, slots=True)
class _Information:
    table: PathTable
    store: Store
    identity: Identity
    connections: Callable[[], Connections]

    async def root(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        return json_answer(
            200,
            {
                "tagline": "Welcome to kong",
                "version": KONG_VERSION,
                "edition": "community",
                "pointsman": {"version": software_version(), "head": await self.store.head()},
                "hostname": socket.gethostname(),
                "node_id": self.identity.node_id,
                "lua_version": f"none (Python {platform.python_version()})",
                "plugins": await about_plugins(self.store, PLUGINS),
                "configuration": self._configuration(),
                "timers": {"running": 0, "pending": 0},
                "pids": {"master": os.getpid(), "workers": [os.getpid()]},
            },
        )

    def _configuration(self) -> EntityBody:
        """The keys of Kong's configuration that clients look at."""
        address = self.identity.admin_address()
        ip, _, port = address.rpartition(":")
        listener: EntityBody = {
            "ip": ip.strip("[]"),
            "port": int(port),
            "ssl": False,
            "http2": False,
            "listener": address,
        }
        return {
            "database": "postgres",  # go-kong knows this and "off", and we take writes
            "role": "control_plane",
            "router_flavor": "traditional_compatible",
            "admin_listen": [address],
            "admin_listeners": [listener],
            "admin_gui_listeners": [],
            "proxy_listeners": [],
            "log_level": self.identity.log_level,
            "loaded_plugins": dict.fromkeys(PLUGINS, True),
        }

    async def status(self, call: Call, _path: tuple[str, ...]) -> Answer:
        try:
            await self.store.head()
            reachable = True
        except Exception:  # whatever the reason, the answer to "is it reachable?" is no; writes tell the reason
            reachable = False
        now = self.connections()
        return json_answer(
            200,
            {
                "database": {"reachable": reachable},
                "server": {
                    "connections_accepted": now.accepted,
                    "connections_active": now.active,
                    "connections_handled": now.accepted,
                    "connections_reading": 0,
                    "connections_writing": now.writing,
                    "connections_waiting": max(0, now.active - now.writing),
                    "total_requests": now.requests,
                },
                "memory": {
                    "lua_shared_dicts": {},
                    "workers_lua_vms": [{"pid": os.getpid(), "http_allocated_gc": _memory(call)}],
                },
            },
        )

    async def endpoints(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        paths: list[JsonValue] = list(self.table.templates())
        return json_answer(200, {"data": paths})


def _memory(call: Call) -> JsonValue:
    """The most memory this process has held, in the unit asked for."""
    unit = call.argument("unit") or "m"
    if unit.lower() not in _UNITS:
        raise Refused(400, f"invalid unit '{unit[:40]}' (expected 'k/K', 'm/M', or 'g/G')")
    shift, name = _UNITS[unit.lower()]
    scale_text = call.argument("scale") or "2"
    scale = min(int(scale_text), _SCALE_MAX) if scale_text.isascii() and scale_text.isdigit() else 2
    in_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"{in_bytes / (1 << shift):.{scale}f} {name}" if shift else in_bytes


@dataclass(frozen=True, slots=True)
class _Schemas:
    schemas: Mapping[str, Schema]
    clock: Callable[[], float]

    async def get(self, _call: Call, path: tuple[str, ...]) -> Answer:
        return json_answer(200, self._schema(path[0]).document())

    async def validate(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Whether an entity could be created, without looking at the store."""
        schema = self._schema(path[0])
        body = await entity_body(call, schema.coerce)
        if call.query_text:
            body = {**body, **schema.coerce(dict(call.query))}
        schema.validate(body, now=self.clock())
        return json_answer(200, {"message": "schema validation successful"})

    async def validate_plugin(self, call: Call, _path: tuple[str, ...]) -> Answer:
        """Whether a plugin could be created, without looking at the store."""
        return await self.validate(call, ("plugins",))

    async def no_plugin(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        """No plugin has this name, which is that of the check beside it."""
        raise Refused(404, "No plugin named 'validate'")

    async def no_vault(self, _call: Call, path: tuple[str, ...]) -> Answer:
        """No vault is there to be described."""
        raise Refused(404, f"No vault named '{path[0]}'")

    def _schema(self, collection: str) -> Schema:
        schema = self.schemas.get(collection)
        if schema is None:
            raise Refused(404, f"No entity named '{collection}'")
        return schema
