"""What the Admin API stands on, put together by whoever starts it and handed in as one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from control_plane.admin.guard import Guard
from control_plane.admin.writes import Fleet
from control_plane.events.ring import Ring
from control_plane.events.webhooks import Webhooks
from control_plane.identity.node_certificates import NodeCertificates
from control_plane.identity.operators import Operators
from control_plane.store.contract import Store
from control_plane.switching.switches import Switches


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The rooms behind the Admin API. Without `operators` nobody needs a token; without `switches` there are none."""

    store: Store
    fleet: Fleet
    guard: Guard = field(default_factory=Guard)
    operators: Operators | None = None
    node_certificates: NodeCertificates | None = None
    switches: Switches | None = None
    ring: Ring = field(default_factory=lambda: Ring(wall=time.time))
    webhooks: Webhooks | None = None
