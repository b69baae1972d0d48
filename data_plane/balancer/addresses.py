"""From targets and what their names resolve to, the endpoints an upstream should have."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from data_plane.balancer.endpoint import endpoint_key
from data_plane.balancer.policy import STEP
from data_plane.model import TargetConfig
from data_plane.resolve.answers import Answer
from data_plane.resolve.system import as_address


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint as it should be; `host` is the name that goes upstream."""

    key: str
    ip: str
    port: int
    host: str
    weight: int
    target_id: str
    failover: bool = False


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A target whose name nobody has resolved yet: what is known about it stays as it is."""

    target: TargetConfig


Found = dict[str, "Address | Unresolved"]


def addresses_of(
    targets: Iterable[TargetConfig], answers: Callable[[str], Answer | None], *, use_srv_name: bool = False
) -> Found:
    """`addresses_steps` at once."""
    steps = addresses_steps(targets, answers, use_srv_name=use_srv_name)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: Found = done.value
            return found


def addresses_steps(
    targets: Iterable[TargetConfig], answers: Callable[[str], Answer | None], *, use_srv_name: bool = False
) -> Generator[None, None, Found]:
    """Return what the targets come to, by key; an unresolved target stands under its `host:port`.

    The addresses of an unsteady answer share the target's weight. Else each address of a name has the target's full
    weight; SRV records have their own, and their own port. A name that failed has no address and adds no weight. With
    `use_srv_name` the name an SRV record points to goes upstream.
    """
    found: Found = {}
    for number, target in enumerate(targets):
        if number % STEP == STEP - 1:
            yield
        ip = _literal(target.host)
        if ip is not None:
            address = _address(target, ip, target.port)
            found[address.key] = address
            continue
        answer = answers(target.host)
        if answer is None:
            found[f"{target.host}:{target.port}"] = Unresolved(target)
            continue
        for place, record in enumerate(answer.records):
            address = _address(target, record.ip, record.port or target.port)
            if answer.unsteady:
                share, rest = divmod(target.weight, len(answer.records))
                address = replace(address, weight=share + (place < rest))
            elif record.weight or (use_srv_name and record.name):
                host = record.name if use_srv_name and record.name else target.host
                address = replace(address, weight=record.weight or target.weight, host=host)
            found[address.key] = address
    return found


@lru_cache(maxsize=16384)
def _literal(host: str) -> str | None:
    # Parsing is most of what reconciling a large upstream costs, and its targets are mostly the same as before.
    return as_address(host)


def _address(target: TargetConfig, ip: str, port: int) -> Address:
    key = endpoint_key(target.host, target.port, ip, port)
    return Address(key, ip, port, target.host, target.weight, target.id, target.failover)
