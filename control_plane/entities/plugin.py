"""plugin: a behaviour put on everything, or on a route, a service or a consumer.

What there is to put stands in `PLUGINS`, which is empty: naming a plugin that is not there is refused in Kong's words,
at once and alone, because nothing else can be judged without its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from control_plane.entities import typedefs
from control_plane.entities.errors import SchemaViolation
from control_plane.entities.fields import REQUIRED, Boolean, Field, Foreign, Integer, Record, Rule, Set, String, one_of
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody, JsonValue

SCOPES = ("consumer", "route", "service")
_UNIQUE = ("name", "route", "service", "consumer")


@dataclass(frozen=True, slots=True)
class PluginKind:
    """One plugin there is: its settings, where it may be put, and its place in the order of execution."""

    name: str
    config: Record
    version: str
    priority: int
    scopes: tuple[str, ...] = SCOPES
    protocols: tuple[str, ...] = ()
    """Those that it works with, which are also its default; none = all, and HTTP's and gRPC's by default."""

    def fields(self) -> Mapping[str, Field]:
        """The fields of an entity that are this plugin's own."""
        own: dict[str, Field] = {"config": self.config}
        for scope in SCOPES:
            if scope not in self.scopes:
                own[scope] = replace(_FIELDS[scope], rules=(Rule(lambda _: "value must be null"),))
        if self.protocols:
            own["protocols"] = _protocols_field(String(rules=(one_of(*self.protocols),)), self.protocols)
        return own


PLUGINS: Mapping[str, PluginKind] = {}
"""The plugins of this gateway by name."""


def plugin_schema(kinds: Mapping[str, PluginKind]) -> Schema:
    """Return the schema of plugins where these kinds are there."""

    def settle(entity: EntityBody, _given: frozenset[str]) -> None:
        name = entity.get("name")
        if name is None:
            raise SchemaViolation({"name": REQUIRED})
        if not isinstance(name, str):
            raise SchemaViolation({"name": "expected a string"})
        kind = kinds.get(name)
        if kind is None:
            raise SchemaViolation(
                {"name": f"plugin '{name}' not enabled; add it to the 'plugins' configuration property"}
            )
        if entity.get("config") is None:
            entity["config"] = kind.config.missing()

    def vary(entity: EntityBody) -> Mapping[str, Field]:
        name = entity.get("name")
        kind = kinds.get(name) if isinstance(name, str) else None
        return {} if kind is None else kind.fields()

    return Schema(
        collection="plugins",
        singular="plugin",
        endpoint_key="instance_name",
        unique_together=(_UNIQUE,),
        nulls_count=(_UNIQUE,),
        foreign_keys={"services": ("name",), "routes": ("name",), "consumers": ("username", "custom_id")},
        fields=_FIELDS,
        settle=settle,
        vary=vary,
    )


def check_protocols(plugin: EntityBody, route: EntityBody | None, routes_of_service: Iterable[EntityBody]) -> None:
    """Raises SchemaViolation for a plugin whose protocols none of the requests that it is put on can have."""
    own = _protocols(plugin)
    if route is not None:
        if not own & _protocols(route):
            raise SchemaViolation({"protocols": "must match the associated route's protocols"})
        return
    of_routes = [_protocols(one) for one in routes_of_service]
    if of_routes and not any(own & protocols for protocols in of_routes):
        text = "must match the protocols of at least one route pointing to this Plugin's service"
        raise SchemaViolation({"protocols": text})


def _protocols(entity: EntityBody) -> set[JsonValue]:
    protocols = entity.get("protocols")
    return {one for one in protocols if isinstance(one, str)} if isinstance(protocols, list) else set()


def _protocols_field(elements: String, default: Sequence[str]) -> Set:
    return Set(
        elements=elements,
        default=[*default],
        has_default=True,
        required=True,
        description="Requests of these protocols only.",
    )


_FIELDS: Mapping[str, Field] = {
    "id": typedefs.uuid(),
    "name": String(required=True, description="Which plugin."),
    "instance_name": String(
        unique=True,
        rules=typedefs.name().rules,
        description="A unique name of this use of the plugin.",
    ),
    "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
    "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
    "route": Foreign(collection="routes", cascade=True, description="Only requests of this route."),
    "service": Foreign(collection="services", cascade=True, description="Only requests to this service."),
    "consumer": Foreign(collection="consumers", cascade=True, description="Only requests of this consumer."),
    "config": Record(fields={}, free=True, description="The plugin's settings."),
    "protocols": _protocols_field(typedefs.protocol(), ("grpc", "grpcs", "http", "https")),
    "enabled": Boolean(default=True, has_default=True, required=True, description="Whether it runs."),
    "tags": typedefs.tags(),
}

PLUGIN = plugin_schema(PLUGINS)
