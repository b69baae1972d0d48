"""The first admin's token: whoever may read the control plane's own files may become its first admin.

Where tokens are needed and there is no good admin token, one is made at start and put into a file of mode 0600. Its
reader makes tokens for people with it, and then revokes it and removes the file.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from control_plane.identity.operators import Operators
from control_plane.identity.roles import Role
from control_plane.store.contract import Origin

NAME = "first admin"
ORIGIN = Origin(author="control plane", source="identity", action="first token")


async def ensure(operators: Operators, file: Path, *, now: float) -> bool:
    """Makes the token unless an admin has one; whether it was made.

    Raises OSError when the file can't be written; the token is revoked then, since nobody could ever use it.
    """
    records = await operators.records()
    if any(record.role is Role.ADMIN and record.good(now) for record in records):
        return False
    text, record = await operators.create(name=NAME, role=Role.ADMIN, ttl_s=None, origin=ORIGIN)
    try:
        await asyncio.to_thread(_write_private, file, text)
    except OSError:
        await operators.revoke(record.id, origin=ORIGIN)
        raise
    return True


def _write_private(file: Path, text: str) -> None:
    """Never follows a link that somebody else laid, and never leaves the text readable for others for an instant."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
