"""What is kept of each node that joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.entities.types import EntityBody
from control_plane.store.contract import Transaction

KIND = "node"
"""How the store calls them."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What is kept of a node that joined. Times are seconds since the epoch."""

    id: str
    key: str  # digest of its public key, hex
    joined_at: float
    token: str  # id of the join token
    expires_at: float  # of its newest certificate
    labels: Mapping[str, str] = field(default_factory=dict)
    revoked_at: float | None = None
    trusts: frozenset[str] = frozenset()  # fingerprints of the authorities that it said it trusts
    issuer: str = ""  # fingerprint of the authority that signed what it shows; empty = the first one

    def to_json(self) -> EntityBody:
        """For the store."""
        return {
            "id": self.id,
            "key": self.key,
            "joined_at": self.joined_at,
            "token": self.token,
            "expires_at": self.expires_at,
            "labels": dict(self.labels),
            "revoked_at": self.revoked_at,
            "trusts": [*sorted(self.trusts)],
            "issuer": self.issuer,
        }

    @classmethod
    def from_json(cls, body: EntityBody) -> NodeRecord:
        """Reads what `to_json` wrote."""
        labels, revoked_at = body["labels"], body["revoked_at"]
        assert isinstance(labels, dict)
        trusts = body.get("trusts") or []
        assert isinstance(trusts, list)
        return cls(
            id=str(body["id"]),
            key=str(body["key"]),
            joined_at=float(str(body["joined_at"])),
            token=str(body["token"]),
            expires_at=float(str(body["expires_at"])),
            labels={str(name): str(value) for name, value in labels.items()},
            revoked_at=None if revoked_at is None else float(str(revoked_at)),
            trusts=frozenset(str(each) for each in trusts),
            issuer=str(body.get("issuer") or ""),
        )


def get(tx: Transaction, node_id: str) -> NodeRecord | None:
    """One node."""
    body = tx.identities.get(KIND, node_id)
    return None if body is None else NodeRecord.from_json(body)


def put(tx: Transaction, record: NodeRecord) -> None:
    """Keeps a node in place of what was known of it."""
    tx.identities.put(KIND, record.id, record.to_json())


def each(tx: Transaction) -> Mapping[str, NodeRecord]:
    """All nodes by id."""
    return {str(body["id"]): NodeRecord.from_json(body) for body in tx.identities.each(KIND)}
