"""Join tokens: what is kept of them, and whether one lets a node in."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.entities.types import EntityBody, JsonValue
from pointsman.rules.join_token import JoinToken, secret_hash

TTL_S_MIN, TTL_S_MAX = 1.0, 30 * 86_400.0
USES_MAX = 10_000
KEPT_S = 30 * 86_400.0
"""A token that is over is listed for this long, for whoever asks what became of it."""


@dataclass(frozen=True, slots=True)
class JoinTokenRecord:
    """What is kept of a join token. Times are seconds since the epoch."""

    id: str
    hash: str  # SHA-256 of the whole text, hex
    created_at: float
    created_by: str
    expires_at: float
    uses: int  # nodes that may join with it
    labels: Mapping[str, str] = field(default_factory=dict)
    used_by: tuple[str, ...] = ()  # node ids
    revoked_at: float | None = None

    def state(self, now: float) -> str:
        """revoked, expired, used up or good."""
        if self.revoked_at is not None:
            return "revoked"
        if now >= self.expires_at:
            return "expired"
        return "used up" if len(self.used_by) >= self.uses else "good"

    def to_json(self) -> EntityBody:
        """For the store."""
        used_by: list[JsonValue] = list(self.used_by)
        return {
            "id": self.id,
            "hash": self.hash,
            "created_at": self.created_at,
            "created_by": self.created_by,
            "expires_at": self.expires_at,
            "uses": self.uses,
            "labels": dict(self.labels),
            "used_by": used_by,
            "revoked_at": self.revoked_at,
        }

    def shown(self, now: float) -> EntityBody:
        """For operators: everything but the hash."""
        body = {name: value for name, value in self.to_json().items() if name != "hash"}
        return {**body, "state": self.state(now)}

    @classmethod
    def from_json(cls, body: EntityBody) -> JoinTokenRecord:
        """Reads what `to_json` wrote."""
        labels, used_by, revoked_at = body["labels"], body["used_by"], body["revoked_at"]
        assert isinstance(labels, dict)
        assert isinstance(used_by, list)
        return cls(
            id=str(body["id"]),
            hash=str(body["hash"]),
            created_at=float(str(body["created_at"])),
            created_by=str(body["created_by"]),
            expires_at=float(str(body["expires_at"])),
            uses=int(str(body["uses"])),
            labels={str(name): str(value) for name, value in labels.items()},
            used_by=tuple(str(node) for node in used_by),
            revoked_at=None if revoked_at is None else float(str(revoked_at)),
        )


def make(
    *, fingerprint: str, now: float, created_by: str, ttl_s: float, uses: int, labels: Mapping[str, str]
) -> tuple[JoinToken, JoinTokenRecord]:
    """A new token, which is nowhere else, and what is kept of it."""
    token = JoinToken(secrets.token_hex(6), fingerprint, secrets.token_urlsafe(32))
    record = JoinTokenRecord(token.id, secret_hash(token.text), now, created_by, now + ttl_s, uses, labels)
    return token, record


def matches(record: JoinTokenRecord, token: JoinToken) -> bool:
    """Whether it is this token. Takes as long for a near miss as for a far one."""
    return hmac.compare_digest(record.hash, secret_hash(token.text))
