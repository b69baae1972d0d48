"""What every store promises; `sqlite.py` and `postgres.py` keep it.

A store runs units of work, plain functions over a `Transaction`. All of one unit happens or none of it, and a unit
that changed anything takes the next version as its very last statement, under the head row's lock, so that the
order of versions is the order of commits. The future of a write resolves after the commit is on disk.

A unit of work may be run again from its start (after a race with another control plane), so it must have no effects
but those on its transaction. It must never wait for anything: all other writes wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from control_plane.entities.types import EntityBody

T = TypeVar("T")


class StoreError(Exception):
    """The store cannot do what was asked, through no fault of the request. Nothing of the unit of work happened.

    `retry_after_s` is when asking again makes sense, in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreBusy(StoreError):
    """More work is waiting than the store lets wait."""


class StoreUnavailable(StoreError):
    """The database cannot be read or written now: disk full, read-only, locked by someone else, closed. It is tried
    again with the next unit of work."""


class StoreUnusable(Exception):
    """The database cannot be opened by this version of the software, and waiting will not help. The text says why and
    what to do."""


class Operation(StrEnum):
    """What a change did to an entity."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One entity's change inside a version; `before` is None on create, `after` on delete."""

    operation: Operation
    collection: str
    id: str
    before: EntityBody | None
    after: EntityBody | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for a write, from where and why; kept with its version."""

    author: str = ""  # empty = anonymous
    source: str = "admin-api"  # admin-api, sync, apply, cli ...
    address: str = ""  # the client's socket address
    reason: str = ""
    action: str = ""  # the method and the path's template; no names or keys, which may be secrets
    request_key: str = ""  # the Idempotency-Key whose answer the unit of work keeps; empty = none


@dataclass(frozen=True, slots=True)
class Version:
    """One committed write. `changes` is filled where a reader asked for one version."""

    number: int
    committed_at: float  # seconds since the epoch
    origin: Origin
    change_count: int
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Written(Generic[T]):
    """A write's result and the version the store is at after it.

    `changes` is empty, and `version` the head of before, when the unit of work changed nothing.
    """

    result: T
    version: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class TagFilter:
    """Entities that carry all of `tags`, or any of them."""

    tags: tuple[str, ...]
    match_all: bool = True


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node that was seen, as it outlives a restart of the control plane. Times are seconds since the epoch."""

    id: str
    hostname: str
    ip: str
    software: str
    labels: dict[str, str] = field(default_factory=dict)
    config_hash: str = ""  # hex; empty = nothing applied yet
    version: int = 0  # last applied; 0 = none
    last_seen: float = 0.0
    first_seen: float = 0.0
    sync_status: str = "unknown"
    plane: str = ""  # the control plane it is connected to; empty = none
    epoch: str = ""  # hex; of the history that `version` is of
    refused: str = ""  # JSON text: the version that it refused and why; empty = none


@dataclass(frozen=True, slots=True)
class PlaneRecord:
    """A control plane over this database. Times are seconds since the epoch."""

    id: str
    hostname: str
    started_at: float
    seen_at: float


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The answer to a request with an Idempotency-Key, to be given again to the same request."""

    key: str
    fingerprint: str  # keyed digest of method, path and body: another request with the same key is a mistake
    answered_at: float  # seconds since the epoch
    status: int
    body: str  # JSON text without secrets; empty = the answer had no body
    version: int | None = None  # None = the request changed nothing


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that somebody did or was refused, before it has a place in the audit trail.

    Nothing in it is ever a secret, so it names entities by collection, id and name only.
    """

    at: float  # seconds since the epoch
    origin: Origin
    outcome: str  # done or refused
    version: int | None = None  # the version that it made; None = none
    details: EntityBody = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One link of the audit trail. `hash` covers all the rest of it, and `previous` is the hash of the one before."""

    number: int  # 1, 2, 3 ... without gaps
    at: float
    author: str
    source: str
    address: str
    action: str
    outcome: str
    version: int | None
    details: str  # JSON text
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a call of `drop_below` came to."""

    versions: int
    more: bool  # whether there is more to drop


class Records(Protocol):
    """What the store keeps beside the entities as they are: how they became so, for one unit of work."""

    def changes(self) -> Sequence[Change]:
        """What this unit of work has changed so far."""

    def hold_versions(self) -> int:
        """The newest version, which stays the newest until this unit of work ends: others that write wait."""

    def epoch(self) -> bytes:
        """The 16 random bytes that name this history of versions."""

    def lineage(self) -> Mapping[bytes, int]:
        """The earlier epochs that this history goes on from after a restore, each up to which of its versions."""

    def since(self, version: int) -> Iterable[Change]:
        """The changes of all versions above `version`, in the order in which they happened."""

    def up_to(self, version: int, *, above: int) -> Iterable[Change]:
        """The changes of the versions above `above` and not above `version`, in the order in which they happened."""

    def of_entity(self, collection: str, entity_id: str, *, size: int) -> Sequence[tuple[Version, Change]]:
        """The newest changes of one entity, newest first, each with its version."""

    def oldest(self) -> int:
        """The lowest version that is kept; one above the head when there is none."""

    def drop_below(self, version: int, *, changes_max: int) -> Dropped:
        """Forgets versions below `version`, oldest first, and no more than about `changes_max` changes. The newest
        version always stays. A version that has more changes goes over several calls, and is gone from the first."""

    def first_at_or_after(self, committed_at: float) -> int:
        """The lowest version committed at that time or later; one above the head when there is none."""

    def answer(self, key: str) -> KeptAnswer | None:
        """The answer kept for an Idempotency-Key."""

    def keyed_digest(self, text: str) -> str:
        """A digest under a key of this database's: tells equal texts, and nothing of them to who has no keyring."""

    def keep_answer(self, answer: KeptAnswer) -> None:
        """Keeps an answer. Raises StoreBusy when another control plane is keeping one for the same key."""

    def forget_answers(self, *, answered_before: float, count_max: int) -> None:
        """Forgets answers that are older, and the oldest of those beyond `count_max`."""

    def audit(self, *, size: int, above: int = 0) -> Sequence[AuditRecord]:
        """Records of the audit trail by ascending number."""

    def audit_newest(self, *, size: int, below: int | None = None) -> Sequence[AuditRecord]:
        """Records of the audit trail, newest first."""

    def audit_head(self) -> tuple[int, str]:
        """Number and hash of the newest record as the store remembers them beside the records; 0 for none."""

    def append_audit(self, entries: Sequence[AuditEntry]) -> None:
        """Adds records at the end of the trail. Writes that take a version get theirs without this."""


CANARY_STATE = "canary."
"""A canary is kept among the rollouts whose numbers it shares; its states begin so, and no rollout's do."""


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A rollout, or a canary, as it outlives a control plane. `state` and `body` are the coordinator's."""

    number: int
    state: str
    body: EntityBody

    @property
    def is_canary(self) -> bool:
        """Whether it is no rollout itself, but what a row of rollouts is steps of."""
        return self.state.startswith(CANARY_STATE)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who does something for all control planes, until when (seconds since the epoch, by the database's clock).

    `fence` grows whenever it changes hands, and when its holder lets it be over and takes it again.
    """

    holder: str
    fence: int
    expires_at: float


class Identities(Protocol):
    """What the control plane keeps of who may speak to it, for one unit of work: small JSON objects by kind and id.

    No version: they are no configuration, no node gets them, and no rollback brings a revoked one back.
    """

    def get(self, kind: str, identity: str) -> EntityBody | None:
        """The object with this id."""

    def each(self, kind: str) -> Sequence[EntityBody]:
        """All objects of a kind, by id."""

    def put(self, kind: str, identity: str, body: EntityBody, *, secrets: Sequence[str] = ()) -> None:
        """Keeps an object, in the place of the one with its id; the fields in `secrets` are sealed on disk."""

    def add(self, kind: str, identity: str, body: EntityBody, *, secrets: Sequence[str] = ()) -> bool:
        """Keeps an object, as `put`, unless there is one with its id; whether it was kept."""

    def delete(self, kind: str, identity: str) -> bool:
        """Removes an object; False when there was none."""


class Transaction(Protocol):
    """Reads and writes of one unit of work. Synchronous: it runs on the store's own thread.

    Bodies are complete, validated entities as the schema made them (all fields present). Errors are those of
    `control_plane/entities/errors.py`.
    """

    @property
    def records(self) -> Records:
        """History, kept answers and the audit trail, in the same transaction."""

    @property
    def identities(self) -> Identities:
        """Who may speak to this control plane, in the same transaction."""

    def head(self) -> int:
        """The version that this view is based on; 0 for an empty store."""

    def get(self, collection: str, entity_id: str) -> EntityBody | None:
        """The entity with this id."""

    def find(self, collection: str, values: Mapping[str, str]) -> EntityBody | None:
        """The entity with these values of one of its unique keys, e.g. `{"name": "x"}`; foreign parts by id."""

    def page(
        self,
        collection: str,
        *,
        size: int,
        after: str = "",
        tags: TagFilter | None = None,
        parent: tuple[str, str] | None = None,
    ) -> Sequence[EntityBody]:
        """Up to `size` entities by ascending id, behind the id `after`; `parent` = (foreign field, id)."""

    def page_texts(
        self,
        collection: str,
        *,
        size: int,
        after: str = "",
        tags: TagFilter | None = None,
        parent: tuple[str, str] | None = None,
    ) -> Sequence[tuple[str, str]]:
        """The same page as (id, JSON text in ASCII), for answers that show entities just as they are kept."""

    def each(self, collection: str) -> Iterable[EntityBody]:
        """All entities of a collection by ascending id, read in portions: what is not kept costs no memory.

        Only inserts behind the position already reached are sure to show up in an iteration under way.
        """

    def tagged(
        self, *, tag: str | None, size: int, after: tuple[str, str, str] | None
    ) -> Sequence[tuple[str, str, str]]:
        """Rows (entity id, tag, collection) by ascending order, behind `after`."""

    def insert(self, collection: str, body: EntityBody) -> None:
        """Adds an entity. Raises PrimaryKeyViolation, UniqueViolation or ForeignKeyViolation."""

    def insert_all(self, collection: str, bodies: Sequence[EntityBody]) -> None:
        """Adds many entities of one collection at once; raises as `insert`, for whichever of them it notices first."""

    def replace(self, collection: str, body: EntityBody) -> None:
        """Puts `body` in the place of the entity with its id. Raises as `insert`, but for the primary key."""

    def delete(self, collection: str, entity_id: str) -> bool:
        """Removes an entity and what cascades from it; False when there was none. Raises ReferencedByOthers."""

    def next_rollout(self) -> int:
        """The number of the next rollout."""

    def save_rollout(self, record: RolloutRecord) -> None:
        """Adds a rollout, or replaces the one of its number. Takes no version."""

    def rollout(self, number: int) -> RolloutRecord | None:
        """One rollout."""

    def rollouts(self, *, size: int, before: int | None = None) -> Sequence[RolloutRecord]:
        """Rollouts, newest first; `before` = page on below that number."""

    def rollouts_in(self, states: Sequence[str]) -> Sequence[RolloutRecord]:
        """Rollouts in any of these states, oldest first."""

    def hold(self, rollout: int, keys: Sequence[tuple[str, str]]) -> None:
        """Lets a rollout hold entities, (collection, id), none of which another one holds."""

    def release(self, rollout: int) -> None:
        """Lets go of all that a rollout holds."""

    def holders(self, keys: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        """Which rollout holds which of these entities."""

    def act_for(self, rollout: int) -> None:
        """Lets this unit of work change what that rollout holds; `holders` does not name it any more."""

    def lease(self, name: str) -> Lease | None:
        """Who has a lease, or had it last."""

    def take_lease(self, name: str, holder: str, *, for_s: float, alone: bool = False) -> Lease | None:
        """Renews a lease, or takes it with the next fence when it is over; None when another holder has it.

        Time is the database's. `alone` = nobody else uses the store: over for all others, never for the holder.
        """

    def drop_lease(self, name: str, holder: str) -> None:
        """Lets a lease be over if the holder has it."""


class Store(Protocol):
    """Versioned entities on disk."""

    shared: bool
    """Whether several control planes may be over it."""

    async def write(self, work: Callable[[Transaction], T], origin: Origin) -> Written[T]:
        """Runs `work` as one transaction and one version. Whatever it raises rolls all of it back and is raised.

        Raises StoreBusy or StoreUnavailable when the store cannot take it.
        """

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Runs `work` over a consistent, read-only view, beside writes and other reads. Raises as `write`."""

    async def epoch(self) -> bytes:
        """The 16 random bytes that name this history of versions."""

    async def lineage(self) -> Mapping[bytes, int]:
        """The earlier epochs that this history goes on from after a restore, each up to which of its versions."""

    async def head(self) -> int:
        """The newest version; 0 for an empty store."""

    async def version(self, number: int) -> Version | None:
        """One version with its changes."""

    async def versions(self, *, size: int, before: int | None = None) -> Sequence[Version]:
        """Versions, newest first, without their changes; `before` = page on below that number."""

    async def changes_since(self, version: int) -> Sequence[Version]:
        """All versions above `version` in commit order, with their changes."""

    def at_hand(self, version: int) -> Sequence[Version] | None:
        """What `changes_since` would return, without a look at the database; None = it takes one.

        The bodies in it are the ones that were written, so nobody may alter them.
        """

    async def save_nodes(self, records: Sequence[NodeRecord]) -> None:
        """Keeps these nodes' records; of two of one id the one seen last. No version: they are no configuration."""

    async def nodes(self) -> Sequence[NodeRecord]:
        """All nodes ever saved, by id."""

    async def forget_nodes(self, *, last_seen_before: float) -> None:
        """Removes the records of nodes that were last seen before that time."""

    async def save_plane(self, record: PlaneRecord, *, others_seen_before: float) -> Sequence[PlaneRecord]:
        """Says that a control plane lives, and returns all that do; forgets those last seen before that time."""

    def tell_planes(self, text: str) -> None:
        """Tells the other control planes over this database something (up to 7,000 bytes) that need not be kept: who
        is not connected just then never hears of it."""

    def hear_planes(self, hearer: Callable[[str], None]) -> Callable[[], None]:
        """Calls `hearer(text)` on the event loop for what any control plane tells, this one too; returns how to stop
        that."""

    async def until_put_back(self) -> None:
        """Returns when the database turns out to hold another history than the one that was opened: it was restored
        beneath this process, which knows nothing of use any longer. Reads and writes are refused from then on."""

    def subscribe(self, listener: Callable[[int], None]) -> Callable[[], None]:
        """Calls `listener(version)` on the event loop after each commit, in order; returns how to stop that."""

    async def close(self) -> None:
        """Finishes what is queued and closes the files."""
