"""The control plane's side of the conversation, move by move; random histories: tests/property/test_sessions.py."""

from __future__ import annotations

from control_plane.fleet.session import Ahead, Idle, Lineage, Parked, Phase, Rejection, Session, Waiting
from pointsman.snapshots import NOTHING, SnapshotRef, Stage

EPOCH = b"e" * 16


def ref(version: int, *, content: int | None = None, epoch: bytes = EPOCH) -> SnapshotRef:
    return SnapshotRef(epoch, version, (content if content is not None else version).to_bytes(32, "big"))


def rejection(version: int) -> Rejection:
    return Rejection(ref(version), Stage.BUILD, ())


def phase(session: Session) -> Phase:
    return session.phase


def test_a_node_at_the_head_is_offered_nothing() -> None:
    assert Session(running=ref(3), head=ref(3)).phase == Idle()


def test_an_empty_store_offers_nothing_to_a_node_that_serves() -> None:
    assert Session(running=ref(3), head=NOTHING).phase == Idle()


def test_a_node_behind_waits_for_the_head() -> None:
    assert Session(running=ref(2), head=ref(3)).phase == Waiting(ref(3))


def test_a_newer_head_is_offered_at_once_and_once() -> None:
    session = Session(running=ref(2), head=ref(3))
    assert session.head_moved(ref(4))
    assert not session.head_moved(ref(4))
    assert phase(session) == Waiting(ref(4))


def test_an_older_version_applied_meanwhile_is_progress_only() -> None:
    session = Session(running=ref(2), head=ref(4))
    assert not session.applied(ref(3))
    assert phase(session) == Waiting(ref(4))
    assert not session.applied(ref(4))
    assert phase(session) == Idle()


def test_a_rejected_head_is_parked_until_it_moves() -> None:
    session = Session(running=ref(2), head=ref(3))
    assert not session.rejected(rejection(3), running=ref(2))
    assert phase(session) == Parked(rejection(3))
    assert not session.applied(ref(2))
    assert not session.head_moved(ref(3))
    assert session.head_moved(ref(4))


def test_a_rejection_of_what_is_no_longer_the_head_parks_nothing() -> None:
    session = Session(running=ref(2), head=ref(4))
    assert not session.rejected(rejection(3), running=ref(2))
    assert phase(session) == Waiting(ref(4))
    assert session.rejection == rejection(3)
    session.applied(ref(4))
    assert session.rejection is None


def test_what_was_parked_on_an_earlier_stream_stays_parked() -> None:
    assert Session(running=ref(2), head=ref(3), rejection=rejection(3)).phase == Parked(rejection(3))


def test_a_node_ahead_is_left_alone_until_the_head_passes_it() -> None:
    session = Session(running=ref(9), head=ref(3))
    assert phase(session) == Ahead()
    assert not session.head_moved(ref(8))
    assert session.head_moved(ref(9, content=1)), "the same number with other content is another snapshot"


FORMER = b"f" * 16


def test_a_restored_store_is_offered_to_nodes_that_run_no_more_than_its_backup_held() -> None:
    lineage = Lineage({FORMER: 7})
    assert phase(Session(running=ref(7, epoch=FORMER), head=ref(3), lineage=lineage)) == Waiting(ref(3))
    later = Session(running=ref(8, epoch=FORMER), head=ref(3), lineage=lineage)
    assert phase(later) == Ahead()
    assert not later.head_moved(ref(20)), "however far it comes: what version 8 was, it does not know"
    accepted = Lineage({FORMER: 7}, accept_rollback=True)
    assert phase(Session(running=ref(8, epoch=FORMER), head=ref(3), lineage=accepted)) == Waiting(ref(3))


def test_a_node_of_another_history_is_taken_over_only_if_the_operator_said_so() -> None:
    stranger = Session(running=ref(1, epoch=FORMER), head=ref(3))
    assert phase(stranger) == Ahead()
    assert not stranger.head_moved(ref(4))
    rolled_back = Lineage(accept_rollback=True)
    assert phase(Session(running=ref(1, epoch=FORMER), head=ref(3), lineage=rolled_back)) == Ahead()
    accepted = Lineage(accept_empty=True)
    assert phase(Session(running=ref(1, epoch=FORMER), head=ref(3), lineage=accepted)) == Waiting(ref(3))


def test_a_node_that_went_back_by_itself_is_offered_the_head_again() -> None:
    session = Session(running=ref(3), head=ref(3))
    assert session.applied(ref(2))
