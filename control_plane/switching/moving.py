"""What a unit of work does to move the traffic of services, and the policy of one that moves it back."""

from __future__ import annotations

from control_plane.entities.service_settings import COLLECTION as SERVICE_SETTINGS
from control_plane.entities.types import EntityBody
from control_plane.fleet.rollout import Policy, Reaction
from control_plane.store import editor
from control_plane.store.contract import Transaction
from control_plane.switching.preflight import Move
from control_plane.switching.refusals import Missing, Refusal

HEALTH_CODES = frozenset({"NO_HEALTHY_TARGET", "UNHEALTHY_TARGETS"})
"""Faults of a node that are about the side's health alone."""
UNDO_POLICY = Policy(
    need_percent=1.0,
    vote_by_s=1.0,
    on_refuse=Reaction.PROCEED,
    on_slow=Reaction.PROCEED,
    tolerate=HEALTH_CODES,
    min_healthy_percent=0.0,
)
"""Back with as many nodes as can, whatever the health of the side before, and whoever is slow."""


def send_all(tx: Transaction, move: Move, *, now: float) -> None:
    """All requests of the service go where the move goes; no share goes elsewhere any more."""
    write_split(tx, move.id, None, now=now)
    editor.update(tx, "services", move.id, {"host": move.to}, now=now)


def write_split(tx: Transaction, service: str, split: EntityBody | None, *, now: float) -> None:
    """Sets what share of a service's requests goes to another upstream than its host; None = none."""
    settings = tx.get(SERVICE_SETTINGS, service)
    if settings is None:
        if split is not None:
            editor.upsert(tx, SERVICE_SETTINGS, service, {"service": {"id": service}, "split": split}, now=now)
    elif settings.get("split") != split:
        editor.update(tx, SERVICE_SETTINGS, service, {"split": split}, now=now)


def check_host(tx: Transaction, move: Move, host: str, when: str) -> None:
    """The service must be as the plan knew it. Raises Refusal and Missing."""
    service = tx.get("services", move.id)
    if service is None:
        raise Missing("SERVICE_GONE", f"service {move.service} was removed {when}", "there is nothing to move")
    if service.get("host") != host:
        what = f"service {move.service} was changed {when}: it points to {service.get('host')}, not to {host}"
        raise Refusal("SERVICE_CHANGED", what, "look at `pointsman history`, then name the side you want")


def check_no_split(tx: Transaction, move: Move) -> None:
    """No share of the service's requests may go elsewhere by its settings. Raises Refusal."""
    settings = tx.get(SERVICE_SETTINGS, move.id)
    if settings is not None and settings.get("split") is not None:
        what = f"a share of service {move.service} goes elsewhere already, by its own settings"
        remedy = f"take that back first: PATCH /fleet/services/{move.service}/settings with split null"
        raise Refusal("SPLIT_ALREADY", what, remedy)
