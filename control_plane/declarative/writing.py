"""Carries a plan out: the three verbs of the Admin API's `/config/...` over one transaction.

The caller runs `sync` and `apply` as one unit of work of the store, so a file is one version or nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from control_plane.declarative.changes import EntityChange, Summary
from control_plane.declarative.document import Document, effective_tags
from control_plane.declarative.plan import Mode, Plan, make_plan
from control_plane.declarative.problems import FileRefused, Problem
from control_plane.entities.errors import EntityError
from control_plane.store import editor
from control_plane.store.contract import Operation, Transaction


def sync(tx: Transaction, document: Document, *, select_tags: Sequence[str] = (), now: float) -> Summary:
    """Makes the store equal to the file, among the entities that carry all of the tags.

    What the file does not name is deleted; what it names is replaced as a whole, so a property that it leaves out
    goes back to its default. `now` in seconds since the epoch. Raises `FileRefused`.
    """
    return _carry_out(tx, document, mode=Mode.SYNC, select_tags=select_tags, now=now)


def apply(tx: Transaction, document: Document, *, select_tags: Sequence[str] = (), now: float) -> Summary:
    """Puts the properties given over what is there and creates what is not; deletes nothing. Raises `FileRefused`."""
    return _carry_out(tx, document, mode=Mode.APPLY, select_tags=select_tags, now=now)


def diff(
    tx: Transaction, document: Document, *, mode: Mode = Mode.SYNC, select_tags: Sequence[str] = (), now: float
) -> Summary:
    """What `sync` (or `apply`, by `mode`) would do. Only reads, so a read-only transaction is enough.

    Raises `FileRefused` for a file that `mode` would refuse.
    """
    tags = effective_tags(document, select_tags)
    plan = make_plan(tx, document, mode=mode, tags=tags, now=now)
    return Summary(changes=plan.changes, unchanged=plan.unchanged)


def _carry_out(tx: Transaction, document: Document, *, mode: Mode, select_tags: Sequence[str], now: float) -> Summary:
    tags = effective_tags(document, select_tags)
    plan = make_plan(tx, document, mode=mode, tags=tags, now=now)
    for collection, body in plan.parked:
        tx.replace(collection, body)
    for run in _runs(plan.changes):
        if len(run) > 1:
            try:
                tx.insert_all(run[0].collection, [change.after for change in run if change.after is not None])
            except EntityError as error:
                raise _refused(plan, _culprit(run, error), error) from error
            continue
        try:
            editor.carry_out(tx, run[0])
        except EntityError as error:
            raise _refused(plan, run[0], error) from error
    return Summary(changes=plan.changes, unchanged=plan.unchanged)


def _runs(changes: Sequence[EntityChange]) -> Iterator[Sequence[EntityChange]]:
    """Creations of one collection that follow each other go together; everything else goes alone."""
    run: list[EntityChange] = []
    for change in changes:
        creates = change.operation is Operation.CREATE
        if run and not (creates and run[0].operation is Operation.CREATE and change.collection == run[0].collection):
            yield run
            run = []
        run.append(change)
        if not creates:
            yield run
            run = []
    if run:
        yield run


def _culprit(run: Sequence[EntityChange], error: EntityError) -> EntityChange:
    """Which of many the store refused, by the id or the values that it names."""
    named = error.fields.items() if isinstance(error.fields, dict) else ()
    for change in run:
        after = change.after or {}
        if named and all(after.get(name) == value or change.id == value for name, value in named):
            return change
    return run[0]


def _refused(plan: Plan, change: EntityChange, error: EntityError) -> FileRefused:
    """The store's word against a change that the plan thought possible, with the place in the file where known."""
    entity = plan.places.get((change.collection, change.id))
    if entity is not None:
        return FileRefused(list(entity.problems_of(error)))
    return FileRefused(
        [
            Problem(
                message=error.message or error.name,
                remedy="keep it in the file, or remove what depends on it first",
                entity_type=change.entity_type,
                entity_name=change.name or change.id,
            )
        ]
    )
