"""plugin: a behaviour put on everything, or on a route, a service or a consumer.

What there is to put stands in `PLUGINS`, which is empty: naming a plugin that is not there is refused in Kong's words,
at once and alone, because nothing else can be judged without its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.entities import typedefs
from control_plane.entities.errors import SchemaViolation
from control_plane.entities.fields import REQUIRED, Boolean, Field, Foreign, Integer, Record, Set, String
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody

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
        config = entity.get("config")
        entity["config"] = kind.config.missing() if config is None else kind.config.filled(config)
        problems: EntityBody = {}
        wrong = kind.config.problem(entity["config"])
        if wrong is not None:
            problems["config"] = wrong
        for scope in SCOPES:
            if scope not in kind.scopes and entity.get(scope) is not None:
                problems[scope] = "value must be null"
        if problems:
            raise SchemaViolation(problems)

    return Schema(
        collection="plugins",
        singular="plugin",
        endpoint_key="instance_name",
        unique_together=(_UNIQUE,),
        nulls_count=(_UNIQUE,),
        foreign_keys={"services": ("name",), "routes": ("name",), "consumers": ("username", "custom_id")},
        fields=_FIELDS,
        settle=settle,
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
    "protocols": Set(
        elements=typedefs.protocol(),
        default=["grpc", "grpcs", "http", "https"],
        has_default=True,
        required=True,
        description="Requests of these protocols only.",
    ),
    "enabled": Boolean(default=True, has_default=True, required=True, description="Whether it runs."),
    "tags": typedefs.tags(),
}

PLUGIN = plugin_schema(PLUGINS)
