"""What one request to the Admin API may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on requests. Beyond them a request is refused with a 4xx that names the bound."""

    body_bytes_max: int = 10 << 20
    """An entity's body."""
    file_bytes_max: int = 10 << 20
    """A declarative file; raise it (`declarative_bytes_max`) for configurations of tens of thousands of entities."""
    batch_operations_max: int = 1_000
    """Operations of one `POST /batch`."""
    arguments_max: int = 1_000
    """Query or form arguments; Kong's number."""
    json_depth_max: int = 64
    """Nesting of JSON bodies. The deepest entity has 5 levels."""
    header_bytes_max: int = 16 << 10
    """One header line, or the request line."""
    headers_max: int = 100
    body_timeout_s: float = 30.0
    """How long a client may take to send a body."""
    idle_timeout_s: float = 75.0
    """How long a connection may stay without a complete request head."""
    wait_s_max: float = 120.0
    """The longest `Prefer: wait=`; longer wishes are cut to it."""
    reason_chars_max: int = 1_000
    author_chars_max: int = 200
    connections_max: int = 1_000
