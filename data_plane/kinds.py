"""The kinds of entities that travel, and the collection each belongs to: the one place of this plane that lists them.

A kind that is missing here is refused by the node before any worker sees it, so a new one begins with a line here and a
decoder in `data_plane/worker/decode.py`.
"""

from __future__ import annotations

from types import MappingProxyType

from pointsman.wire.v1 import config_pb2

COLLECTIONS = MappingProxyType(
    {
        "service": "services",
        "route": "routes",
        "upstream": "upstreams",
        "target": "targets",
        "upstream_settings": "upstream_settings",
        "service_settings": "service_settings",
        "certificate": "certificates",
        "sni": "snis",
        "ca_certificate": "ca_certificates",
    }
)
"""By the name of the field in `Entity`'s oneof."""


def key_of(entity: config_pb2.Entity) -> tuple[str, str] | None:
    """Collection and id; None for a kind that a later version of the software brought."""
    kind = entity.WhichOneof("kind")
    collection = COLLECTIONS.get(kind) if kind is not None else None
    return None if collection is None else (collection, getattr(entity, str(kind)).id)
