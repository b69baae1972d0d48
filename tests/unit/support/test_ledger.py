"""The ledger must be able to fail: each promise it checks is broken here once, on made-up records."""

from __future__ import annotations

from tests.support.ledger import Ledger, Switch, settle
from tests.support.load import Destination, OpenLoop, Record


def _record(request_id: int, *, sent: float, answered: float, instance: str, node: int = 0) -> Record:
    return Record(
        id=request_id,
        node=node,
        due=sent,
        sent=sent,
        answered=answered,
        status=200,
        answers=1,
        colour=instance.split("-", maxsplit=1)[0],
        instance=instance,
    )


def _settle(records: list[Record], *switches: Switch, duplicates: int = 0, check_weights: bool = False) -> Ledger:
    load = OpenLoop([Destination("127.0.0.1", 1)], rate=1, host="test")
    load.records = records
    return settle(load, switches, revolutions=1, duplicates=duplicates, check_weights=check_weights)


def _switch(to: str, asked: float, reported: float) -> Switch:
    return Switch(to, version=2, asked=asked, answered=reported, reported={0: reported})


def test_a_clean_run_has_no_failures() -> None:
    ledger = _settle(
        [
            _record(0, sent=1.0, answered=1.1, instance="blue-1"),
            _record(1, sent=3.0, answered=3.1, instance="green-1"),
        ],
        _switch("green", asked=2.0, reported=2.5),
    )
    assert ledger.failures == []
    assert ledger.answered_once == 2
    assert ledger.switches[0].first_new_ms == {0: 1100.0}


def test_an_unanswered_request_is_lost() -> None:
    lost = Record(id=0, node=0, due=1.0, sent=1.0, problem="connection lost")
    assert _settle([lost]).lost == [lost]
    assert "1 requests lost" in _settle([lost]).failures[0]


def test_an_error_answer_is_lost() -> None:
    refused = Record(id=0, node=0, due=1.0, sent=1.0, answered=1.1, status=502, answers=1, problem="status 502")
    ledger = _settle([refused])
    assert ledger.lost == [refused]
    assert ledger.by_status[502] == 1


def test_an_id_that_an_upstream_saw_twice_is_doubled() -> None:
    assert "1 requests doubled" in _settle([], duplicates=1).failures[0]


def test_the_old_side_after_the_report_is_a_violation() -> None:
    late = _record(0, sent=2.6, answered=2.7, instance="blue-1")
    ledger = _settle([late], _switch("green", asked=2.0, reported=2.5))
    assert [record for record, _ in ledger.violations] == [late]
    assert ledger.failures


def test_the_old_side_is_allowed_to_requests_begun_before_the_report() -> None:
    begun = _record(0, sent=2.4, answered=2.9, instance="blue-1")
    ledger = _settle([begun], _switch("green", asked=2.0, reported=2.5))
    assert ledger.violations == []
    assert ledger.switches[0].last_old_ms == {0: (2.9 - 2.0) * 1000}


def test_the_next_switch_may_answer_a_request_begun_under_the_one_before() -> None:
    between = _record(0, sent=3.9, answered=4.2, instance="blue-1")
    ledger = _settle([between], _switch("green", asked=2.0, reported=2.5), _switch("blue", asked=4.0, reported=4.5))
    assert ledger.violations == []


def test_counts_off_the_weights_are_named() -> None:
    records = [_record(number, sent=1.0, answered=1.1, instance="blue-1") for number in range(30)]
    errors = _settle(records, check_weights=True).failures
    assert errors
    assert errors[0].startswith("blue: blue-1 got 30 requests, its weight says 20")
