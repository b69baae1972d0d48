"""Limits and times of the fleet link, read once at start. Times are seconds, sizes bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from control_plane.fleet.gather import GatherSettings

PROTOCOL = 1
"""The conversation of `proto/pointsman/wire/v1/fleet.proto`."""
SCHEMA_LEVEL = 1
"""Grows by one with each release that changes what entities travel. A node must know at least ours."""
LEASE_BEATS = 3
"""Beats that may be missed before a node counts as gone."""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What an operator may set about the fleet link."""

    listen: str = "127.0.0.1:8005"
    """Where nodes dial in; port 0 = the kernel chooses (`Fleet.address` tells)."""
    beat_interval_s: float = 5.0
    """How often nodes say that they live. A node is lost after three; shorter finds that sooner and costs more."""
    hello_timeout_s: float = 10.0
    """A stream that has not said hello by then is closed."""
    pulls_max: int = 64
    """Pulls served at the same time; the others queue, so that those served get through."""
    pulls_waiting_max: int = 10_000
    """Pulls that may queue; further ones are told to come again."""
    piece_timeout_s: float = 120.0
    """A pull whose reader takes none of its pieces for this long loses its turn; it may resume."""
    nodes_max: int = 10_000
    """Nodes connected at once, and remembered; bounds memory against a client that makes up ids."""
    messages_per_s_max: float = 50.0
    """A node that keeps sending more is cut off."""
    purge_after_s: float = 14 * 24 * 3600.0
    """Nodes not seen for this long are forgotten."""
    save_interval_s: float = 2.0
    """Facts on nodes are written to the store at most this often."""
    reconnect_spread_s_max: float = 30.0
    """Nodes are told to spread their return over up to this long when the control plane stops."""
    health_interval_s: float = 1.0
    """How often changes of health are passed on to nodes that do not probe, and gone nodes' words are forgotten."""
    sampling_nodes_min: int = 50
    """Fleets of more live nodes than this let a few nodes probe for all, where an upstream leaves that to us."""
    probers_per_zone: int = 3
    """Nodes that probe in each zone then."""
    canary_wait_s: float = 1.0
    """A change goes to one node first, and to the others when it runs there or after this long; 0 = none goes first."""
    accept_rollback: bool = False
    """Nodes go back from versions that a restored store does not hold."""
    accept_empty: bool = False
    """Nodes of a history that this store knows nothing of are taken over."""
    sole_plane: bool = True
    """Whether no other process uses the store: what a dead one left behind is then taken over at once."""
    gather: GatherSettings = field(default_factory=GatherSettings)
    """How writes are gathered into snapshots."""

    @property
    def lease_s(self) -> float:
        """Silence after which a node counts as gone."""
        return LEASE_BEATS * self.beat_interval_s
