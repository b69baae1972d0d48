"""Where events may be posted to. Settings are checked by it, so it imports nothing that takes long."""

from __future__ import annotations

from urllib.parse import urlsplit


def checked(address: str) -> str:
    """An address that can be posted to. Raises ValueError with what is wrong."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"'{address}' is no address; write it like https://hooks.example.com/pointsman")
    if parts.username is not None:
        raise ValueError("an address must not carry a password; it would be shown in logs")
    return address
