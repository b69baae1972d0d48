"""From targets and what their names resolve to, the endpoints an upstream should have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from data_plane.balancer.endpoint import endpoint_key
from data_plane.model import TargetConfig
from data_plane.resolve.answers import Answer
from data_plane.resolve.system import as_address


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint as it should be."""

    key: str
    ip: str
    port: int
    host: str
    weight: int
    target_id: str


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A target whose name nobody has resolved yet: what is known about it stays as it is."""

    target: TargetConfig


def addresses_of(
    targets: Iterable[TargetConfig], answers: Callable[[str], Answer | None]
) -> dict[str, Address | Unresolved]:
    """Return what the targets come to, by key; an unresolved target stands under its `host:port`.

    Each address of a name has the target's full weight; SRV records have their own, and their own port. A name that
    failed has no address and adds no weight.
    """
    found: dict[str, Address | Unresolved] = {}
    for target in targets:
        ip = _literal(target.host)
        if ip is not None:
            _add(found, target, ip, target.port, target.weight)
            continue
        answer = answers(target.host)
        if answer is None:
            found[f"{target.host}:{target.port}"] = Unresolved(target)
            continue
        for record in answer.records:
            _add(found, target, record.ip, record.port or target.port, record.weight or target.weight)
    return found


@lru_cache(maxsize=16384)
def _literal(host: str) -> str | None:
    # Parsing is most of what reconciling a large upstream costs, and its targets are mostly the same as before.
    return as_address(host)


def _add(found: dict[str, Address | Unresolved], target: TargetConfig, ip: str, port: int, weight: int) -> None:
    key = endpoint_key(target.host, target.port, ip, port)
    found[key] = Address(key, ip, port, target.host, weight, target.id)
