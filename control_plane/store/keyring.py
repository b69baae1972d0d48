"""The keys that secrets are sealed with: read from a file or a variable, made when there are none yet.

One key a line, `id:base64` of 32 bytes, the first one active: it seals, the others only open what was sealed before.
Empty lines and lines that begin with `#` say nothing. In a variable, commas may stand for line ends.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.store.contract import StoreUnusable

KEY_BYTES = 32
KEYS_MAX = 64
_FILE_BYTES_MAX = 64 * 1024
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_FORM = "write one key a line, as `pointsman db new-key` makes them"


@dataclass(frozen=True, slots=True)
class Keyring:
    """Keys by id; the first is active. `source` tells operators where they came from. Has no keys in its repr."""

    keys: Mapping[str, bytes] = field(repr=False)
    source: str

    @property
    def active(self) -> str:
        """The id of the key that seals."""
        return next(iter(self.keys))


def parse(text: str, *, source: str) -> Keyring:
    """Read the lines of a keyring. Raises StoreUnusable, without showing a key."""
    keys: dict[str, bytes] = {}
    lines = [line.strip() for line in text.replace(",", "\n").splitlines()]
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        name, _, value = line.partition(":")
        try:
            key = base64.b64decode(value.strip(), validate=True)
        except binascii.Error:
            key = b""
        if not _ID.fullmatch(name):
            raise StoreUnusable(f"{source}, line {number}: a key's id is up to 64 of A-Z a-z 0-9 . -; {_FORM}")
        if len(key) != KEY_BYTES:
            raise StoreUnusable(
                f"{source}, line {number}: the key '{name}' is not {KEY_BYTES} bytes in base64; {_FORM}"
            )
        if name in keys:
            raise StoreUnusable(
                f"{source}, line {number}: the key '{name}' is there twice; each needs an id of its own"
            )
        keys[name] = key
    if not keys:
        raise StoreUnusable(f"{source} has no key; {_FORM}")
    if len(keys) > KEYS_MAX:
        raise StoreUnusable(f"{source} has more than {KEYS_MAX} keys; take out those that `db status` does not name")
    return Keyring(keys, source)


def read_file(path: Path) -> Keyring:
    """Read a keyring file. Raises StoreUnusable, also for one that is open to other users."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o037:
                raise StoreUnusable(f"the keyring {path} is open to other users; chmod 600 it")
            raw = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise StoreUnusable(f"the keyring {path} cannot be read: {error.strerror}; correct keyring_file") from error
    if len(raw) > _FILE_BYTES_MAX:
        raise StoreUnusable(f"the keyring {path} is larger than {_FILE_BYTES_MAX} bytes; is it the right file?")
    return parse(raw.decode(errors="replace"), source=f"the keyring {path}")


def new_line() -> str:
    """Return a line with a new key."""
    return f"key-{secrets.token_hex(4)}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def add_key(path: Path, *, active: bool) -> str:
    """Put a new key into a keyring file, which is made when absent; return the key's id.

    `active` = as its first line. The file is on disk, whole, before anything can be sealed with the key. Raises
    StoreUnusable.
    """
    line = new_line()
    try:
        old = path.read_text() if path.exists() else ""
        if old:
            read_file(path)
            old = old if old.endswith("\n") else old + "\n"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{line}\n{old}" if active else f"{old}{line}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreUnusable(f"the keyring {path} cannot be written: {error.strerror}") from error
    return line.partition(":")[0]
