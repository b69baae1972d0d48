"""How a join token looks: made by the control plane, read by the node that joins with it.

    pmj_5f0c2e9ab41d_<43 characters>_<43 characters>      id, SHA-256 of the CA's certificate, 256 random bits

The fingerprint pins the CA: the node knows whom to trust before it has said a word.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

_FORM = re.compile(r"pmj_([0-9a-f]{12})_([A-Za-z0-9_-]{43})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True, repr=False)
class JoinToken:
    """A token's parts. Has no repr: it would show the secret."""

    id: str
    fingerprint: str
    secret: str

    @property
    def text(self) -> str:
        """What an operator gives to a node."""
        return f"pmj_{self.id}_{self.fingerprint}_{self.secret}"

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises ValueError, which does not repeat the text."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise ValueError("this is no join token; it looks like pmj_..., made by `pointsman join-token create`")
        return cls(*found.groups())


def fingerprint_of(certificate_der: bytes) -> str:
    """How a token names a CA: SHA-256, base64 without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate_der).digest()).rstrip(b"=").decode()


def secret_hash(text: str) -> str:
    """What the control plane keeps of a token: of 256 random bits SHA-256 is as good as any slower hash."""
    return hashlib.sha256(text.encode()).hexdigest()
