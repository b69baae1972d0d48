"""sni: a name in a client's hello, and the certificate that is shown for it."""

from __future__ import annotations

from control_plane.entities import typedefs
from control_plane.entities.fields import Foreign, Integer, String
from control_plane.entities.schema import Schema

SNI = Schema(
    collection="snis",
    singular="sni",
    endpoint_key="name",
    fields={
        "id": typedefs.uuid(),
        "name": String(
            required=True,
            unique=True,
            rules=(typedefs.sni_rule(),),
            description="A host name; `*` may stand for its first or last label, or for all of it.",
        ),
        "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "tags": typedefs.tags(),
        "certificate": Foreign(
            collection="certificates", required=True, cascade=True, description="What is shown for the name."
        ),
    },
)
