"""The recording of a real gateway's Admin API against ours: nothing differs but what the accepted list names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.admin import ACCEPTED, Accepted, Score, Step, read_accepted, replay, scratch_gateway
from tests.conformance.admin_compare import Answer, Ids, differences

RECORDING = Path(__file__).parent / "vectors" / "kong-admin.jsonl"
GROUPS = (
    "services*", "routes*", "upstreams*", "targets*", "certificates", "snis", "ca_certificates", "client_certificate",
    "consumers", "plugins", "schemas", "cascade", "headers",
)  # fmt: skip

HEADERS = {"x-kong-admin-latency": "1"}
ONE = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
OURS = "33333333-3333-4333-8333-333333333333"


@pytest.fixture(scope="module")
def score() -> Score:
    with scratch_gateway(node=False) as url:
        return replay(RECORDING, url, groups=GROUPS, live=False)


def test_every_step_is_answered_alike(score: Score) -> None:
    differing = [line for line in score.lines if line.startswith("step ")]
    assert differing == []
    assert score.passed == score.total > 400


def test_every_accepted_difference_has_its_reason_and_our_answer() -> None:
    rows = read_accepted(ACCEPTED)
    assert rows
    assert all(row.reason and row.status for row in rows)


def answer(text: str, status: int = 200) -> Answer:
    return Answer(status, HEADERS, text)


def compare(recorded: str, ours: str, *, ordered: bool = False, ids: Ids | None = None) -> list[str]:
    return differences(answer(recorded), answer(ours), ids or Ids(), ordered=ordered)


@pytest.mark.parametrize(
    ("recorded", "ours"),
    [
        (f'{{"id":"{ONE}","a":1}}', f'{{"a":1,"id":"{OURS}"}}'),
        ('{"created_at":1795420370}', '{"created_at":1800000000}'),
        ('{"created_at":1795420370.123}', '{"created_at":1800000000.5}'),
        (f'{{"message":"no {ONE} here"}}', f'{{"message":"no {OURS} here"}}'),
        (f'{{"data":[{{"id":"{ONE}","n":1}},{{"id":"{OTHER}","n":2}}],"next":null}}',
         f'{{"data":[{{"id":"{OURS}","n":2}},{{"id":"{OURS}","n":1}}],"next":null}}'),
        ('{"data":[{"n":1}],"next":"/x?offset=YWJj","offset":"YWJj"}',
         '{"data":[{"n":2}],"next":"/x?offset=ZGVm","offset":"ZGVm"}'),
    ],
)  # fmt: skip
def test_what_differs_by_nature_is_equal(recorded: str, ours: str) -> None:
    assert compare(recorded, ours) == []


@pytest.mark.parametrize(
    ("recorded", "ours"),
    [
        ('{"a":1}', '{"a":1.0}'),
        ('{"a":1}', '{"a":true}'),
        ('{"a":null}', "{}"),
        ("{}", '{"a":null}'),
        ('{"a":[]}', '{"a":null}'),
        ('{"created_at":1795420370}', '{"created_at":1795420370.5}'),
        ('{"created_at":1}', '{"created_at":2}'),
        ('{"data":[{"n":1}],"next":null}', '{"data":[],"next":null}'),
        ('{"data":[{"n":1}],"next":null}', '{"data":[{"n":2}],"next":null}'),
        ('{"data":[{"n":1}],"next":"/x?offset=a&size=1","offset":"a"}',
         '{"data":[{"n":1}],"next":"/x?offset=a","offset":"a"}'),
    ],
)  # fmt: skip
def test_what_differs_is_told(recorded: str, ours: str) -> None:
    assert compare(recorded, ours)


def test_order_counts_where_it_is_asked_for() -> None:
    recorded, ours = '{"data":[1,2],"next":null}', '{"data":[2,1],"next":null}'
    assert compare(recorded, ours) == []
    assert compare(recorded, ours, ordered=True)


def test_an_id_stands_for_one_of_ours_only() -> None:
    ids = Ids()
    assert compare(f'{{"id":"{ONE}"}}', f'{{"id":"{OURS}"}}', ids=ids) == []
    assert compare(f'{{"service":{{"id":"{ONE}"}}}}', f'{{"service":{{"id":"{OURS}"}}}}', ids=ids) == []
    assert compare(f'{{"service":{{"id":"{ONE}"}}}}', f'{{"service":{{"id":"{OTHER}"}}}}', ids=ids)


def test_statuses_and_headers_count() -> None:
    assert differences(answer("{}", 200), answer("{}", 201), Ids(), ordered=False)
    recorded = Answer(200, {"allow": "GET", "server": "kong/3.10.0", "date": "x"}, "{}")
    assert differences(recorded, answer("{}"), Ids(), ordered=False)
    ours = Answer(200, {**HEADERS, "allow": "GET", "server": "kong/3.9.1"}, "{}")
    assert differences(recorded, ours, Ids(), ordered=False) == []


def test_an_accepted_step_must_be_answered_as_the_list_says() -> None:
    step = Step(1, "services", "POST", "/services", {}, "[1]", {}, answer("{}", 500))
    row = Accepted(reason="r", status=400, body="must be an object", recorded_status=500, request_body=r"^\[")
    assert row.covers(step)
    assert row.fits(answer('{"message":"the body must be an object"}', 400), ["status"])
    assert not row.fits(answer("{}", 400), ["status"])
    assert not row.fits(answer("must be an object", 500), ["status"])
    narrow = Accepted(reason="r", status=400, body="", differs="^header allow")
    assert narrow.fits(answer("{}", 400), ["header allow: 'a' expected, 'b' came"])
    assert not narrow.fits(answer("{}", 400), ["header allow: 'a' expected, 'b' came", "code: 2 expected, 3 came"])
    assert not Accepted(reason="r", status=400, body="", step=2).covers(step)
