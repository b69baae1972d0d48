"""The order in which candidates are tried, as one integer each: the larger is tried first.

Integers of any length cost no more to compare than tuples, and leave no field to overflow into the next, which is what
went wrong in Kong (`route_match_calculation = original`) and is put right here.
"""

from __future__ import annotations

from data_plane.model import RouteConfig

_REGEX_PRIORITY_OFFSET = 1 << 63
_CREATED_AT_MAX = (1 << 63) - 1


def rank_compatible(route: RouteConfig, *, tie: int, regex: bool, prefix_length: int) -> int:
    """Rank by Kong's documented order (`strict`), ties by the larger id.

    From the top: how many kinds of condition, plain hosts only, how many headers, regex path, its signed priority,
    prefix length, id.
    """
    hosts, headers = route.hosts, route.headers
    rank = bool(route.methods) + bool(hosts) + bool(headers) + bool(route.snis) + bool(route.paths)
    rank = rank << 1 | (bool(hosts) and not any("*" in host for host in hosts))
    rank = rank << 8 | min(len(headers), 255)
    rank = rank << 1 | regex
    rank = rank << 64 | (_regex_priority(route) if regex else _REGEX_PRIORITY_OFFSET)
    return (rank << 32 | prefix_length) << 128 | tie


def rank_traditional(route: RouteConfig, *, tie: int, regex: bool, prefix_length: int) -> int:
    """Rank as flavour `traditional`: number of kinds, which kinds, how precise, headers, priority, length, age."""
    mask = (
        bool(route.hosts) << 6
        | bool(route.headers) << 5
        | bool(route.paths) << 4
        | bool(route.methods) << 3
        | bool(route.snis) << 2
    )
    plain = bool(route.hosts) and not any("*" in host for host in route.hosts)
    wildcard_with_port = any("*" in host and ":" in host for host in route.hosts)
    rank = mask.bit_count()
    rank = rank << 7 | mask
    rank = rank << 3 | wildcard_with_port << 2 | plain << 1 | regex
    rank = rank << 8 | min(len(route.headers), 255)
    rank = rank << 64 | (_regex_priority(route) if regex else _REGEX_PRIORITY_OFFSET)
    rank = rank << 32 | prefix_length
    rank = rank << 63 | (_CREATED_AT_MAX - max(route.created_at, 0))
    return rank << 128 | tie


def _regex_priority(route: RouteConfig) -> int:
    # Signed: Kong lets the sign bits of a negative one flow into the upper fields, which lifts it above all others.
    priority = max(-_REGEX_PRIORITY_OFFSET, min(route.regex_priority, _REGEX_PRIORITY_OFFSET - 1))
    return priority + _REGEX_PRIORITY_OFFSET
