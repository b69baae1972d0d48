"""ca_certificate: an authority whose signatures on upstream servers' certificates are believed.

Services name them in `ca_certificates`, a plain list of ids; that one of them cannot go while it is named is checked
before the commit (`snapshot/consistency.py`), where the whole of a change is seen.
"""

from __future__ import annotations

from collections.abc import Collection

from control_plane.entities import pem, typedefs
from control_plane.entities.checks import Check, Problems
from control_plane.entities.fields import Integer, String, text_rule
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody


def _check_authority(entity: EntityBody, problems: Problems) -> None:
    cert = entity.get("cert")
    if not isinstance(cert, str) or "cert" in problems.fields:
        return
    chain = pem.certificate_chain(cert)
    if len(chain) != 1:
        problems.entity.append("please submit only one certificate at a time")
    elif pem.is_expired(chain[0]):
        problems.entity.append('certificate expired, "Not After" time is in the past')
    elif not pem.is_authority(chain[0]):
        problems.entity.append('certificate does not appear to be a CA because it is missing the "CA" basic constraint')


def _add_digest(entity: EntityBody, _given: Collection[str]) -> None:
    entity["cert_digest"] = pem.digest(pem.certificate_chain(str(entity["cert"]))[0])


CA_CERTIFICATE = Schema(
    collection="ca_certificates",
    singular="ca_certificate",
    endpoint_key=None,
    recognised_by="cert",
    fields={
        "id": typedefs.uuid(),
        "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "cert": String(
            required=True,
            rules=(text_rule(pem.certificate_problem, form="pem-certificate"),),
            description="PEM; one certificate.",
        ),
        "cert_digest": String(unique=True, description="SHA-256 of the certificate in hex; always made anew."),
        "tags": typedefs.tags(),
    },
    checks=(Check(_check_authority, {"custom_entity_check": {"field_sources": ["cert"]}}),),
    transform=_add_digest,
)
