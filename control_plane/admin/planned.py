"""Collections of Kong's that are not here yet but that its clients read before they do anything.

decK gives up unless `/plugins`, `/consumers`, `/certificates` and `/snis` answer 200, so reading these finds nothing,
which is true. Writing is refused with words, rather than looking as if it had worked. Every other collection of Kong's
that we lack is an unknown path (404), which its clients take as "feature absent". A collection that gets a schema
leaves this list by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from control_plane.admin.messages import Answer, Call, entity_page, json_answer, message_answer, not_found
from control_plane.admin.paging import decode_offset, page_size
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Writes
from control_plane.store import editor

PLANNED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"plugins": ("services", "routes"), "consumers": (), "certificates": (), "snis": ()}
)
"""Collections with the parents below which they are read too."""


def mount(table: PathTable, built: Collection[str], writes: Writes) -> None:
    """Adds the paths of all planned collections that are not `built`."""
    for name, parents in PLANNED.items():
        if name in built:
            continue
        planned = _Planned(name)
        table.add(f"/{name}", {"GET": planned.empty_page, "POST": planned.refuse})
        table.add(
            f"/{name}/{{{name}}}",
            {"GET": planned.missing, "PUT": planned.refuse, "PATCH": planned.refuse, "DELETE": planned.refuse},
        )
        for parent in parents:
            nested = _Below(parent, writes)
            table.add(f"/{parent}/{{{parent}}}/{name}", {"GET": nested.empty_page, "POST": planned.refuse})
    if "plugins" not in built:
        table.add("/plugins/enabled", {"GET": _no_plugins})


async def _no_plugins(_call: Call, _path: tuple[str, ...]) -> Answer:
    return json_answer(200, {"enabled_plugins": []})


@dataclass(frozen=True, slots=True)
class _Planned:
    collection: str

    async def empty_page(self, call: Call, _path: tuple[str, ...]) -> Answer:
        page_size(call)
        decode_offset(call)
        return json_answer(200, entity_page([]))

    async def missing(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        raise not_found()

    async def refuse(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        return message_answer(
            405, f"{self.collection} are not supported yet; nothing was written", {"Allow": "GET, HEAD"}
        )


@dataclass(frozen=True, slots=True)
class _Below:
    parent: str
    writes: Writes

    async def empty_page(self, call: Call, path: tuple[str, ...]) -> Answer:
        page_size(call)
        if await self.writes.store.read(lambda tx: editor.lookup(tx, self.parent, path[0])) is None:
            raise not_found()
        return json_answer(200, entity_page([]))
