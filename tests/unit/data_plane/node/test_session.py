"""The node's side of the conversation, move by move; random histories are in tests/property/test_sessions.py."""

from __future__ import annotations

from dataclasses import replace

from data_plane.node.outcomes import Refused
from data_plane.node.session import (
    Adopt,
    Applying,
    ApplyPulled,
    Pulling,
    Session,
    StartPull,
    StopPull,
    TellApplied,
    TellRejected,
)
from data_plane.node.snapshot import Offer
from pointsman.snapshots import NOTHING, Fault, SnapshotRef, Stage

EPOCH = b"e" * 16
NO = Refused(Stage.BUILD, (Fault("BAD_REGEX", message="no"),))


def offer(version: int, *, content: int | None = None, epoch: bytes = EPOCH) -> Offer:
    ref = SnapshotRef(epoch, version, (content if content is not None else version).to_bytes(32, "big"))
    return Offer(ref, 1, 1, bytes(32), 1, 1)


def connected(running: SnapshotRef = NOTHING) -> Session:
    session = Session(running)
    session.connected()
    return session


def test_an_offer_is_pulled_applied_and_reported() -> None:
    session = connected()
    one = offer(1)
    assert session.offered(one) == (StartPull(one),)
    assert isinstance(session.work, Pulling)
    assert session.pulled() == (ApplyPulled(one.ref),)
    assert isinstance(session.work, Applying)
    assert session.applied(0.5) == (TellApplied(one.ref, 0.5),)
    assert session.work is None
    assert session.running == one.ref


def test_what_runs_already_is_only_reported() -> None:
    one = offer(1)
    assert connected(one.ref).offered(one) == (TellApplied(one.ref, 0.0),)


def test_equal_content_is_adopted_without_a_pull() -> None:
    session = connected(offer(1).ref)
    again = offer(2, content=1)
    assert session.offered(again) == (Adopt(again.ref),)
    assert session.applied(0.0) == (TellApplied(again.ref, 0.0),)
    assert session.running == again.ref


def test_only_the_newest_offer_waits_behind_the_work() -> None:
    session = connected()
    session.offered(offer(1))
    assert session.offered(offer(2)) == ()
    assert session.offered(offer(3)) == ()
    session.pulled()
    assert session.offered(offer(4)) == ()
    assert session.applied(0.1) == (TellApplied(offer(1).ref, 0.1), StartPull(offer(4)))


def test_an_offer_of_what_is_in_work_ends_the_waiting_of_an_older_one() -> None:
    session = connected()
    session.offered(offer(1))
    session.offered(offer(2))
    session.offered(offer(1))
    assert session.waiting is None


def test_a_refused_snapshot_is_refused_again_without_a_pull() -> None:
    session = connected(offer(1).ref)
    session.offered(offer(2))
    session.pulled()
    told = TellRejected(offer(2).ref, NO, offer(1).ref)
    assert session.refused(NO) == (told,)
    assert session.offered(offer(2)) == (told,)
    assert session.work is None


def test_a_newer_version_is_tried_after_a_refusal() -> None:
    session = connected()
    session.offered(offer(2))
    session.offered(offer(3, content=2))
    assert session.pull_refused(NO) == (TellRejected(offer(2).ref, NO, NOTHING), StartPull(offer(3, content=2)))


def test_a_pull_that_is_gone_is_no_refusal() -> None:
    session = connected()
    session.offered(offer(1))
    session.offered(offer(2))
    assert session.pull_gone() == (StartPull(offer(2)),)
    session.pull_gone()
    assert session.offered(offer(1)) == (StartPull(offer(1)),)


def test_a_lost_conversation_ends_the_pull_and_forgets_what_waited() -> None:
    session = connected()
    session.offered(offer(1))
    session.offered(offer(2))
    assert session.disconnected() == (StopPull(),)
    assert (session.work, session.waiting) == (None, None)


def test_an_apply_outlives_the_conversation_and_is_not_begun_twice() -> None:
    session = connected()
    session.offered(offer(1))
    session.pulled()
    assert session.disconnected() == ()
    session.connected()
    assert session.offered(offer(1)) == ()
    assert session.applied(0.1) == (TellApplied(offer(1).ref, 0.1),)


def test_what_happens_without_a_conversation_is_told_by_the_next() -> None:
    session = connected(offer(1).ref)
    session.offered(offer(2))
    session.pulled()
    session.disconnected()
    assert session.refused(NO) == ()
    session.connected()
    assert session.offered(offer(2)) == (TellRejected(offer(2).ref, NO, offer(1).ref),)


def test_going_back_within_a_history_is_refused() -> None:
    session = connected(offer(5).ref)
    (told,) = session.offered(offer(4))
    assert isinstance(told, TellRejected)
    assert told.refused.faults[0].code == "OLDER_VERSION"


def test_a_new_history_may_have_lower_numbers() -> None:
    session = connected(offer(5).ref)
    other = offer(1, content=9, epoch=b"f" * 16)
    assert session.offered(other) == (StartPull(other),)


def test_the_same_version_with_other_content_is_pulled() -> None:
    """A control plane that was upgraded may encode entities differently."""
    session = connected(offer(5).ref)
    other = offer(5, content=6)
    assert session.offered(other) == (StartPull(other),)


def test_refusals_are_remembered_within_bounds() -> None:
    session = connected()
    for version in range(1, 40):
        session.offered(offer(version))
        session.pull_refused(NO)
    assert session.offered(offer(39)) == (TellRejected(offer(39).ref, NO, NOTHING),)
    assert session.offered(offer(1)) == (StartPull(offer(1)),)


def test_a_restored_snapshot_is_what_runs() -> None:
    session = Session()
    session.restored(offer(3).ref)
    session.connected()
    assert session.running == offer(3).ref
    assert session.offered(replace(offer(3), pieces=9)) == (TellApplied(offer(3).ref, 0.0),)
