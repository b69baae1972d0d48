"""How entities become the text that is stored, and come back: everything as JSON, secrets sealed in it.

    {"id": "0b1c...", "key": {"$sealed": "key-5f0c1e2a:n2U8..."}, "ttl": null}

A secret's value is encrypted and authenticated (AES-256-GCM) with a fresh nonce each time, and bound to its place: a
sealed value that was put into another entity or field does not open. Which fields are secrets, the schema says. A
secret is always an object here and never one elsewhere, so no text that a client sends can be taken for a sealed one.

Unique keys that hold a secret are kept as a keyed hash (HMAC-SHA256), so that equal values are found and refused
without being readable. The hash's key is random, made once for a database, and kept there sealed: it stays when the
keys of the ring change.

Pure but for the random nonces; `seals.py` knows the tables.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import StoreUnavailable
from control_plane.store.keyring import Keyring

SEALED = "$sealed"
HASHED = "hmac:"
"""How the hash of a unique key begins; in the clear it is a list."""
_NONCE_BYTES = 12
_TAG_BYTES = 16

SECRETS: Mapping[str, tuple[str, ...]] = {
    collection: tuple(schema.secrets) for collection, schema in STORED.items() if schema.secrets
}
"""The secret fields of each collection that has any."""

# ASCII only, so that half of a surrogate pair, which has no UTF-8 form, is kept and refused later in words.
_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

Place = tuple[str, ...]
"""Where a sealed value belongs: it opens nowhere else."""


class NotOpened(StoreUnavailable):
    """A sealed value does not open: its key is not in the ring, or it was altered or moved."""


class Codec:
    """One database's: a keyring, and the key of its hashes."""

    def __init__(self, keyring: Keyring, index_key: bytes) -> None:
        self.active = keyring.active
        self._ciphers = {name: AESGCM(_derived(key, b"pointsman seal 1")) for name, key in keyring.keys.items()}
        self._index_key = index_key
        self._hash_key = _derived(index_key, b"pointsman unique keys 1")
        self._digest_key = _derived(index_key, b"pointsman digests 1")

    def encode(self, collection: str, body: EntityBody) -> str:
        """Return a body as it is stored."""
        secrets = SECRETS.get(collection)
        return _encoder.encode(body if secrets is None else self.sealed((collection, str(body["id"])), body, secrets))

    def decode(self, collection: str, text: str) -> EntityBody:
        """Return a stored body. Raises NotOpened."""
        body: EntityBody = json.loads(text)
        if collection in SECRETS:
            self.open_all((collection, str(body["id"])), body)
        return body

    def key_value(self, collection: str, parts: Sequence[str], values: Sequence[str]) -> str:
        """Return a unique key's values as they stand in the table of unique keys."""
        text = _encoder.encode(list(values))
        if not any(part in SECRETS.get(collection, ()) for part in parts):
            return text
        named = _encoder.encode([collection, ",".join(parts), text])
        return HASHED + base64.b64encode(hmac.digest(self._hash_key, named.encode(), hashlib.sha256)).decode()

    def keyed_digest(self, text: str) -> str:
        """Return a digest that only who has a key of the ring can make of a guess."""
        return hmac.digest(self._digest_key, text.encode(), hashlib.sha256).hex()

    def sealed(self, place: Place, body: EntityBody, secrets: Sequence[str]) -> EntityBody:
        """Return the body with these fields sealed where they have a value."""
        return {
            name: self.seal((*place, name), value) if value is not None and name in secrets else value
            for name, value in body.items()
        }

    def open_all(self, place: Place, body: EntityBody) -> None:
        """Open what is sealed among a body's fields, in the body itself. Raises NotOpened."""
        for name, value in body.items():
            if isinstance(value, dict) and value.keys() == {SEALED}:
                body[name] = self.open((*place, name), value)

    def seal(self, place: Place, value: JsonValue) -> EntityBody:
        """Return the value sealed with the active key."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._ciphers[self.active].encrypt(nonce, _encoder.encode(value).encode(), _bound_to(place))
        return {SEALED: f"{self.active}:{base64.b64encode(sealed).decode()}"}

    def open(self, place: Place, envelope: EntityBody) -> JsonValue:
        """Return what was sealed. Raises NotOpened."""
        name, _, text = str(envelope[SEALED]).partition(":")
        cipher = self._ciphers.get(name)
        where = f"the secret {' '.join(place)}"
        if cipher is None:
            raise NotOpened(
                f"{where} is sealed with the key '{name[:64]}', which is not in this control plane's keyring; add it"
            )
        try:
            sealed = base64.b64decode(text, validate=True)
            if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
                raise InvalidTag
            value: JsonValue = json.loads(
                cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound_to(place))
            )
        except (InvalidTag, binascii.Error):
            raise NotOpened(f"{where} was altered, moved, or sealed with another key called '{name}'") from None
        return value

    def sealed_by(self, envelope: EntityBody) -> str:
        """Return the id of the key that a value is sealed with."""
        return str(envelope[SEALED]).partition(":")[0]

    def wrapped_index_key(self) -> str:
        """Return the key of the hashes, sealed with the active key."""
        return _encoder.encode(self.seal(index_place(self.active), base64.b64encode(self._index_key).decode()))


def unwrap_index_key(keyring: Keyring, name: str, text: str) -> bytes:
    """Return the key of the hashes as one key of the ring sealed it. Raises NotOpened when it is not that key."""
    opened = Codec(keyring, b"").open(index_place(name), json.loads(text))
    return base64.b64decode(str(opened))


def index_place(name: str) -> Place:
    return ("seal", name, "index_key")


def pattern(key_id: str = "") -> str:
    """Return what LIKE finds a value by that is sealed with a key; with any, when none is named."""
    return f'%"{SEALED}":"{key_id}:%' if key_id else f'%"{SEALED}":%'


def _bound_to(place: Place) -> bytes:
    return _encoder.encode(list(place)).encode()


def _derived(key: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(key)
