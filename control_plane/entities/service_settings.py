"""service_settings: what we let an operator say of a service beyond Kong's entity. One for a service, with its id.

Kept like `upstream_settings`: shown at `/fleet/services/{s}/settings`, below `_pointsman` in files, gone with its
service.

`partition` says what a node does with the service when it has lost every control plane: go on by what it knows
(`serve_stale`), or answer 503 after `fence_after_s` (`fence`), for services where an old answer is worse than none.
"""

from __future__ import annotations

from control_plane.entities import typedefs
from control_plane.entities.fields import Foreign, Integer, Number, String, between, one_of
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody

COLLECTION = "service_settings"
FENCE_AFTER_S_DEFAULT = 60
FENCE_AFTER_S_MIN = 1
FENCE_AFTER_S_MAX = 30 * 24 * 3600
SERVE_STALE, FENCE = "serve_stale", "fence"

SERVICE_SETTINGS = Schema(
    collection=COLLECTION,
    singular="service_settings",
    endpoint_key=None,
    foreign_keys={"services": ("name",)},
    fields={
        "id": typedefs.uuid("The service's id."),
        "created_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "updated_at": Integer(auto=True, is_timestamp=True, description="Seconds since the epoch."),
        "service": Foreign(collection="services", required=True, cascade=True, description="Whose settings."),
        "partition": String(
            default=SERVE_STALE,
            has_default=True,
            required=True,
            rules=(one_of(SERVE_STALE, FENCE),),
            description="What a node does with the service while it has no control plane.",
        ),
        "fence_after_s": Number(
            default=FENCE_AFTER_S_DEFAULT,
            has_default=True,
            required=True,
            rules=(between(FENCE_AFTER_S_MIN, FENCE_AFTER_S_MAX),),
            description="Seconds without a control plane after which `fence` answers 503.",
        ),
    },
)


def fence_after_s(settings: EntityBody) -> float | None:
    """Return how long a node may serve the service without a control plane; None = as long as it likes."""
    seconds = settings.get("fence_after_s")
    if settings.get("partition") != FENCE:
        return None
    return float(seconds) if isinstance(seconds, int | float) else float(FENCE_AFTER_S_DEFAULT)
