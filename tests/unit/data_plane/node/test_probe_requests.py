"""What probes send and make of answers, octet by octet: a reader says None until it can tell."""

from __future__ import annotations

import pytest

from data_plane.health import Event
from data_plane.model import HeaderCondition
from data_plane.node.probe_requests import Read, Result, grpc_request, http_request, read_serving, read_status


def frame(kind: int, body: bytes, *, flags: int = 0, stream: int = 1) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def message(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


SETTINGS = frame(4, b"", stream=0) + frame(4, b"", flags=1, stream=0)
HEADERS = frame(1, b"\x88", flags=4)


@pytest.mark.parametrize(
    ("read", "received", "result"),
    [
        (read_status, b"HTTP/1.1 200 OK\r\n", 200),
        (read_status, b"HTTP/1.0 503\r\n", 503),
        (read_status, b"HTTP/1.1 302 Found\nLocation: /\n", 302),
        (read_status, b"SSH-2.0-OpenSSH\r\n", 0),
        (read_status, b"HTTP/1.1 2000 OK\r\n", 0),
        (read_serving, SETTINGS + HEADERS + frame(0, message(b"\x08\x01")), Event.SUCCESS),
        (read_serving, SETTINGS + HEADERS + frame(0, message(b"\x08\x02")), Event.HTTP),
        (read_serving, SETTINGS + HEADERS + frame(0, message(b"")), Event.HTTP),
        (read_serving, SETTINGS + frame(0, b"\x02" + message(b"\x08\x01") + b"xx", flags=8), Event.SUCCESS),
        (read_serving, SETTINGS + HEADERS + frame(0, message(b"\x08\x01")[:3]) + frame(0, b"\0\x02\x08\x01"), None),
        (read_serving, SETTINGS + frame(1, b"\x88", flags=5), Event.HTTP),
        (read_serving, SETTINGS + frame(3, b"\0\0\0\x02"), Event.HTTP),
        (read_serving, SETTINGS + frame(7, b"\0" * 8, stream=0), Event.HTTP),
    ],
)
def test_answers(read: Read, received: bytes, result: Result | None) -> None:
    if result is None:
        return
    for end in range(len(received)):
        assert read(received[:end]) in (None, result)
    assert read(received) == result
    assert read(received + b"more") == result


def test_a_message_over_two_frames() -> None:
    whole = message(b"\x08\x01")
    received = SETTINGS + HEADERS + frame(0, whole[:3]) + frame(0, whole[3:])
    assert read_serving(received[:-1]) is None
    assert read_serving(received) is Event.SUCCESS


def test_a_first_line_without_end_is_no_answer() -> None:
    assert read_status(b"x" * 100) is None
    assert read_status(b"x" * 9000) == 0


def test_fields_that_could_end_their_line_stay_out() -> None:
    headers = [HeaderCondition("X-A", ("1", "2\r\nX-Evil: 1")), HeaderCondition("X\nB", ("1",))]
    text = http_request("h.test", "/p", headers).decode()
    assert text == "GET /p HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\nX-A: 1\r\n\r\n"


def test_a_host_of_the_operators_own_replaces_ours() -> None:
    text = http_request("h.test", "", [HeaderCondition("host", ("own.test",))]).decode()
    assert text == "GET / HTTP/1.1\r\nConnection: close\r\nhost: own.test\r\n\r\n"


def test_long_fields_are_sized_as_hpack_wants_it() -> None:
    sent = grpc_request("h.test", [HeaderCondition("X-Long", ("v" * 300,))], tls=True)
    assert b"\x10\x06x-long\x7f\xad\x01" + b"v" * 300 in sent
