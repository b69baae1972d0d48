"""Lets operators in: which token a call bears, what it may do, and how often.

Records are read from the store at most once a second, so a revocation by another control plane over the same database
takes effect within that time, and one by this control plane at once. Wrong tokens are counted by address: guessing is
hopeless at 256 bits, but an attempt should be slow, seen and in the audit trail all the same.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from control_plane.entities.types import EntityBody
from control_plane.identity import tokens
from control_plane.identity.rates import Rate
from control_plane.identity.roles import READS, Role
from control_plane.identity.tokens import TokenRecord
from control_plane.store.contract import AuditEntry, Origin, Store, StoreError, Transaction

log = logging.getLogger(__name__)

KIND = "operator-token"
"""How the store calls what is kept here."""

FRESH_S = 1.0
USE_NOTED_EVERY_S = 60.0
TOKENS_MAX = 10_000
FAILURES_PER_MINUTE = 5


class Denied(Exception):
    """A call that is not let in. `status` is 401, 403 or 429."""

    def __init__(self, status: int, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls."""

    name: str  # of the token; empty = nobody had to say
    role: Role
    token_id: str = ""  # empty = let in without a token

    @property
    def caller(self) -> str:
        """What its calls are counted by; empty = not counted."""
        return self.token_id


LOCAL = Principal("", Role.ADMIN)
"""Whoever can reach a control plane that asks for no token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say. Rates of 0 are no limit."""

    required: bool = False
    """Whether every call must bear a token."""
    reads_per_s: float = 500.0
    writes_per_s: float = 50.0
    burst_s: float = 10.0
    """How many seconds' worth of calls may come at once."""


class Operators:
    """The tokens of one control plane."""

    def __init__(
        self,
        store: Store,
        rules: Rules | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._rules = rules or Rules()
        self._clock = clock
        self._wall = wall
        self._records: Mapping[str, TokenRecord] = {}
        self._read_at: float | None = None
        self._failures = Rate(FAILURES_PER_MINUTE / 60.0, burst=FAILURES_PER_MINUTE, clock=clock)
        burst_s = self._rules.burst_s
        self._rates = {
            reading: Rate(per_s, burst=max(1.0, per_s * burst_s), clock=clock)
            for reading, per_s in ((True, self._rules.reads_per_s), (False, self._rules.writes_per_s))
            if per_s > 0
        }

    @property
    def required(self) -> bool:
        """Whether every call must bear a token."""
        return self._rules.required

    async def admit(self, token: str | None, address: str) -> Principal:
        """Who bears `token`. Raises Denied (401, 429), and StoreError when tokens can't be read."""
        if token is None:
            if self._rules.required:
                raise Denied(
                    401, "this Admin API wants a token; send it as 'Authorization: Bearer ...' (pointsman --token)"
                )
            return LOCAL
        wait_s = self._failures.wait_s(address)
        if wait_s > 0:
            raise Denied(429, "too many wrong tokens from this address; wait, then try again", retry_after_s=wait_s)
        now = self._wall()
        token_id = tokens.id_of(token)
        record = (await self._fresh()).get(token_id) if token_id is not None else None
        if record is not None and tokens.matches(record, token):
            if record.good(now):
                await self._note_use(record, now)
                return Principal(record.name, record.role, record.id)
            why = "the token was revoked" if record.revoked_at is not None else "the token has expired"
        else:
            why = "the token is not known"
        self._failures.take(address)
        log.warning("a token was refused: %s", why, extra={"address": address, "token": token_id or "not ours"})
        raise Denied(401, f"{why}; ask an admin for one: pointsman token create")

    def limit(self, principal: Principal, method: str) -> None:
        """Counts a call of somebody known by a token. Raises Denied (429)."""
        rate = self._rates.get(method in READS)
        if rate is None or not principal.caller:
            return
        wait_s = rate.take(principal.caller)
        if wait_s > 0:
            kind, name = ("reads", "admin_reads_per_s") if method in READS else ("writes", "admin_writes_per_s")
            raise Denied(
                429,
                f"too many {kind} by this token; wait, send files or batches instead, or raise the setting {name}",
                retry_after_s=wait_s,
            )

    async def records(self) -> Sequence[TokenRecord]:
        """All tokens ever made, by the time of their making."""
        return sorted((await self._fresh(newest=True)).values(), key=lambda record: (record.created_at, record.id))

    async def create(self, *, name: str, role: Role, ttl_s: float | None, origin: Origin) -> tuple[str, TokenRecord]:
        """Makes a token. Raises ValueError when a good one has that name, or there are too many."""
        now = self._wall()
        text, record = tokens.make(name=name, role=role, now=now, created_by=origin.author, ttl_s=ttl_s)

        def work(tx: Transaction) -> None:
            others = _all(tx)
            if any(other.name == name and other.good(now) for other in others.values()):
                raise ValueError(f"there is a token named '{name}' already; revoke it, or choose another name")
            if len(others) >= TOKENS_MAX:
                raise ValueError(f"there are {TOKENS_MAX} tokens already")
            tx.identities.put(KIND, record.id, record.to_json())
            tx.records.append_audit([_entry(record, now, origin)])

        await self._store.write(work, origin)
        self._read_at = None
        return text, record

    async def revoke(self, wanted: str, *, origin: Origin) -> TokenRecord | None:
        """Ends a token, by its id or the name of a good one; None when there is none. Again is no error."""
        now = self._wall()

        def work(tx: Transaction) -> TokenRecord | None:
            known = _all(tx)
            record = known.get(wanted) or next(
                (other for other in known.values() if other.name == wanted and other.good(now)), None
            )
            if record is None or record.revoked_at is not None:
                return record
            ended = dataclasses.replace(record, revoked_at=now)
            tx.identities.put(KIND, ended.id, ended.to_json())
            tx.records.append_audit([_entry(ended, now, origin)])
            return ended

        written = await self._store.write(work, origin)
        self._read_at = None
        return written.result

    async def _fresh(self, *, newest: bool = False) -> Mapping[str, TokenRecord]:
        now = self._clock()
        if newest or self._read_at is None or now - self._read_at >= FRESH_S:
            self._records = await self._store.read(_all)
            self._read_at = now
        return self._records

    async def _note_use(self, record: TokenRecord, now: float) -> None:
        """Keeps when a token was used last, to within a minute: one write a call would be absurd."""
        if record.last_used_at is not None and now - record.last_used_at < USE_NOTED_EVERY_S:
            return
        used = dataclasses.replace(record, last_used_at=now)
        self._records = {**self._records, record.id: used}

        def work(tx: Transaction) -> None:
            newest = tx.identities.get(KIND, record.id)
            if newest is not None:
                tx.identities.put(KIND, record.id, {**newest, "last_used_at": now})

        try:
            await self._store.write(work, Origin(source="identity"))
        except StoreError as error:
            log.warning("the use of a token is not noted: %s", error, extra={"token": record.id})


def _entry(record: TokenRecord, now: float, origin: Origin) -> AuditEntry:
    about: EntityBody = {"token": record.id, "name": record.name, "role": record.role.value}
    return AuditEntry(now, origin, "done", None, about)


def _all(tx: Transaction) -> Mapping[str, TokenRecord]:
    return {str(body["id"]): TokenRecord.from_json(body) for body in tx.identities.each(KIND)}
