"""The recording of a real gateway's traffic against ours: nothing differs but what the accepted list names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.proxy import ACCEPTED, Accepted, Line, Score, read_accepted, replay
from tests.conformance.proxy_compare import Answer, differences, dist_differences, mapped

RECORDING = Path(__file__).parent / "vectors" / "kong-proxy.jsonl"


@pytest.fixture(scope="module")
def score() -> Score:
    return replay(RECORDING)


@pytest.mark.timeout(900)
def test_all_traffic_goes_as_recorded(score: Score) -> None:
    differing = [line for line in score.lines if line.startswith(("step ", "line ", "set-up"))]
    assert differing == []
    assert score.passed == score.total > 600


def test_every_accepted_difference_has_its_reason_and_what_differs() -> None:
    rows = read_accepted(ACCEPTED)
    assert rows
    assert all(row.reason and row.differs for row in rows)


def answer(text: str = "", *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(status, headers, text)


def compare(recorded: Answer, ours: Answer, *, head: bool = False) -> list[str]:
    return differences(recorded, ours, head=head)


def test_what_differs_by_nature_is_equal() -> None:
    recorded = answer(
        '{"message":"x","request_id":"f8f86a98dd8c41cdb5ea6fb8eb2ed4b1"}',
        headers=(("Date", "today"), ("X-Kong-Proxy-Latency", "1"), ("Via", "1.1 kong/3.10.0")),
    )
    ours = answer(
        '{"message":"x","request_id":"08f86a98dd8c41cdb5ea6fb8eb2ed4b2"}',
        headers=(("Via", "1.1 kong/3.11.1"), ("Date", "now"), ("x-kong-proxy-latency", "27")),
    )
    assert compare(recorded, ours) == []


def test_statuses_headers_and_bodies_count() -> None:
    assert compare(answer(), answer(status=500))
    assert compare(answer(headers=(("A", "1"),)), answer())
    assert compare(answer(), answer(headers=(("A", "1"),)))
    assert compare(answer(headers=(("A", "1"), ("A", "1"))), answer(headers=(("A", "1"),)))
    assert compare(answer("a"), answer("b"))
    assert compare(answer(headers=(("X-Kong-Proxy-Latency", "1"),)), answer(headers=(("X-Kong-Proxy-Latency", "x"),)))


def test_a_length_must_be_true() -> None:
    assert compare(answer(), answer(headers=(("Content-Length", "1"),)))
    said = answer(headers=(("Content-Length", "1"),))
    assert compare(said, said, head=True) == []


def test_what_the_upstream_got_counts() -> None:
    recorded = answer('{"requestline":"GET / HTTP/1.1","headers":[["A","1"],["B","2"]],"port":1}')
    assert compare(recorded, answer('{"requestline":"GET / HTTP/1.1","headers":[["b","2"],["a","1"]],"port":1}')) == []
    assert compare(recorded, answer('{"requestline":"GET /x HTTP/1.1","headers":[["b","2"],["a","1"]],"port":1}'))
    assert compare(recorded, answer('{"requestline":"GET / HTTP/1.1","headers":[["b","2"]],"port":1}'))
    assert compare(recorded, answer("not from an upstream"))


def test_counts_are_exact_but_a_hashed_key_may_lead_anywhere() -> None:
    assert dist_differences("round-robin", {"1": 2, "2": 1}, {"2": 1, "1": 2}) == []
    assert dist_differences("round-robin", {"1": 2, "2": 1}, {"1": 1, "2": 2})
    assert dist_differences("consistent-hashing", {"1": 3}, {"2": 3}) == []
    assert dist_differences("consistent-hashing", {"1": 3}, {"2": 2, "1": 1})


def test_ports_are_mapped_where_they_are_numbers_of_their_own() -> None:
    pairs = ((19021, 40000), (40000, 19021))
    assert mapped("127.0.0.1:19021 119021 1.19021 19021", pairs) == "127.0.0.1:40000 119021 1.19021 40000"


def test_an_accepted_row_covers_all_that_differs_or_nothing() -> None:
    line = Line(1, {"kind": "proxy", "group": "g", "step": 7, "path": "/x", "headers": []})
    row = Accepted(reason="r", differs=("^status", "^header a"), group="g")
    assert row.covers(line, ["status 1", "header a: x"])
    assert not row.covers(line, ["status 1", "header b: x"])
    assert not Accepted(reason="r", differs=("",), step=8).covers(line, ["status 1"])
