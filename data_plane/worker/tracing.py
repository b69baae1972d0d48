"""The route tester's end: what would become of a request, told by the tables that serve.

The request is written as a client would send it and goes through the proxy's own scan, router and plan; nothing is sent
anywhere and nothing is counted. Steps yield, because all routes are looked at for those that came close.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

from data_plane.balancer.endpoint import Endpoint
from data_plane.model import RouteConfig
from data_plane.proxy.forwarding import make_plan
from data_plane.proxy.head import BadRequest, RequestHead, RequestScanner
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tables import Plan, ServiceRuntime, Tables
from data_plane.router.explain import NEAR_MAX, explain
from pointsman.wire.v1.fleet_pb2 import TraceAnswer, TraceEndpoint, TraceNear, TraceRequest, TraceRoute, TraceUpstream

ENDPOINTS_MAX = 64
CAPTURES_MAX = 32
CAPTURE_CHARACTERS_MAX = 200
ANSWER_BYTES_MAX = 100 * 1024
"""A larger answer would not fit the fleet link's messages; it goes without what came close."""
NOTHING_SERVED = "this worker serves no configuration yet"


def trace(
    request: TraceRequest,
    tables: Tables | None,
    settings: ProxySettings,
    upstream_name: Callable[[object], str],
) -> Generator[None, None, TraceAnswer]:
    """Return the answer to `request`; yields between steps. A request that is malformed is answered with its status."""
    answer = TraceAnswer(id=request.id)
    if tables is None:
        answer.error = NOTHING_SERVED
        return answer
    answer.version = tables.version
    head = RequestHead()
    sni = request.sni.encode() or b""
    try:
        data = _as_sent(request)
        RequestScanner(settings).scan(data, len(data) - 4, head)
        plan = make_plan(tables, head, scheme=request.scheme, proto=request.scheme.encode(), port=request.port, sni=sni)
    except BadRequest as bad:
        answer.status = bad.status
        answer.message = bad.message
        return answer
    if plan.status:
        answer.status = plan.status
        answer.message = plan.message
    if plan.route is not None:
        answer.route.CopyFrom(_route(plan.route, tables.services))
    yield

    def header_values(name: str) -> Sequence[bytes]:
        return head.values(name.encode("latin-1"))

    facts = tables.router.facts(
        head.method,
        head.host or None,
        head.path,
        port=request.port,
        scheme=request.scheme,
        header_values=header_values,
        sni=sni or None,
    )
    if facts is not None:
        answer.path = _text(facts.path)
        match = tables.router.search(facts)
        if match is not None:
            answer.matched_path = _text(match.matched_path or b"")
            captures = list((match.captures or {}).items())[:CAPTURES_MAX]
            answer.captures.update((name, value[:CAPTURE_CHARACTERS_MAX]) for name, value in captures)
        explanation = yield from explain(tables.router, facts, near_max=NEAR_MAX)
        answer.routes = len(tables.router)
        for near in explanation.near:
            told = TraceNear(route=_route(near.route, tables.services), outranked=near.outranked)
            for failure in near.failures:
                told.failures.add(field=failure.field, wants=failure.wants, has=failure.has)
            answer.near.append(told)
    if plan.service is not None and not plan.status:
        # A split is counted out when requests come; by its mark alone it is known where one would go.
        sides = plan.service.sides
        side = (sides.by_mark(head) if sides is not None else None) or plan.service
        answer.upstream.CopyFrom(_upstream(plan, side, head, upstream_name))
    if answer.ByteSize() > ANSWER_BYTES_MAX:
        answer.ClearField("near")
    return answer


def _as_sent(request: TraceRequest) -> bytes:
    """The head of the request on the wire. What can't be part of one is a malformed request."""
    lines = [request.method.encode() + b" " + request.target + b" HTTP/1.1"]
    lines += [header.name.encode() + b": " + header.value.encode() for header in request.headers]
    for line in lines:
        if b"\r" in line or b"\n" in line:
            raise BadRequest(400)
    return b"\r\n".join([*lines, b"", b""])


def _upstream(
    plan: Plan, service: ServiceRuntime, head: RequestHead, upstream_name: Callable[[object], str]
) -> TraceUpstream:
    method, _, path = plan.start.partition(b" ")
    told = TraceUpstream(
        method=_text(method),
        protocol=service.config.protocol,
        path=_text(path + head.query),
        host=_text(plan.host_line.removeprefix(b"Host: ")),
        name=upstream_name(service.balancer),
    )
    found = getattr(service.balancer, "endpoints", None)
    endpoints: list[Endpoint] = []
    if isinstance(found, Mapping):
        endpoints = [endpoint for endpoint in _values(found) if isinstance(endpoint, Endpoint)]
    told.endpoints_total = len(endpoints)
    for endpoint in endpoints[:ENDPOINTS_MAX]:
        host_line = plan.host_line or service.host_line(endpoint)
        told.endpoints.append(
            TraceEndpoint(
                ip=endpoint.ip,
                port=endpoint.port,
                host=endpoint.host,
                weight=endpoint.weight,
                available=endpoint.available,
                in_flight=endpoint.in_flight,
                host_sent=_text(host_line.removeprefix(b"Host: ")),
            )
        )
    if not any(endpoint.available and endpoint.weight for endpoint in endpoints):
        told.error = "no endpoint is available"
    return told


def _values(mapping: Mapping[object, object]) -> Iterable[object]:
    return mapping.values()


def _route(route: RouteConfig, services: Mapping[str, ServiceRuntime]) -> TraceRoute:
    service = services.get(route.service)
    return TraceRoute(
        id=route.id,
        name=route.name,
        service_id=route.service,
        service_name=service.config.name if service is not None else "",
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
