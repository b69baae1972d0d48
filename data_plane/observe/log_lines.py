"""How a record of the access log looks as a line: Kong's file-log JSON, or nginx's combined text.

Runs in the log's thread. Values of clients can hold anything, so JSON escapes what is not ASCII, and the text form
writes quotes, backslashes and control octets as nginx does: no value can end a line or a field.
"""

from __future__ import annotations

import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import assert_never
from urllib.parse import unquote_plus

from data_plane.model import RouteConfig, ServiceConfig
from data_plane.observe.access_log import AccessLogFormat, Attempt, Record
from data_plane.observe.traffic import STATUS_CLIENT_GONE

NOT_LOGGED = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "apikey", "x-api-key", "x-auth-token"}
)
"""Fields that carry credentials."""
ENTITIES_REMEMBERED_MAX = 4096
QUERY_ARGUMENTS_MAX = 100

JsonTree = dict[str, object]

_UNSAFE = re.compile(rb'["\\\x00-\x1f\x7f-\xff]')
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def line_of(form: AccessLogFormat, *, node_id: str) -> Callable[[Record], bytes]:
    """Return what makes lines of that form."""
    match form:
        case AccessLogFormat.JSON:
            return JsonLines(node_id)
        case AccessLogFormat.COMBINED:
            return combined_line
        case _:
            assert_never(form)


class JsonLines:
    """Lines with the field names of Kong's file-log, and ours beside them: `node`, `version`, `side`, `trace_id`."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._entities: OrderedDict[int, tuple[object, JsonTree]] = OrderedDict()
        self._encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

    def __call__(self, record: Record) -> bytes:
        fields = _fields(record.fields.split(b"\r\n"))
        answer = _fields(b"\r\n".join(record.answer).split(b"\r\n")[1:])
        uri = _text(record.path + record.query)
        host = _text(record.host)
        proxied = record.upstream_s >= 0
        tree: JsonTree = {
            "request": {
                "id": _text(record.request_id),
                "method": _text(record.method),
                "uri": uri,
                "url": f"{record.scheme}://{_with_port(host, record.port)}{uri}",
                "size": record.bytes_in,
                "querystring": _arguments(record.query),
                "headers": fields,
            },
            "response": {"status": record.status or STATUS_CLIENT_GONE, "size": record.bytes_out, "headers": answer},
            "latencies": {
                "request": _ms(record.request_s),
                "kong": _ms(record.proxy_s if proxied else record.request_s),
                "proxy": _ms(record.upstream_s) if proxied else -1,
                "receive": _ms(record.request_s - record.proxy_s - record.upstream_s) if proxied else 0,
            },
            "tries": _tries(record),
            "client_ip": _text(record.client),
            "started_at": int((record.ended - record.request_s) * 1000),
            "source": "kong" if record.own or not record.status else "upstream",
            "workspace_name": "default",
        }
        if record.upstream_start:
            tree["upstream_uri"] = _text(record.upstream_start.partition(b" ")[2] + record.query)
        if proxied:
            tree["upstream_status"] = str(record.status)
        if record.service is not None:
            tree["service"] = self._entity(record.service)
        if record.route is not None:
            tree["route"] = self._entity(record.route)
        tree["node"] = self._node_id
        tree["version"] = record.version
        if record.side:
            tree["side"] = record.side
        trace_id = _trace_id(fields)
        if trace_id:
            tree["trace_id"] = trace_id
        return self._encode(tree).encode("ascii") + b"\n"

    def _entity(self, entity: RouteConfig | ServiceConfig) -> JsonTree:
        known = self._entities.get(id(entity))
        if known is not None and known[0] is entity:
            return known[1]
        tree = _route(entity) if isinstance(entity, RouteConfig) else _service(entity)
        self._entities[id(entity)] = (entity, tree)
        if len(self._entities) > ENTITIES_REMEMBERED_MAX:
            self._entities.popitem(last=False)
        return tree


def combined_line(record: Record) -> bytes:
    """Return a line of nginx's combined format, with Kong's request id. The user is never named."""
    fields = _fields(record.fields.split(b"\r\n"), raw=True)
    head_bytes = sum(map(len, record.answer)) + 2 * len(record.answer) + 2 if record.answer else 0
    version = b"HTTP/1.0" if record.http10 else b"HTTP/1.1"
    request = record.method + b" " + record.path + record.query + b" " + version if record.method else b""
    local = time.localtime(record.ended)
    stamp = time.strftime("%d/%b/%Y:%H:%M:%S %z", local)
    return (
        b'%b - - [%b] "%b" %d %d "%b" "%b" kong_request_id: "%b"\n'
        % (
            record.client or b"-",
            stamp.encode(),
            _quoted(request),
            record.status or STATUS_CLIENT_GONE,
            max(record.bytes_out - head_bytes, 0),
            _quoted(_first(fields, "referer")),
            _quoted(_first(fields, "user-agent")),
            record.request_id or b"-",
        )
    )  # fmt: skip


def _fields(lines: Sequence[bytes], *, raw: bool = False) -> dict[str, object]:
    """Field lines by lower-case name; repeated ones as a list. Without those that carry credentials."""
    fields: dict[str, object] = {}
    for line in lines:
        name_bytes, colon, value_bytes = line.partition(b":")
        if not colon:
            continue
        name = name_bytes.decode("latin-1").lower()
        if name in NOT_LOGGED:
            continue
        stripped = value_bytes.strip(b" \t")
        value: object = stripped if raw else _text(stripped)
        before = fields.get(name)
        if before is None:
            fields[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            fields[name] = [before, value]
    return fields


def _first(fields: dict[str, object], name: str) -> bytes:
    value = fields.get(name)
    if isinstance(value, list):
        value = value[0]
    return value if isinstance(value, bytes) else b""


def _arguments(query: bytes) -> JsonTree:
    """The query as Kong logs it: values by name, repeated ones as a list, `true` where there is no `=`."""
    arguments: JsonTree = {}
    for part in _text(query[1:]).split("&")[:QUERY_ARGUMENTS_MAX]:
        if not part:
            continue
        name, equals, text = part.partition("=")
        key = unquote_plus(name)
        value: object = unquote_plus(text) if equals else True
        before = arguments.get(key)
        if before is None:
            arguments[key] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            arguments[key] = [before, value]
    return arguments


def _tries(record: Record) -> list[JsonTree]:
    started = record.ended - record.ended_at
    tries: list[JsonTree] = []
    for number, attempt in enumerate(record.attempts, start=1):
        tree = _try(attempt, started)
        if number < len(record.attempts) or (record.own and record.status in (502, 504)):
            tree["state"] = "failed"
        tries.append(tree)
    return tries


def _try(attempt: Attempt, started: float) -> JsonTree:
    return {"ip": attempt.ip, "port": attempt.port, "balancer_start": int((started + attempt.at) * 1000)}


def _trace_id(fields: dict[str, object]) -> str:
    value = fields.get("traceparent")
    found = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found is not None and found[1] != "0" * 32 else ""


def _route(route: RouteConfig) -> JsonTree:
    return {
        "id": route.id,
        "name": route.name or None,
        "protocols": list(route.protocols),
        "methods": list(route.methods) or None,
        "hosts": list(route.hosts) or None,
        "paths": list(route.paths) or None,
        "headers": {condition.name: list(condition.values) for condition in route.headers} or None,
        "snis": list(route.snis) or None,
        "https_redirect_status_code": route.https_redirect_status_code,
        "regex_priority": route.regex_priority,
        "strip_path": route.strip_path,
        "path_handling": route.path_handling,
        "preserve_host": route.preserve_host,
        "request_buffering": route.request_buffering,
        "response_buffering": route.response_buffering,
        "created_at": route.created_at,
        "service": {"id": route.service} if route.service else None,
    }


def _service(service: ServiceConfig) -> JsonTree:
    tree: JsonTree = asdict(service)
    for name in ("connect_timeout", "write_timeout", "read_timeout"):
        tree[name] = round(float(str(tree.pop(f"{name}_s"))) * 1000)
    for name in ("name", "path", "client_certificate"):
        tree[name] = tree.get(name) or None
    return tree


def _with_port(host: str, port: int) -> str:
    if not host:
        return f"localhost:{port}"
    return host if ":" in host.rpartition("]")[2] else f"{host}:{port}"


def _ms(seconds: float) -> int:
    return max(int(seconds * 1000), 0)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _quoted(data: bytes) -> bytes:
    return _UNSAFE.sub(lambda found: b"\\x%02X" % found[0][0], data) if data else b"-"
