"""Which Host goes upstream, as a pure rule (Kong: spec of the proxy, "Which Host goes upstream")."""

from __future__ import annotations

_DEFAULT_PORTS = {"http": 80, "grpc": 80, "ws": 80, "https": 443, "grpcs": 443, "wss": 443}


def host_with_port(name: str, port: int, protocol: str) -> str:
    """Return `name`, with `port` unless it is the protocol's own or `name` already says one.

    A bare IPv6 address is put into brackets. Kong appends a second port to a `host_header` that has one; no server
    understands that, so we don't.
    """
    if name.startswith("["):
        has_port = not name.endswith("]")
    elif name.count(":") > 1:
        name = f"[{name}]"
        has_port = False
    else:
        has_port = ":" in name
    if has_port or port == _DEFAULT_PORTS.get(protocol):
        return name
    return f"{name}:{port}"


def upstream_host(client_host: bytes | None, *, preserve: bool, name: str, port: int, protocol: str) -> bytes:
    """Return the Host for one attempt.

    `client_host` is the client's own, verbatim, sent on when the route preserves it. Otherwise `name` decides: the
    upstream's `host_header`, else the chosen target's name, else the service's host; `port` is the port connected to.
    """
    if preserve and client_host:
        return client_host
    return host_with_port(name, port, protocol).encode("utf-8", "surrogateescape")
