"""Changing the cluster's CA for a new one without a node losing its way.

    settled --begin--> introducing --all nodes trust both--> retiring --all nodes have a certificate of it--> settled

While the new authority is introduced the old one signs, and nodes are told over their streams to trust both. Then the
new one signs, control planes show certificates of it, and nodes are told to renew. When no node is left with a
certificate of the former one, it is not trusted any more. Each step is one transaction that any control plane may
take; what a node trusts and shows is its own word. A node that is away holds a step up until its certificate ends:
after that it needs a join token anyhow. `hurry` takes the step without those that are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from control_plane.identity import node_ca, node_records
from control_plane.identity.node_ca import Authorities
from control_plane.identity.node_records import NodeRecord
from control_plane.store.contract import AuditEntry, Origin, Transaction

STEP_S_MIN = 3.0
"""A step takes at least this long: every control plane has read the one before by then."""


class State(StrEnum):
    """How far a rotation is."""

    SETTLED = "settled"
    INTRODUCING = "introducing"
    RETIRING = "retiring"


class NotNow(Exception):
    """The step makes no sense now; the text says why."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A node that holds a step up, and until when at most (seconds since the epoch)."""

    node_id: str
    until: float


def state_of(authorities: Authorities) -> State:
    """Where the rotation is."""
    if authorities.next is not None:
        return State.INTRODUCING
    return State.RETIRING if authorities.former is not None else State.SETTLED


def settled(authorities: Authorities, record: NodeRecord) -> bool:
    """Whether a node trusts whom it should, and while one is retired shows a certificate of the other."""
    shows = state_of(authorities) is not State.RETIRING or record.issuer == authorities.issuing.fingerprint
    return shows and record.trusts == authorities.fingerprints


def missing(authorities: Authorities, records: Iterable[NodeRecord], *, now: float) -> Sequence[Missing]:
    """The nodes that the next step waits for."""
    if state_of(authorities) is State.SETTLED:
        return []
    return [
        Missing(record.id, record.expires_at)
        for record in records
        if record.revoked_at is None and record.expires_at > now and not settled(authorities, record)
    ]


def due(authorities: Authorities, records: Iterable[NodeRecord], *, now: float) -> bool:
    """Whether the next step's time has come."""
    if authorities.next is not None:
        since = authorities.next.since
    elif authorities.former is not None:
        since = authorities.issuing.since
    else:
        return False
    return now - since >= STEP_S_MIN and not missing(authorities, records, now=now)


def begin(tx: Transaction, *, now: float, origin: Origin) -> None:
    """Makes the new authority. Raises NotNow when a rotation is under way."""
    authorities = node_ca.load(tx)
    if (state := state_of(authorities)) is not State.SETTLED:
        raise NotNow(f"a rotation of the CA is under way ({state.value}); see `pointsman ca show`")
    body = node_ca.made(node_ca.NEXT, authorities.issuing.cluster, now)
    node_ca.keep(tx, node_ca.NEXT, body)
    _audit(tx, now, origin, State.INTRODUCING)


def advance(tx: Transaction, *, now: float, origin: Origin, hurry: bool = False) -> State | None:
    """Takes the next step if its time has come; the state after it, or None when it has not.

    With `hurry` it waits for no node. Raises NotNow when there is nothing to hurry.
    """
    authorities = node_ca.load(tx)
    step = authorities.next or authorities.former
    if step is None:
        if hurry:
            raise NotNow("no rotation of the CA is under way; `pointsman ca rotate` begins one")
        return None
    if not hurry and not due(authorities, node_records.each(tx).values(), now=now):
        return None
    if step is authorities.next:
        _move(tx, node_ca.ISSUING, node_ca.FORMER, now)
        _move(tx, node_ca.NEXT, node_ca.ISSUING, now)
        state = State.RETIRING
    else:
        tx.identities.delete(node_ca.KIND, node_ca.FORMER)
        state = State.SETTLED
    _audit(tx, now, origin, state)
    return state


def _move(tx: Transaction, place: str, other: str, now: float) -> None:
    body = tx.identities.get(node_ca.KIND, place)
    assert body is not None, "there is one"
    tx.identities.delete(node_ca.KIND, place)
    node_ca.keep(tx, other, {**body, "id": other, "since": now})


def _audit(tx: Transaction, now: float, origin: Origin, state: State) -> None:
    tx.records.append_audit([AuditEntry(now, origin, "done", None, {"node_ca": state.value})])
