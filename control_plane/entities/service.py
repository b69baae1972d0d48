"""service: what is proxied to, by protocol, host, port and path."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from control_plane.entities import typedefs
from control_plane.entities.checks import must_be_null
from control_plane.entities.errors import SchemaViolation
from control_plane.entities.fields import Array, Boolean, Foreign, Integer, String, between
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody, JsonValue

_TLS = ("https", "tls")
_TLS_FIELDS = ("client_certificate", "tls_verify", "tls_verify_depth", "ca_certificates")
_PORT = re.compile(r":([^:\]]+)\Z")


def _expand_url(body: EntityBody) -> EntityBody:
    """Expand the shorthand `url` into protocol, host, port and path, over whatever was given for these.

    A null `url` counts as not given.
    """
    if "url" not in body:
        return body
    url = body.pop("url")
    if url is None:
        return body
    if not isinstance(url, str):
        raise SchemaViolation({"url": "expected a string"})
    if not url:
        raise SchemaViolation({"url": "length must be at least 1"})
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise SchemaViolation({"url": f"invalid url: '{url}'"}) from None
    # `hostname` is lower-cased by the parser; the host keeps the case it was written in.
    written = parts.netloc.rpartition("@")[2]
    start = written.lower().find(host) if host else -1
    port = _PORT.search(written)
    number: JsonValue = None
    if port is not None:  # whatever it is: the field's own check says what is wrong with it
        number = int(port[1]) if port[1].isascii() and port[1].isdigit() else port[1]
    protocol = parts.scheme or {80: "http", 443: "https"}.get(number if isinstance(number, int) else 0, "http")
    body["protocol"] = protocol
    body["host"] = written[start : start + len(host)] if host and start >= 0 else host
    body["port"] = number if number is not None else (443 if protocol == "https" else 80)
    body["path"] = parts.path or None
    return body


SERVICE = Schema(
    collection="services",
    singular="service",
    endpoint_key="name",
    fields={
        "id": typedefs.uuid(),
        "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "name": typedefs.name(),
        "retries": Integer(
            default=5, has_default=True, rules=(between(0, 32767),), description="Attempts after the first."
        ),
        "protocol": typedefs.protocol(default="http", required=True),
        "host": String(
            required=True,
            rules=(typedefs.host_rule(),),
            description="The name of an upstream, else a DNS name or an address.",
        ),
        "port": typedefs.port(default=80, required=True),
        "path": typedefs.path(),
        "connect_timeout": typedefs.timeout_ms(),
        "write_timeout": typedefs.timeout_ms(),
        "read_timeout": typedefs.timeout_ms(),
        "tags": typedefs.tags(),
        "client_certificate": Foreign(
            collection="certificates",
            nested=False,
            description="Shown to the upstream server; only with https and tls.",
        ),
        "tls_verify": Boolean(description="Verify the upstream server; null leaves it to the node's setting."),
        "tls_verify_depth": Integer(
            has_default=True, rules=(between(0, 64),), description="Longest chain that is verified."
        ),
        "ca_certificates": Array(
            elements=String(is_uuid=True), description="Ids of the CA certificates that are trusted."
        ),
        "enabled": Boolean(
            default=True,
            has_default=True,
            required=True,
            description="A disabled service and its routes are left out of what nodes run.",
        ),
    },
    checks=(
        must_be_null("protocol", ("tcp", "tls", "udp", "grpc", "grpcs"), "path"),
        *(must_be_null("protocol", _TLS, name, negated=True) for name in _TLS_FIELDS),
    ),
    prepare=_expand_url,
    shorthands={
        "url": {
            "type": ["string", "null"],
            "writeOnly": True,
            "description": "protocol, host, port and path in one.",
        }
    },
)
