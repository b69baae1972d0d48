"""An operator's word on a target or one of its addresses: fleet-wide, versioned, and visible until it is over.

    PUT, POST  /upstreams/{u}/targets/{t}/healthy | unhealthy               all addresses of the target
    PUT, POST  /upstreams/{u}/targets/{t}/{ip[:port]}/healthy | unhealthy   one address
    DELETE     /upstreams/{u}/targets/{t}[/{ip[:port]}]/health              lifts it (ours; Kong has none)

Kong's requests, with more behind them. In Kong a verdict set by hand lives in the memory of the nodes and the next
check may change it. Here it is part of the configuration and stands above all checks while it lasts. `unhealthy` lasts
until it is lifted; `healthy` lasts a minute, after which the checks go on from there, because a script that says
unhealthy, works, and says healthy must not leave a target unchecked for ever. `?ttl=SECONDS`, or `{"ttl": SECONDS}` as
the body, says otherwise; 0 = until lifted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from control_plane.admin.bodies import entity_body
from control_plane.admin.messages import Answer, Call, Handler, Refused
from control_plane.admin.table import PathTable
from control_plane.admin.upstream_health import checking
from control_plane.admin.upstream_settings import change, find_target, find_upstream
from control_plane.admin.writes import Writes
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.entities.upstream_settings import (
    COLLECTION,
    ManualHealth,
    normal_address,
    until_of,
    with_word,
    without_words,
)
from control_plane.store.contract import Transaction
from pointsman.rules.addresses import BadAddress, split_target

HEALTHY_TTL_S = 60.0
TTL_S_MAX = 366 * 24 * 3600.0


def mount(table: PathTable, writes: Writes) -> None:
    """Adds the paths."""
    manual = _Manual(writes)
    target = "/upstreams/{upstreams}/targets/{targets}"
    for above in (target, f"{target}/{{address}}"):
        for word, healthy in (("healthy", True), ("unhealthy", False)):
            say = manual.saying(healthy=healthy)
            table.add(f"{above}/{word}", {"PUT": say, "POST": say})
        table.add(f"{above}/health", {"DELETE": manual.lift})


@dataclass(frozen=True, slots=True)
class _Manual:
    writes: Writes

    def saying(self, *, healthy: bool) -> Handler:
        """The handler for one of the two words."""

        async def say(call: Call, path: tuple[str, ...]) -> Answer:
            ttl_s = await _ttl_s(call)
            if ttl_s is None:
                ttl_s = HEALTHY_TTL_S if healthy else 0.0
            now = self.writes.now()
            until = until_of(ttl_s, now=now)

            def work(tx: Transaction) -> None:
                upstream = find_upstream(tx, path[0])
                target, upstream_id = find_target(tx, path[0], path[1])
                if not checking(upstream):
                    raise Refused(400, f"no healthchecker found for {upstream['name']}")
                word = ManualHealth(str(target["id"]), _address(target, path), healthy, until)
                words = with_word(tx.get(COLLECTION, upstream_id), word, now=now)
                change(tx, upstream_id, {"manual_health": words}, now=now)

            return await self.writes.entity(call, work, status=204)

        return say

    async def lift(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Takes back what was said; nothing said is as good."""
        now = self.writes.now()

        def work(tx: Transaction) -> None:
            target, upstream_id = find_target(tx, path[0], path[1])
            settings = tx.get(COLLECTION, upstream_id)
            words = without_words(settings, str(target["id"]), _address(target, path), now=now)
            if settings is not None and words != settings["manual_health"]:
                change(tx, upstream_id, {"manual_health": words}, now=now)

        return await self.writes.entity(call, work, status=204)


def _address(target: EntityBody, path: tuple[str, ...]) -> str:
    """The address in the path; empty for none, and for the target's own name, by which Kong means all of them."""
    if len(path) < 3:
        return ""
    text = path[2]
    host, _ = split_target(str(target["target"]))
    if text in (host, target["target"]) and not _is_ip(host):
        return ""
    try:
        return normal_address(text)
    except BadAddress as error:
        raise Refused(400, f"invalid address: {error}") from None


def _is_ip(host: str) -> bool:
    try:
        normal_address(host)
    except BadAddress:
        return False
    return True


async def _ttl_s(call: Call) -> float | None:
    """How long the word lasts, None = not said. Raises Refused (400)."""
    value: JsonValue = call.argument("ttl")
    if value is None and call.has_body:
        value = (await entity_body(call, dict)).get("ttl")
    if value is None:
        return None
    try:
        ttl_s = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        ttl_s = math.nan
    if not 0 <= ttl_s <= TTL_S_MAX:
        raise Refused(400, f"ttl must be a number of seconds from 0 to {TTL_S_MAX:.0f}; 0 = until lifted")
    return ttl_s
