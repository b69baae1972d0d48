"""An operator's word on a target or one of its addresses: fleet-wide, versioned, and visible until it is over.

    PUT, POST  /upstreams/{u}/targets/{t}/healthy | unhealthy               all addresses of the target
    PUT, POST  /upstreams/{u}/targets/{t}/{ip[:port]}/healthy | unhealthy   one address
    DELETE     /upstreams/{u}/targets/{t}[/{ip[:port]}]/health              lifts it (ours; Kong has none)

`If-Match` is about the upstream's own settings, where the words are kept: `GET /fleet/upstreams/{u}/settings`.

Kong's requests, with more behind them. In Kong a verdict set by hand lives in the memory of the nodes and the next
check may change it. Here it is part of the configuration and stands above all checks while it lasts. `unhealthy` lasts
until it is lifted; `healthy` lasts a minute, after which the checks go on from there, because a script that says
unhealthy, works, and says healthy must not leave a target unchecked for ever. `?ttl=SECONDS`, or `{"ttl": SECONDS}` as
the body, says otherwise; 0 = until lifted.

A word on a target that is a name is said of the addresses which the name has then, as in Kong: it is about the servers
that the operator has seen, and one that DNS brings later is innocent. Where the fleet does not know the addresses, or
they are good for one moment only, the word is about whatever the name stands for.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from control_plane.admin.bodies import entity_body
from control_plane.admin.messages import Answer, Call, Handler, Refused
from control_plane.admin.operations import Operation, Parameter
from control_plane.admin.table import PathTable
from control_plane.admin.upstream_health import checking
from control_plane.admin.upstream_settings import change, current_settings, find_target, find_upstream
from control_plane.admin.writes import Fleet, Writes
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
from pointsman.rules.upstream_health import UNSTEADY

HEALTHY_TTL_S = 60.0
ADDRESSES_MAX = 100
"""A name with more addresses than this gets one word for all of them, later ones too."""
ADDRESSES_WITHIN_S = 1.0
"""How long to wait for the nodes' report on a target that was made a moment ago."""
_LOOK_EVERY_S = 0.02
TTL_S_MAX = 366 * 24 * 3600.0


_TTL = Parameter(
    name="ttl", schema={"type": "number", "minimum": 0, "maximum": TTL_S_MAX}, description="Seconds; 0 = until lifted."
)


def mount(table: PathTable, writes: Writes, fleet: Fleet) -> None:
    """Adds the paths."""
    manual = _Manual(writes, fleet)
    target = "/upstreams/{upstreams}/targets/{targets}"
    for above in (target, f"{target}/{{address}}"):
        for word, healthy in (("healthy", True), ("unhealthy", False)):
            say = manual.saying(healthy=healthy)
            about = _about(f"Say that a target is {word}, above all checks")
            table.add(f"{above}/{word}", {"PUT": say, "POST": say}, about={"PUT": about, "POST": about})
        table.add(f"{above}/health", {"DELETE": manual.lift}, about={"DELETE": _about("Lift what was said of it", ())})


def _about(summary: str, parameters: tuple[Parameter, ...] = (_TTL,)) -> Operation:
    return Operation(summary=summary, parameters=parameters, answers={204: None}, writes=True, guarded=True)


@dataclass(frozen=True, slots=True)
class _Manual:
    writes: Writes
    fleet: Fleet

    def saying(self, *, healthy: bool) -> Handler:
        """The handler for one of the two words."""

        async def say(call: Call, path: tuple[str, ...]) -> Answer:
            ttl_s = await _ttl_s(call)
            if ttl_s is None:
                ttl_s = HEALTHY_TTL_S if healthy else 0.0
            now = self.writes.now()
            until = until_of(ttl_s, now=now)
            places = await self._places(path)

            def work(tx: Transaction) -> None:
                upstream = find_upstream(tx, path[0])
                target, upstream_id = find_target(tx, path[0], path[1])
                if not checking(upstream):
                    raise Refused(400, f"no healthchecker found for {upstream['name']}")
                target_id, address = str(target["id"]), _address(target, path)
                settings = tx.get(COLLECTION, upstream_id)
                if address or not places:
                    words = with_word(settings, ManualHealth(target_id, address, healthy, until), now=now)
                else:
                    words = without_words(settings, target_id, "", now=now)
                    words += [ManualHealth(target_id, place, healthy, until).to_json() for place in places]
                change(tx, upstream_id, {"manual_health": words}, now=now)

            return await self.writes.entity(call, work, status=204, current=current_settings(path))

        return say

    async def _places(self, path: tuple[str, ...]) -> list[str]:
        """The addresses that a target's name has now, by the nodes' word; none when it is no name or nobody knows."""
        target, upstream_id = await self.writes.store.read(lambda tx: find_target(tx, path[0], path[1]))
        if _is_ip(split_target(str(target["target"]))[0]):
            return []
        end = asyncio.get_running_loop().time() + ADDRESSES_WITHIN_S
        while True:
            verdict = self.fleet.verdict(upstream_id, str(target["id"]))
            if verdict is not None and verdict.addresses:
                break
            if not self.fleet.live_nodes() or asyncio.get_running_loop().time() > end:
                return []
            await asyncio.sleep(_LOOK_EVERY_S)
        if verdict.record_type == UNSTEADY or len(verdict.addresses) > ADDRESSES_MAX:
            return []
        return [normal_address(f"[{each.ip}]:{each.port}" if ":" in each.ip else f"{each.ip}:{each.port}")
                for each in verdict.addresses]  # fmt: skip

    async def lift(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Takes back what was said; nothing said is as good."""
        now = self.writes.now()

        def work(tx: Transaction) -> None:
            target, upstream_id = find_target(tx, path[0], path[1])
            settings = tx.get(COLLECTION, upstream_id)
            words = without_words(settings, str(target["id"]), _address(target, path), now=now)
            if settings is not None and words != settings["manual_health"]:
                change(tx, upstream_id, {"manual_health": words}, now=now)

        return await self.writes.entity(call, work, status=204, current=current_settings(path))


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
