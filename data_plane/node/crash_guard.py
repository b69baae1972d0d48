"""Keeps a configuration that kills the node process from doing so for ever.

A life that ends within `STABLE_S` of an activation, and not in good order, counts against the content that was
activated last. Two such ends in a row and the node starts with the generation before, refuses that content and says so.
The refusal ends when other content, which the control plane sent since, has been stable.

What must be remembered is one small file. It is written in place by one call, on the way of every change, and not
flushed: it is about ends of the process, which the kernel outlives. Putting a new file in its place, which some file
systems flush first, would hold the change up for milliseconds.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from data_plane.node.outcomes import Refused
from pointsman.snapshots import Fault, Stage

log = logging.getLogger(__name__)

STABLE_S = 30.0
CRASHES_MAX = 2
_FILE = "lives.json"
_RECORD_BYTES = 512


@dataclass(slots=True)
class Lives:
    """What is remembered. `content` is a snapshot hash in hex; `unstable` = its last activation was a moment ago."""

    content: str = ""
    unstable: bool = False
    crashes: int = 0
    refused: str = ""


class CrashGuard:
    """Counts the ends of the process. `begin` before anything is activated."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._lives = Lives()
        self._written = b""
        self._news = False
        self._descriptor: int | None = None

    @property
    def refused(self) -> str:
        """The content that is not to be activated, in hex; empty = none."""
        return self._lives.refused

    def begin(self) -> None:
        """A new life of the node process."""
        self._lives = self._read()
        lives = self._lives
        if lives.unstable:
            lives.unstable = False
            lives.crashes += 1
            log.warning("the node ended within %g s of an activation, %d times now", STABLE_S, lives.crashes)
            if lives.crashes >= CRASHES_MAX:
                lives.refused, lives.crashes = lives.content, 0
        self._write()

    def refusal(self, snapshot_hash: bytes) -> Refused | None:
        """Why this content is not activated; None = it may be."""
        if not self._lives.refused or snapshot_hash.hex() != self._lives.refused:
            return None
        message = f"the node ended {CRASHES_MAX} times within {STABLE_S:g} s of activating this configuration"
        return Refused(Stage.ACTIVATE, (Fault("CRASH_LOOP", message=message),))

    def forgive(self) -> None:
        """There is nothing else to serve."""
        self._lives.refused = ""
        self._write()

    def activating(self, snapshot_hash: bytes, *, restored: bool) -> None:
        """This content is about to become active; `restored` = from disk, and so no news."""
        self._news = self._news or not restored
        lives = self._lives
        content = snapshot_hash.hex()
        if content != lives.content:
            lives.content, lives.crashes = content, 0
        lives.unstable = True
        self._write()

    def withdrawn(self) -> None:
        """What was about to become active did not, and not because of what it is."""
        self._lives.unstable = False
        self._write()

    def stable(self) -> None:
        """What was activated last has served for `STABLE_S`."""
        lives = self._lives
        lives.unstable, lives.crashes = False, 0
        if self._news and lives.content != lives.refused:
            lives.refused = ""
        self._write()

    def ended(self) -> None:
        """The process ends in good order."""
        self._lives.unstable = False
        self._write()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self) -> Lives:
        try:
            said = json.loads(self._path.read_text(encoding="utf-8"))
            return Lives(str(said["content"]), bool(said["unstable"]), int(said["crashes"]), str(said["refused"]))
        except FileNotFoundError:
            return Lives()
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s can't be used, ends of the node are counted anew: %s", self._path, error)
            return Lives()

    def _write(self) -> None:
        lives = self._lives
        said = {
            "content": lives.content,
            "unstable": lives.unstable,
            "crashes": lives.crashes,
            "refused": lives.refused,
        }
        record = json.dumps(said).encode().ljust(_RECORD_BYTES)
        if record == self._written:
            return
        try:
            if self._descriptor is None:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
                os.ftruncate(self._descriptor, _RECORD_BYTES)
            os.pwrite(self._descriptor, record, 0)
            self._written = record
        except OSError as error:
            log.warning("%s can't be written: %s", self._path, error)
