"""Operators' tokens: how they look, what is kept of them, and when one is good.

    pmt_5f0c2e9ab41d_Qh3...           the prefix, the token's id, 256 random bits

The token itself is shown once, when it is made. What is kept is its SHA-256: of 256 random bits that is as good as any
slower hash. The id in the text makes finding it one look-up, and lets an operator tell which token a log line is about.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from control_plane.entities.types import EntityBody
from control_plane.identity.roles import Role

PREFIX = "pmt"
_FORM = re.compile(r"pmt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is kept of a token. Times are seconds since the epoch."""

    id: str
    name: str
    role: Role
    hash: str  # SHA-256 of the whole text, hex
    created_at: float
    created_by: str
    expires_at: float | None = None  # None = until it is revoked
    revoked_at: float | None = None
    last_used_at: float | None = None  # to within a minute

    def good(self, now: float) -> bool:
        """Whether its bearer is let in."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def to_json(self) -> EntityBody:
        """For the store."""
        return {**self.shown(), "hash": self.hash}

    def shown(self) -> EntityBody:
        """For operators: everything but the hash."""
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role.value,
            "created_at": self.created_at,
            "created_by": self.created_by,
            "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
            "last_used_at": self.last_used_at,
        }

    @classmethod
    def from_json(cls, body: EntityBody) -> TokenRecord:
        """Reads what `to_json` wrote."""
        return cls(
            id=str(body["id"]),
            name=str(body["name"]),
            role=Role(str(body["role"])),
            hash=str(body["hash"]),
            created_at=_time(body["created_at"]) or 0.0,
            created_by=str(body["created_by"]),
            expires_at=_time(body["expires_at"]),
            revoked_at=_time(body["revoked_at"]),
            last_used_at=_time(body["last_used_at"]),
        )


def make(*, name: str, role: Role, now: float, created_by: str, ttl_s: float | None) -> tuple[str, TokenRecord]:
    """A new token: its text, which is nowhere else, and what is kept."""
    token_id = secrets.token_hex(6)
    text = f"{PREFIX}_{token_id}_{secrets.token_urlsafe(32)}"
    expires_at = None if ttl_s is None else now + ttl_s
    return text, TokenRecord(token_id, name, role, hash_of(text), now, created_by, expires_at)


def id_of(text: str) -> str | None:
    """The id inside a token's text; None when it is no token of ours."""
    found = _FORM.fullmatch(text)
    return found.group(1) if found else None


def hash_of(text: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(text.encode()).hexdigest()


def matches(record: TokenRecord, text: str) -> bool:
    """Whether the text is this token's. Takes as long for a near miss as for a far one."""
    return hmac.compare_digest(record.hash, hash_of(text))


def _time(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
