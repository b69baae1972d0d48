"""consumer: who uses the gateway, by a name of ours or by an id of another system."""

from __future__ import annotations

from control_plane.entities import typedefs
from control_plane.entities.checks import at_least_one_of
from control_plane.entities.fields import Integer, String
from control_plane.entities.schema import Schema

CONSUMER = Schema(
    collection="consumers",
    singular="consumer",
    endpoint_key="username",
    fields={
        "id": typedefs.uuid(),
        "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "username": String(unique=True, description="A unique name; any text."),
        "custom_id": String(unique=True, description="The id that another system knows the consumer by."),
        "tags": typedefs.tags(),
    },
    checks=(at_least_one_of("custom_id", "username"),),
)
