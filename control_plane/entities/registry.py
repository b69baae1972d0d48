"""All schemas, parents before children: an entity refers only to collections that stand before its own."""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.entities.ca_certificate import CA_CERTIFICATE
from control_plane.entities.certificate import CERTIFICATE
from control_plane.entities.consumer import CONSUMER
from control_plane.entities.credentials import CREDENTIALS
from control_plane.entities.plugin import PLUGIN
from control_plane.entities.route import ROUTE
from control_plane.entities.schema import Schema
from control_plane.entities.service import SERVICE
from control_plane.entities.service_settings import SERVICE_SETTINGS
from control_plane.entities.sni import SNI
from control_plane.entities.target import TARGET
from control_plane.entities.upstream import UPSTREAM
from control_plane.entities.upstream_settings import UPSTREAM_SETTINGS

SCHEMAS: Mapping[str, Schema] = {
    schema.collection: schema
    for schema in (
        CERTIFICATE,
        SNI,
        CA_CERTIFICATE,
        SERVICE,
        ROUTE,
        UPSTREAM,
        TARGET,
        CONSUMER,
        *CREDENTIALS,
        PLUGIN,
    )
}
"""Kong's collections: those with paths of their own, with `/schemas/...` and with a place in decK's files."""

OWN_SETTINGS: Mapping[str, Schema] = {schema.collection: schema for schema in (UPSTREAM_SETTINGS, SERVICE_SETTINGS)}
"""What we let an operator say of Kong's entities; each goes with its entity and carries that one's id."""

STORED: Mapping[str, Schema] = {**SCHEMAS, **OWN_SETTINGS}
"""All collections that the store keeps: Kong's and our own settings, which live under our own paths."""
