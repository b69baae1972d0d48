"""The digest of a node's health table, which both planes must compute alike.

A node reports transitions as they happen and puts the digest of its whole table into every beat. The control plane
keeps the digest of what it was told; when the two differ (a lost report, a restart on either side) it asks for all of
it. So a table is one sum over its targets, and a change costs the two targets' rows, not the table:

    digest(table) = sum of row_digest(target) over all targets, modulo 2^32; never 0 unless the table is empty

A row's digest is its CRC-32 after one mixing step. Without that step two targets that trade places (one falls ill, the
other recovers) would often leave the sum as it was, because CRC-32 is linear: equal changes cancel out.

What counts: ids, the DNS error, the record type, and per address ip, port, weight, state and since. An address's reason
does not: it is a word for people, and changes only together with `since`. Texts are clipped here by the same rule the
control plane clips them by when it receives them (`clipped`), so that an odd text cannot make the two differ forever.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

TEXT_MAX = 255
"""Characters kept of an error, a reason or any other text of a report."""
ADDRESSES_MAX = 1024
"""Addresses of one target that are reported and count; a node leaves out what sorts behind them."""

_WORD = 0xFFFF_FFFF

AddressRow = tuple[str, int, int, int, int]
"""(ip, port, weight, state as the number of the wire's HealthState, since in seconds)"""

Key = TypeVar("Key", bound=Hashable)


def clipped(text: str) -> str:
    """Return the text as both planes keep it: at most `TEXT_MAX` characters, unprintable ones replaced."""
    kept = text[:TEXT_MAX]
    return kept if kept.isprintable() else "".join(c if c.isprintable() else "?" for c in kept)


def row_digest(upstream: str, target: str, *, error: str, record_type: str, addresses: Iterable[AddressRow]) -> int:
    """Return the digest of one target, by whatever order its addresses come in; from 0 to 2^32 - 1."""
    parts = [upstream, target, clipped(error), clipped(record_type)]
    parts += (f"{ip} {port} {weight} {state} {since}" for ip, port, weight, state, since in sorted(addresses))
    return _mixed(zlib.crc32("\0".join(parts).encode()))


class TableDigest(Generic[Key]):
    """The digest of a table that changes row by row. Rows are known by any key, usually (upstream id, target id)."""

    __slots__ = ("_rows", "_sum")

    def __init__(self) -> None:
        self._rows: dict[Key, int] = {}
        self._sum = 0

    @property
    def value(self) -> int:
        """The whole table's digest; 0 exactly when it has no rows."""
        return (self._sum or 1) if self._rows else 0

    def put(self, key: Key, row: int) -> None:
        """Add or replace a row, given its `row_digest`."""
        self._sum = (self._sum - self._rows.get(key, 0) + row) & _WORD
        self._rows[key] = row

    def remove(self, key: Key) -> None:
        """Take a row out; nothing happens where there is none."""
        self._sum = (self._sum - self._rows.pop(key, 0)) & _WORD

    def clear(self) -> None:
        """Forget all rows."""
        self._rows.clear()
        self._sum = 0


def _mixed(word: int) -> int:
    # The finisher of MurmurHash3: a bijection that no linear relation between inputs survives.
    word = (word ^ (word >> 16)) * 0x85EBCA6B & _WORD
    word = (word ^ (word >> 13)) * 0xC2B2AE35 & _WORD
    return word ^ (word >> 16)
