"""How long an answer is good for: the cache rules, without I/O and with the clock as an argument.

    nothing --stored--> fresh --ttl--> stale --stale_ttl--> nothing
                          ^              |
                          `--refreshed---'       (a failed refresh leaves the stale answer in place)

`node/names.py` asks what is due and stores what came of it. Times are seconds of any monotonic clock. The rules are
those of Kong's newer DNS client, with two departures: an answer with TTL 0 is never served stale unless the nameserver
fails, and a TTL is bounded on both sides so that neither a zero can flood the nameserver nor a year can hide a change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from data_plane.resolve.answers import Answer, Record

STALE_RETRY_S = 60.0
"""While stale data is served and the nameserver fails, it is asked about this often."""


@dataclass(frozen=True, slots=True)
class CacheRules:
    """`valid_ttl_s` replaces the records' own TTL when set; the bounds apply to either. All in seconds."""

    valid_ttl_s: float | None = None
    ttl_min_s: float = 1.0
    ttl_max_s: float = 3600.0
    stale_ttl_s: float = 3600.0
    error_ttl_s: float = 1.0
    error_ttl_max_s: float = 30.0
    names_max: int = 100_000

    def __post_init__(self) -> None:
        if not 0 < self.ttl_min_s <= self.ttl_max_s:
            raise ValueError("the smallest TTL must be above 0 and not above the largest")
        if not 0 < self.error_ttl_s <= self.error_ttl_max_s or self.stale_ttl_s < 0:
            raise ValueError("error TTLs must be above 0 and the stale TTL must not be negative")


@dataclass(frozen=True, slots=True)
class Found:
    """A lookup that ended in addresses; `ttl_s` is the smallest of the set, None = these never expire (hosts file)."""

    records: tuple[Record, ...]
    ttl_s: float | None


@dataclass(frozen=True, slots=True)
class NotFound:
    """A lookup that ended in none; `error` in the words the proxy will show."""

    error: str


Outcome = Found | NotFound


@dataclass(slots=True)
class _Entry:
    answer: Answer
    stale_until: float
    due_at: float
    failures: int = 0
    momentary: bool = False  # the last answer had TTL 0


class Cache:
    """Answers by name with their times; bounded, because the names come from configuration of any size."""

    def __init__(self, rules: CacheRules) -> None:
        self._rules = rules
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def answer(self, name: str) -> Answer | None:
        """What is known about `name`, fresh or stale, or None when nothing was ever stored."""
        entry = self._entries.get(name)
        return entry.answer if entry is not None else None

    def due_at(self, name: str) -> float:
        """When `name` should be asked for again; minus infinity when it was never asked for."""
        entry = self._entries.get(name)
        return entry.due_at if entry is not None else float("-inf")

    def store(self, name: str, outcome: Outcome, now: float, *, jitter: float = 0.0) -> bool:
        """Keep what a lookup gave; True when the answer differs from the one before.

        `jitter` in 0..1 spreads the next lookups of names that were resolved together: up to a tenth of the TTL later.
        """
        entry = self._entries.get(name)
        if isinstance(outcome, Found):
            return self._store_found(name, outcome, entry, now, jitter)
        return self._store_error(name, outcome.error, entry, now, jitter)

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget all other names."""
        kept = set(names)
        for name in [name for name in self._entries if name not in kept]:
            del self._entries[name]

    def _store_found(self, name: str, found: Found, entry: _Entry | None, now: float, jitter: float) -> bool:
        rules = self._rules
        momentary = found.ttl_s == 0 and rules.valid_ttl_s is None
        # One TTL of 0 among others is an accident, as in Kong; the first one, or two in a row, are the name's nature.
        nature = momentary and (entry is None or not entry.answer.records or entry.momentary or entry.answer.unsteady)
        answer = Answer(name, found.records, unsteady=nature)
        if found.ttl_s is None:
            stale = due = float("inf")
        else:
            ttl = found.ttl_s if rules.valid_ttl_s is None else rules.valid_ttl_s
            bounded = min(max(ttl, rules.ttl_min_s), rules.ttl_max_s)
            fresh = now + bounded
            stale = fresh + rules.stale_ttl_s
            due = fresh + bounded * 0.1 * jitter
        if entry is None:
            if len(self._entries) >= self._rules.names_max:
                raise CacheFull(f"more than {self._rules.names_max} names are in use")
            self._entries[name] = _Entry(answer, stale, due, momentary=momentary)
            return True
        changed = entry.answer != answer
        if changed:
            entry.answer = answer
        entry.stale_until, entry.due_at, entry.failures, entry.momentary = stale, due, 0, momentary
        return changed

    def _store_error(self, name: str, error: str, entry: _Entry | None, now: float, jitter: float) -> bool:
        rules = self._rules
        answer = Answer(name, (), error)
        if entry is None:
            if len(self._entries) >= rules.names_max:
                raise CacheFull(f"more than {rules.names_max} names are in use")
            again = now + rules.error_ttl_s * (1 + 0.1 * jitter)
            self._entries[name] = _Entry(answer, now, again, failures=1)
            return True
        if entry.answer.records and now < entry.stale_until:
            # Stale addresses beat no addresses. Asked again within the minute, sooner at first: most outages are short.
            wait = min(rules.error_ttl_s * 2**entry.failures, STALE_RETRY_S)
            entry.failures = min(entry.failures + 1, 16)
            entry.due_at = min(now + wait * (1 + 0.1 * jitter), max(entry.stale_until, now + rules.error_ttl_s))
            return False
        # A name that has never worked is asked for ever less often, but never less than each `error_ttl_max_s`.
        wait = min(rules.error_ttl_s * 2 ** min(entry.failures, 16), rules.error_ttl_max_s)
        changed = entry.answer != answer
        entry.answer = answer
        entry.failures = min(entry.failures + 1, 16)
        entry.stale_until = now
        entry.due_at = now + wait * (1 + 0.1 * jitter)
        return changed


class CacheFull(Exception):
    """The configuration names more hosts than the setting allows."""
