"""A service's host that is no upstream: an address, or a name whose addresses take turns."""

from __future__ import annotations

import pytest

from data_plane.balancer import DirectHost, Endpoint, NoEndpoint, Reason
from data_plane.resolve.answers import EMPTY_ANSWER, NAME_ERROR, NOT_CACHED, SERVER_FAILURE, Answer, Record


def resolved(*records: Record, error: str = "") -> DirectHost:
    direct = DirectHost("a.test", 81)
    direct.reconcile(lambda _: Answer("a.test", records, error))
    return direct


@pytest.mark.parametrize(("host", "ip"), [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("::1", "::1")])
def test_a_literal_needs_no_name(host: str, ip: str) -> None:
    direct = DirectHost(host, 8080)
    direct.reconcile(lambda _: None)
    assert direct.pick().address == (ip, 8080)


def test_records_take_turns_from_the_first_and_retries_rotate() -> None:
    direct = resolved(Record("1.1.1.1"), Record("2.2.2.2"), Record("3.3.3.3"))
    assert [direct.pick().ip for _ in range(4)] == ["1.1.1.1", "2.2.2.2", "3.3.3.3", "1.1.1.1"]
    tried: list[Endpoint] = []
    for _ in range(6):
        tried.append(direct.pick(tried))
    assert len({endpoint.ip for endpoint in tried[:3]}) == 3
    assert len({endpoint.ip for endpoint in tried[3:]}) == 3
    assert tried[0].host == "a.test"


def test_srv_records_have_their_own_ports_and_weights() -> None:
    direct = resolved(Record("1.1.1.1", 5000, 3), Record("1.1.1.1", 0, 1))
    assert sorted(direct.pick().port for _ in range(8)) == [81, 81, 5000, 5000, 5000, 5000, 5000, 5000]


@pytest.mark.parametrize(
    ("error", "status", "message", "reason"),
    [
        (NAME_ERROR, 503, "name resolution failed", Reason.NAME_FAILED),
        (EMPTY_ANSWER, 503, "name resolution failed", Reason.NAME_FAILED),
        (
            SERVER_FAILURE,
            500,
            f"failed the initial dns/balancer resolve for 'a.test' with: {SERVER_FAILURE}",
            Reason.NAME_UNKNOWN,
        ),
    ],
)
def test_a_name_that_fails_says_so_in_kongs_words(error: str, status: int, message: str, reason: Reason) -> None:
    with pytest.raises(NoEndpoint) as caught:
        resolved(error=error).pick()
    assert (caught.value.status, caught.value.message, caught.value.reason) == (status, message, reason)


def test_a_name_nobody_has_resolved_yet() -> None:
    direct = DirectHost("a.test", 80)
    direct.reconcile(lambda _: None)
    with pytest.raises(NoEndpoint, match=NOT_CACHED):
        direct.pick()


def test_an_address_that_stays_keeps_its_connections() -> None:
    direct = resolved(Record("1.1.1.1"), Record("2.2.2.2"))
    first = direct.pick()
    direct.take(first)
    direct.reconcile(lambda _: Answer("a.test", (Record("3.3.3.3"), Record("1.1.1.1"))))
    assert direct.endpoints["a.test:81/1.1.1.1:81"] is first
    assert not first.retired
    direct.release(first)
    direct.retire()
    assert first.retired
