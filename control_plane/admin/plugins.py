"""Which plugins there are and what they take: `/plugins/enabled`, `/schemas/plugins/...` and what `/` says of them.

Plugins themselves are entities like others (`collections.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.admin.messages import Answer, Call, Refused, json_answer
from control_plane.admin.operations import ANYTHING, Operation
from control_plane.admin.table import PathTable
from control_plane.entities.plugin import PluginKind, plugin_schema
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Store


def mount(table: PathTable, kinds: Mapping[str, PluginKind]) -> None:
    """Adds the paths."""
    plugins = _Plugins(kinds)
    table.add(
        "/plugins/enabled",
        {"GET": plugins.enabled},
        about={"GET": Operation(summary="List the names of the plugins that there are")},
    )
    shown = Operation(summary="Describe a plugin's settings", answers={200: ANYTHING})
    table.add("/schemas/plugins/{name}", {"GET": plugins.schema}, about={"GET": shown})
    table.add("/plugins/schema/{name}", {"GET": plugins.config_schema}, about={"GET": shown})


async def about_plugins(store: Store, kinds: Mapping[str, PluginKind]) -> EntityBody:
    """What `GET /` says: the plugins there are, and those in use."""
    names: list[JsonValue] = []
    if kinds:
        names = [*sorted(await store.read(lambda tx: {str(body["name"]) for body in tx.each("plugins")}))]
    return {
        "available_on_server": {
            name: {"version": kind.version, "priority": kind.priority} for name, kind in kinds.items()
        },
        "enabled_in_cluster": names,
    }


@dataclass(frozen=True, slots=True)
class _Plugins:
    kinds: Mapping[str, PluginKind]

    async def enabled(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        names: list[JsonValue] = list(self.kinds)
        return json_answer(200, {"enabled_plugins": names})

    async def schema(self, _call: Call, path: tuple[str, ...]) -> Answer:
        kind = self._kind(path[0])
        shown = {**plugin_schema({}).fields, **kind.fields()}
        fields: list[JsonValue] = [
            {name: shown[name].document()} for name in ("consumer", "route", "service", "protocols", "config")
        ]
        return json_answer(200, {"fields": fields, "entity_checks": []})

    async def config_schema(self, _call: Call, path: tuple[str, ...]) -> Answer:
        return json_answer(200, {"fields": self._kind(path[0]).config.document()["fields"]})

    def _kind(self, name: str) -> PluginKind:
        kind = self.kinds.get(name)
        if kind is None:
            raise Refused(404, f"No plugin named '{name}'")
        return kind
