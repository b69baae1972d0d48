"""Sealing what a node keeps on its own disk: nobody without the node's key can read it, or change a bit unnoticed.

The key lies beside the files, so it protects copies of them (a backup of one file, a disk image's leftovers), not a
machine that was taken over. A file of another node does not open.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_FILE = "key"
_KEY_BYTES = 32
_NONCE_BYTES = 12
OVERHEAD_BYTES = _NONCE_BYTES + 16
"""What sealing adds."""


class Broken(ValueError):
    """The bytes were changed, cut, or sealed with another key."""


class Seal:
    """One folder's key, made at first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cipher: AESGCM | None = None

    def seal(self, data: bytes, *, bound_to: bytes) -> bytes:
        """`data` sealed; it opens only with the same `bound_to`. Raises OSError."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._key(make=True).encrypt(nonce, data, bound_to)

    def open(self, sealed: bytes, *, bound_to: bytes) -> bytes:
        """What was sealed. Raises Broken, and OSError."""
        if len(sealed) < OVERHEAD_BYTES:
            raise Broken("it is cut")
        try:
            return self._key(make=False).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
        except InvalidTag as error:
            raise Broken("its checksum is wrong, or another node wrote it") from error

    def _key(self, *, make: bool) -> AESGCM:
        if self._cipher is None:
            path = self._folder / KEY_FILE
            try:
                key = path.read_bytes()
            except FileNotFoundError:
                key = b""
            if len(key) != _KEY_BYTES:
                if not make:
                    raise Broken(f"the key, {path.name}, is not there or not whole")
                key = self._make(path)
            self._cipher = AESGCM(key)
        return self._cipher

    def _make(self, path: Path) -> bytes:
        """A key is on disk, whole, before anything is sealed with it."""
        key = os.urandom(_KEY_BYTES)
        fresh = path.with_suffix(".tmp")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, key)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(fresh, path)
        return key
