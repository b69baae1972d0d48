"""Keeps a second process out of a file that only one may use."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from control_plane.store.contract import StoreUnusable


class FileLock:
    """An exclusive lock on a file of its own, from construction until `release` or the end of the process.

    The kernel gives it back whatever way the process ends, so a stale file means nothing.
    """

    def __init__(self, path: Path) -> None:
        self._fd: int | None = None
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnusable(f"{path} cannot be made: {error.strerror}; correct the folder's mode") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            self._fd = None
            raise StoreUnusable(
                f"another control plane has the database open (it holds {path}); stop it, or give this one a file of "
                "its own"
            ) from error

    def release(self) -> None:
        """Lets others in."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
