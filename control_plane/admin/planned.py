"""Paths of Kong's for things that are not here, but that its clients read before they do anything.

Reading a collection of them finds nothing, which is true. Writing is refused with words, rather than looking as if it
had worked. Every other collection of Kong's that we lack is an unknown path (404), which its clients take as "feature
absent".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from control_plane.admin.messages import Answer, Call, entity_page, json_answer, message_answer, not_found
from control_plane.admin.operations import OFFSET, SIZE, TAGS, Operation, page_of
from control_plane.admin.paging import decode_offset, page_size
from control_plane.admin.table import PathTable

PLANNED: Mapping[str, str] = MappingProxyType({"vaults": "vault", "keys": "key", "key-sets": "key set"})
"""Collections that hold nothing, and what one of their entities is called."""

_WASM = "this endpoint is only available when wasm is enabled"
_REFUSED = Operation(summary="Always refused", answers={})


def mount(table: PathTable) -> None:
    """Adds the paths."""
    for name, word in PLANNED.items():
        planned = _Planned(name)
        methods = {"GET": planned.missing, "PUT": planned.refuse, "PATCH": planned.refuse, "DELETE": planned.refuse}
        table.add(
            f"/{name}",
            {"GET": planned.empty_page, "POST": planned.refuse},
            about={
                "GET": Operation(
                    summary=f"List no {word}s: there are none",
                    parameters=(SIZE, OFFSET, TAGS),
                    answers={200: page_of({})},
                ),
                "POST": _REFUSED,
            },
        )
        table.add(f"/{name}/{{{name}}}", methods, about=dict.fromkeys(methods, _REFUSED))
    filters = dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), _no_filters)
    refused = dict.fromkeys(filters, _REFUSED)
    for above in ("", "/services/{services}", "/routes/{routes}"):
        table.add(f"{above}/filter-chains", filters, about=refused)
        table.add(f"{above}/filter-chains/{{filter_chains}}", filters, about=refused)
    table.add("/cache", {"DELETE": _nothing_cached}, about={"DELETE": _forgets()})
    table.add(
        "/cache/{key}", {"GET": _never_cached, "DELETE": _nothing_cached}, about={"GET": _REFUSED, "DELETE": _forgets()}
    )
    timers = Operation(summary="Show what this process has in hand", answers={200: {"type": "object"}})
    table.add("/timers", {"GET": _timers}, about={"GET": timers})


def _forgets() -> Operation:
    return Operation(summary="Forget cached entities: the store is read itself, so there are none", answers={204: None})


async def _no_filters(_call: Call, _path: tuple[str, ...]) -> Answer:
    return message_answer(400, _WASM)


async def _nothing_cached(_call: Call, _path: tuple[str, ...]) -> Answer:
    return Answer(204)


async def _never_cached(_call: Call, _path: tuple[str, ...]) -> Answer:
    raise not_found()


async def _timers(_call: Call, _path: tuple[str, ...]) -> Answer:
    """What this process has in hand, in the frame in which Kong shows its timers."""
    tasks = len(asyncio.all_tasks())
    totals: dict[str, int] = {"running": 1, "waiting": tasks - 1, "pending": 0, "total": tasks}
    return json_answer(200, {"stats": {"sys": {**totals}, "timers": {}}, "worker": {"count": 1, "id": 0}})


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
