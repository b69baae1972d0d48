"""From a scanned request to the lines that go upstream: the plan of a path, and what each request adds.

`make_plan` asks the router and prepares everything that depends only on method, host and path. `forward_lines` joins to
it what depends on the client and the request. Neither touches a socket. What the fields must say is spec/proxy.md §2
and §3; the client's own spellings of the fields we write have been taken out by the scan, so nothing can be said twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from data_plane.proxy.head import RequestHead, check_target
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tables import Plan, Tables
from data_plane.router import protocol_answer, redirect_host, upstream_path
from pointsman.rules.paths import encode_for_upstream

if TYPE_CHECKING:
    from data_plane.model import RouteConfig
    from data_plane.proxy.tables import ServiceRuntime

NO_ROUTE = "no Route matched with those values"
NO_SERVICE = "no Service found with those values"
LAST_HOP = "Max-Forwards is used up, so this gateway answers"
FENCED = "service '{}' is fenced: this node has lost its control plane and may be out of date"

# The value of `real_ip_header` that lets a listener's PROXY header name the client.
PROXY_PROTOCOL = "proxy_protocol"

# Not repeated once sent: what nginx, and so Kong, counts as not idempotent (spec/retries-timeouts.md §3).
ONCE_ONLY = frozenset({b"POST", b"LOCK", b"PATCH"})


def make_plan(tables: Tables, head: RequestHead, *, scheme: str, proto: bytes, port: int, sni: bytes = b"") -> Plan:
    """Match the request and prepare what can be said about it before an endpoint is known.

    `scheme` is the listener's; `proto` what the protocol checks of a route go by: the scheme, unless a trusted peer
    said otherwise. Raises `BadRequest` when method or path are none.
    """
    check_target(head.method, head.path)

    def header_values(name: str) -> Sequence[bytes]:
        return head.values(name.encode("latin-1").replace(b"_", b"-").lower())

    match = tables.router.match(
        head.method,
        head.host or None,
        head.path,
        port=port,
        scheme=scheme,
        header_values=header_values,
        sni=sni or None,
    )
    if match is None:
        return _answer(None, 404, NO_ROUTE)
    route = match.route
    kinds = head.values(b"content-type")
    refusal = protocol_answer(route, proto, http2=False, content_type=kinds[0] if kinds else None, host=b"", target=b"")
    if refusal is not None:
        plan = _answer(route, refusal.status, refusal.message or "")
        # The location of a redirect differs by query and by what a trusted peer says: `redirect_location`.
        plan.fields = tuple(name + b": " + value for name, value in refusal.fields if name != b"Location")
        plan.remembered = "grpc" not in route.protocols and "grpcs" not in route.protocols
        return plan
    service = tables.services.get(route.service)
    if service is None:
        return _answer(route, 503, NO_SERVICE)
    plan = Plan(route=route, service=service)
    plan.captures = match.captures
    plan.is_head = head.method == b"HEAD"
    plan.replayable = head.method not in ONCE_ONLY
    plan.buffered = route.request_buffering
    plan.start = head.method + b" " + upstream_path(match, service.base_path)
    plan.line = plan.start + b" HTTP/1.1"
    if route.preserve_host and head.host:
        plan.host_line = b"Host: " + head.host
    if match.matched_path is not None and match.matched_path != b"/":
        plan.prefix = encode_for_upstream(match.matched_path)
    lines = [b"X-Forwarded-Proto: " + scheme.encode()]
    host = redirect_host(head.host)
    if host:
        lines.append(b"X-Forwarded-Host: " + host)
    lines.append(b"X-Forwarded-Port: %d" % port)
    lines.append(b"X-Forwarded-Path: " + head.path)
    if plan.prefix:
        lines.append(b"X-Forwarded-Prefix: " + plan.prefix)
    plan.forwarded = b"\r\n".join(lines)
    return plan


def fenced_plan(plan: Plan) -> Plan:
    """Return what is answered in place of `plan` while its service is fenced (docs/runbook.md)."""
    service = plan.service
    assert service is not None, "only services are fenced"
    config = service.config
    fenced = _answer(plan.route, 503, FENCED.format(config.name or config.id))
    fenced.service, fenced.traffic, fenced.debug = service, plan.traffic, plan.debug
    return fenced


def last_hop_plan(plan: Plan) -> Plan:
    """Return what is answered in place of `plan` to a request that may not be sent on: what the route says of it."""
    answered = _answer(plan.route, 200, LAST_HOP)
    answered.traffic, answered.debug = plan.traffic, plan.debug
    if plan.route is not None and plan.route.methods:
        answered.fields = (b"Allow: " + ", ".join(plan.route.methods).encode(),)
    return answered


def debug_lines(route: RouteConfig, service: ServiceRuntime | None) -> tuple[bytes, ...]:
    """Return what a client that asks is told about its match: ids and names of the route and its service, if any."""
    lines = [b"Kong-Route-Id: " + route.id.encode()]
    if route.name:
        lines.append(b"Kong-Route-Name: " + route.name.encode())
    if service is not None:
        lines.append(b"Kong-Service-Id: " + service.config.id.encode())
        if service.config.name:
            lines.append(b"Kong-Service-Name: " + service.config.name.encode())
    return tuple(lines)


def _answer(route: RouteConfig | None, status: int, message: str) -> Plan:
    plan = Plan(route=route, service=None)
    plan.status = status
    plan.message = message
    return plan


class PeerLines:
    """What the address of a peer adds to its requests, made once a connection.

    `common` is ready for requests that are `usual`, unless the peer `asks_requests` who the client is. `address` is the
    peer's; what a PROXY header said (`speaks_for`) is the client's if settings and trust agree.
    """

    __slots__ = ("_settings", "_via", "address", "asks_requests", "client", "common", "trusted")

    def __init__(self, address: str, settings: ProxySettings, *, speaks_for: str = "") -> None:
        self.address: bytes = address.encode("latin-1", "replace")
        self._settings = settings
        self._via: bytes = settings.product.encode("latin-1")
        parsed = _parse(address) if settings.trusted_ips else None
        self.trusted: bool = parsed is not None and _is_trusted(parsed, settings)
        by_header = settings.real_ip_header == PROXY_PROTOCOL
        self.asks_requests = self.trusted and not by_header and bool(settings.real_ip_header)
        self.client: bytes = speaks_for.encode("latin-1") if by_header and self.trusted and speaks_for else self.address
        self.common: bytes = b"\r\n".join(
            (
                b"Connection: keep-alive",
                b"X-Forwarded-For: " + self.client,
                b"X-Real-IP: " + self.client,
                b"Via: 1.1 " + self._via,
            )
        )

    def lines(self, head: RequestHead) -> bytes:
        """Return the lines for this request, for which `common` won't do."""
        client = self.client_address(head)
        via = (b"1.0 " if head.http10 else b"1.1 ") + self._via
        forwarded = head.forwarded_for
        lines = [
            b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket" if head.websocket else b"Connection: keep-alive",
            b"X-Forwarded-For: " + (client if not forwarded else forwarded + b", " + self.address),
            b"X-Real-IP: " + client,
            b"Via: " + (via if not head.via else head.via + b", " + via),
        ]
        if head.te_trailers:
            lines.append(b"TE: trailers")
        return b"\r\n".join(lines)

    def client_address(self, head: RequestHead) -> bytes:
        """Return the client's address: the peer's, or what a trusted peer says it is (spec/proxy.md §2.4)."""
        if not self.asks_requests:
            return self.client
        settings = self._settings
        said = b",".join(head.values(settings.real_ip_header.lower().encode("latin-1")))
        found: IPv4Address | IPv6Address | None = None
        for part in reversed(said.split(b",")):
            text = part.strip(b" \t").decode("latin-1")
            if not text:
                continue
            address = _parse(text)
            if address is None:
                break
            found = address
            if not settings.real_ip_recursive or not _is_trusted(address, settings):
                break
        # All trusted: the first one. Before what is no address: the one after it. Both as in nginx.
        return str(found).encode() if found is not None else self.address


def forwarded_by_trusted(plan: Plan, trusted: Sequence[bytes]) -> bytes:
    """Return the plan's `X-Forwarded-*` lines with those a trusted peer sent in place of ours."""
    said: dict[bytes, bytes] = {}
    for line in trusted:
        said.setdefault(line[: line.find(b":")].lower(), line)
    kept = [line for line in plan.forwarded.split(b"\r\n") if line[: line.find(b":")].lower() not in said]
    return b"\r\n".join([*kept, *said.values()])


def trusted_value(head: RequestHead, name: bytes) -> bytes:
    """Return what a trusted peer said in the first `X-Forwarded-*` field of that lower-case name, or nothing."""
    for line in head.trusted or ():
        if line[: line.find(b":")].lower() == name:
            return line[line.find(b":") + 1 :].strip(b" \t")
    return b""


def redirect_location(head: RequestHead, *, trusted: bool) -> bytes:
    """Return where an https-only route sends a plain request: same host without port, raw target with its query."""
    host = trusted_value(head, b"x-forwarded-host") if trusted else b""
    return b"https://" + (host or redirect_host(head.host)) + head.path + head.query


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a text is, with or without a port, as some load balancers write it; None = it is none."""
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not (port[0] == ":" and port[1:].isdecimal())):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not port.isdecimal():
            return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _is_trusted(address: IPv4Address | IPv6Address, settings: ProxySettings) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # on a listener that is open for both, IPv4 looks like this
    return any(address.version == network.version and address in network for network in settings.trusted_ips)
