"""decK's calls, in its order: what `deck gateway dump|diff|sync|reset` sends to an Admin API and asks of its answers.

Entities are known by their ids, which decK gives itself. A difference is what decK would see as one: times, and nulls
against what is not there, are none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from control_plane.entities.types import EntityBody, JsonValue

MUST_ANSWER = ("services", "routes", "plugins", "consumers", "certificates", "snis", "upstreams")
MAY_BE_ABSENT = (
    "ca_certificates", "vaults", "keys", "key-sets", "partials", "consumer_groups", "key-auths", "hmac-auths", "jwts",
    "basic-auths", "oauth2", "acls", "mtls-auths", "degraphql_routes", "graphql-rate-limiting-advanced/costs",
)  # fmt: skip
SCHEMAS = ("services", "routes", "upstreams", "targets")
BELOW_CONSUMERS = {
    "key-auths": "key-auth", "hmac-auths": "hmac-auth", "jwts": "jwt", "basic-auths": "basic-auth", "oauth2": "oauth2",
    "acls": "acls",
}  # fmt: skip
LEVELS: Sequence[Sequence[str]] = (
    ("certificates", "ca_certificates", "consumers"),
    ("snis", "services", "upstreams", *BELOW_CONSUMERS),
    ("routes", "targets"),
    ("plugins",),
)
PARALLEL = 10
_NOT_COMPARED = frozenset({"created_at", "updated_at", "cert_digest", "snis"})

State = Mapping[str, Mapping[str, EntityBody]]
"""Collection (as in paths) -> id -> entity."""


@dataclass(slots=True)
class Difference:
    """What a sync has to do."""

    puts: list[tuple[str, EntityBody]] = field(default_factory=list)
    deletes: list[tuple[str, EntityBody]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.puts) + len(self.deletes)


class Deck:
    """One decK over one Admin API."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._slots = asyncio.Semaphore(PARALLEL)

    async def dump(self, *, tags: Sequence[str] = ()) -> dict[str, dict[str, EntityBody]]:
        """The read set, all lists at once."""
        root = await self._json("GET", "/")
        assert isinstance(root["version"], str)
        lists = await asyncio.gather(
            *(self._list(path, tags, absent=False) for path in MUST_ANSWER),
            *(self._list(path, tags, absent=True) for path in MAY_BE_ABSENT),
        )
        state = dict(zip((*MUST_ANSWER, *MAY_BE_ABSENT), lists, strict=True))
        status, _ = await self._ask("GET", "/filter-chains?size=1000")
        assert status in (400, 404)
        state["targets"] = {}
        for upstream in state["upstreams"]:
            state["targets"] |= await self._list(f"upstreams/{upstream}/targets", tags, absent=False)
        return state

    async def diff(self, wanted: State) -> Difference:
        """What stands between the gateway and `wanted`, with the gateway's own defaults."""
        held = await self.dump()
        defaults = {path: _defaults((await self._json("GET", f"/schemas/{path}"))["fields"]) for path in SCHEMAS}
        found = Difference()
        for path in (path for level in LEVELS for path in level):
            for entity_id, entity in wanted.get(path, {}).items():
                there = held[path].get(entity_id)
                filled = {**_over(defaults.get(path, {}), entity), "id": entity_id}
                if there is None or _seen(there) != _seen(filled):
                    found.puts.append((path, filled))
            found.deletes += [(path, entity) for key, entity in held[path].items() if key not in wanted.get(path, {})]
        return found

    async def sync(self, wanted: State) -> Difference:
        """Creates and updates top-down, then deletes bottom-up; each level at once."""
        found = await self.diff(wanted)
        for level in LEVELS:
            await asyncio.gather(*(self._put(path, entity) for path, entity in found.puts if path in level))
        for level in reversed(LEVELS):
            await asyncio.gather(*(self._delete(path, entity) for path, entity in found.deletes if path in level))
        return found

    async def reset(self) -> None:
        """Deletes everything."""
        await self.sync({})

    async def _put(self, path: str, entity: EntityBody) -> None:
        body: EntityBody = {name: value for name, value in entity.items() if value is not None}
        entity_id = str(entity["id"])
        if path == "certificates":
            status, _ = await self._ask("GET", f"/certificates/{entity_id}")
            assert status in (200, 404)
        where = f"{self._above(path, entity)}/{entity_id}"
        status, answer = await self._ask("PUT", where, body)
        if path == "targets" and status == 404:
            status, answer = await self._ask("POST", self._above(path, entity), body)
            assert status == 201, answer
        assert status in (200, 201), (where, answer)
        assert isinstance(answer, dict)
        assert answer["id"] == entity_id

    async def _delete(self, path: str, entity: EntityBody) -> None:
        status, answer = await self._ask("DELETE", f"{self._above(path, entity)}/{entity['id']}")
        # What went with its parent is gone: decK reads that as done.
        assert status == 204 or (status == 404 and path in (*BELOW_CONSUMERS, "targets")), answer

    @staticmethod
    def _above(path: str, entity: EntityBody) -> str:
        if path == "targets":
            return f"/upstreams/{_id(entity['upstream'])}/targets"
        if path in BELOW_CONSUMERS:
            return f"/consumers/{_id(entity['consumer'])}/{BELOW_CONSUMERS[path]}"
        return f"/{path}"

    async def _list(self, path: str, tags: Sequence[str], *, absent: bool) -> dict[str, EntityBody]:
        rows: dict[str, EntityBody] = {}
        offset: JsonValue = None
        while True:
            query = "size=1000" + (f"&offset={offset}" if offset else "") + (f"&tags={','.join(tags)}" if tags else "")
            status, page = await self._ask("GET", f"/{path}?{query}")
            if status == 404 and absent:
                assert isinstance(page, dict)
                assert page["message"] == "Not found"
                return {}
            assert status == 200, (path, page)
            assert isinstance(page, dict)
            data = page["data"]
            assert isinstance(data, list)
            rows |= {str(row["id"]): row for row in data if isinstance(row, dict)}
            offset = page.get("offset")
            if offset is None:
                return rows

    async def _json(self, method: str, path: str) -> EntityBody:
        status, answer = await self._ask(method, path)
        assert status == 200, (path, answer)
        assert isinstance(answer, dict)
        return answer

    async def _ask(self, method: str, path: str, body: EntityBody | None = None) -> tuple[int, JsonValue]:
        async with self._slots, self._session.request(method, self._url + path, json=body) as answer:
            assert answer.status not in (405, 500, 501), (method, path, await answer.text())
            return answer.status, await answer.json() if answer.status != 204 else None


def _id(value: JsonValue) -> str:
    assert isinstance(value, dict)
    return str(value["id"])


def _defaults(fields: JsonValue) -> EntityBody:
    """The defaults that a schema document gives, record by record."""
    found: EntityBody = {}
    assert isinstance(fields, list)
    for one in fields:
        assert isinstance(one, dict)
        ((name, facts),) = one.items()
        assert isinstance(facts, dict)
        if facts["type"] == "record":
            found[name] = _defaults(facts["fields"])
        elif facts.get("default") is not None:
            found[name] = facts["default"]
    return found


def _over(under: EntityBody, over: EntityBody) -> EntityBody:
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _seen(value: JsonValue) -> JsonValue:
    """What decK compares: no nulls, no times; tags are a set."""
    if isinstance(value, dict):
        seen: EntityBody = {}
        for name, inner in value.items():
            if inner is not None and name not in _NOT_COMPARED:
                is_set = name == "tags" and isinstance(inner, list)
                seen[name] = sorted(map(str, inner)) if is_set and isinstance(inner, list) else _seen(inner)  # type: ignore[assignment]  # a list of texts
        return seen
    return [_seen(item) for item in value] if isinstance(value, list) else value
