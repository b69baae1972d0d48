"""What browsers may do: no foreign names, no writes and no reads from foreign pages."""

from __future__ import annotations

import pytest

from control_plane.admin.guard import Guard
from control_plane.admin.messages import Refused

GUARD = Guard(hosts=frozenset({"gateway.internal"}), origins=frozenset({"https://ops.example.com"}))


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8001", "LOCALHOST", "127.0.0.1:8001", "[::1]:8001", "10.0.0.7", "a.localhost",
        "localhost.", "gateway.internal:8001", "",
    ],
)  # fmt: skip
def test_hosts_answered(host: str) -> None:
    GUARD.check("GET", {"Host": host})


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "a b"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_foreign_name_is_refused(host: str, method: str) -> None:
    with pytest.raises(Refused, match="admin_hosts") as caught:
        GUARD.check(method, {"Host": host})
    assert caught.value.status == 421


@pytest.mark.parametrize("origin", ["http://localhost:8001", "https://ops.example.com"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_friendly_pages_may_write(origin: str, method: str) -> None:
    headers = {"Host": "localhost:8001", "Origin": origin}
    GUARD.check(method, headers)
    assert GUARD.sharing(headers)["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://localhost:3000", "http://localhost", "file://localhost:8001"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_foreign_pages_may_neither_write_nor_read(origin: str, method: str) -> None:
    headers = {"Host": "localhost:8001", "Origin": origin}
    with pytest.raises(Refused) as caught:
        GUARD.check(method, headers)
    assert caught.value.status == 403
    assert GUARD.sharing(headers) == {"Vary": "Origin"}


def test_a_cross_site_write_without_origin_is_refused() -> None:
    with pytest.raises(Refused):
        GUARD.check("POST", {"Host": "localhost", "Sec-Fetch-Site": "cross-site"})
    GUARD.check("POST", {"Host": "localhost", "Sec-Fetch-Site": "none"})


def test_reads_of_foreign_pages_are_answered_unreadably() -> None:
    GUARD.check("GET", {"Host": "localhost", "Origin": "https://evil.example"})


def test_without_an_origin_the_answer_is_as_in_kong() -> None:
    assert GUARD.sharing({"Host": "localhost"}) == {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }
    assert GUARD.sharing({"Host": "localhost", "Sec-Fetch-Mode": "no-cors"}) == {"Vary": "Origin"}, "a browser"
