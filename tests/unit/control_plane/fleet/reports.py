"""Short words for what nodes report."""

from __future__ import annotations

from control_plane.fleet.health import AddressReport, AddressState, TargetReport

UP, DOWN, OFF = AddressState.HEALTHY, AddressState.UNHEALTHY, AddressState.OFF


def address(state: AddressState, ip: str = "10.0.0.1", *, weight: int = 100, since: int = 1) -> AddressReport:
    return AddressReport(ip, 80, weight, state, since, "a reason" if state is DOWN else "")


def target(
    *states: AddressState, upstream: str = "u", name: str = "t", since: int = 1, error: str = ""
) -> TargetReport:
    addresses = tuple(address(state, f"10.0.0.{at}", since=since) for at, state in enumerate(states, 1))
    return TargetReport(upstream, name, error=error, record_type="A" if addresses else "", addresses=addresses)


def removed(upstream: str = "u", name: str = "t") -> TargetReport:
    return TargetReport(upstream, name, removed=True)
