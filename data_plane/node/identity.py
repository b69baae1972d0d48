"""Who this node is: an id that is made once, kept in the state directory, and held by one process at a time."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

_ID_BYTES_MAX = 64


class IdentityError(Exception):
    """The state directory can't be used; the text says why and what to do."""


class Identity:
    """The node's id, with a lock on its state directory for as long as this object is open.

    Two nodes with one id would take turns in the control plane's list and overwrite each other's last good config.
    The kernel lets go of the lock when the process dies, however it dies.
    """

    def __init__(self, state_dir: Path) -> None:
        """Raises IdentityError."""
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise IdentityError(
                f"the state directory {state_dir} can't be used: {error.strerror}; check --state-dir"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.node_id = _read_or_make(state_dir)
        except IdentityError:
            self.close()
            raise
        except BlockingIOError:
            self.close()
            raise IdentityError(
                f"another node runs from the state directory {state_dir}; give each node its own --state-dir"
            ) from None
        except OSError as error:
            self.close()
            raise IdentityError(
                f"the node id in {state_dir} can't be kept: {error.strerror}; check --state-dir"
            ) from error

    def close(self) -> None:
        """Let another process have the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _read_or_make(state_dir: Path) -> str:
    path = state_dir / "node_id"
    try:
        with path.open("rb") as file:
            return str(uuid.UUID(file.read(_ID_BYTES_MAX).decode("ascii").strip()))
    except FileNotFoundError:
        pass
    except ValueError as error:  # includes bytes that are no ASCII
        raise IdentityError(f"{path} does not hold a node id; remove it, and the node gets a new one") from error
    node_id = str(uuid.uuid4())
    written = path.with_suffix(".new")
    with written.open("w", encoding="ascii") as file:
        file.write(node_id + "\n")
        file.flush()
        os.fsync(file.fileno())
    written.replace(path)
    directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return node_id
