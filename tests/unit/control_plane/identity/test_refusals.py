"""Who was refused: counted, gathered, bounded."""

from __future__ import annotations

from control_plane.identity.refusals import KEPT_MAX, NotLetIn, Refusal, Refusals


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_same_refusal_is_one_line_with_its_times() -> None:
    clock = Clock()
    book = Refusals(wall=clock)
    refused = NotLetIn(Refusal.NODE_TOO_OLD, "upgrade the node")
    for _ in range(3):
        book.note(refused, "a hello", node_id="n1", address="10.0.0.1", hostname="edge", software="0.0.9")
        clock.now += 1
    book.note(NotLetIn(Refusal.EXPIRED, "over"), "a hello", node_id="n1", address="10.0.0.1")
    newest, oldest = book.newest_first()
    assert (newest.refusal, newest.times) == (Refusal.EXPIRED, 1)
    assert oldest.to_json() == {
        "node_id": "n1",
        "address": "10.0.0.1",
        "hostname": "edge",
        "software": "0.0.9",
        "reason": "node_too_old",
        "message": "upgrade the node",
        "times": 3,
        "first_at": 100.0,
        "last_at": 102.0,
    }
    book.forget("n1")
    assert book.newest_first() == ()
    assert book.counts[Refusal.NODE_TOO_OLD] == 3


def test_made_up_ids_fill_no_memory() -> None:
    book = Refusals()
    for number in range(2 * KEPT_MAX):
        book.note(NotLetIn(Refusal.UNKNOWN_TOKEN, "no"), "an enrolment", node_id=f"n{number}", hostname="x" * 10_000)
    kept = book.newest_first()
    assert len(kept) == KEPT_MAX
    assert kept[0].node_id == f"n{2 * KEPT_MAX - 1}"
    assert max(len(each.hostname) for each in kept) <= 256
