"""Kong's listener syntax as a table."""

from __future__ import annotations

import pytest

from data_plane.node.sockets import KeepAlive, ListenError, ListenSpec, parse_listen
from pointsman.settings import SocketAddress

ANY = SocketAddress("0.0.0.0", 8000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:8000", ListenSpec(ANY)),
        ("0.0.0.0:8000 reuseport bind backlog=128", ListenSpec(ANY, backlog=128)),
        ("[::]:0 ipv6only=off deferred", ListenSpec(SocketAddress("::", 0), ipv6only=False, deferred=True)),
        ("localhost:80 so_keepalive=on", ListenSpec(SocketAddress("localhost", 80), keepalive=KeepAlive())),
        ("0.0.0.0:8000 so_keepalive=off", ListenSpec(ANY)),
        ("0.0.0.0:8000 ssl proxy_protocol", ListenSpec(ANY, ssl=True, proxy_protocol=True)),
        ("0.0.0.0:8000 so_keepalive=30::5", ListenSpec(ANY, keepalive=KeepAlive(30, 0, 5))),
    ],
)
def test_a_listener_is_an_address_and_flags(text: str, expected: ListenSpec) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("off", "nothing to serve"),
        ("8000", "not host:port"),
        ("0.0.0.0:8000 http2", "HTTP/2 is not there yet"),
        ("0.0.0.0:8000 udp", "unknown flag 'udp'"),
        ("0.0.0.0:8000 backlog=0", "unknown flag 'backlog=0'"),
        ("0.0.0.0:8000 so_keepalive=1:2", "idle:interval:count"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_way_out(text: str, said: str) -> None:
    with pytest.raises(ListenError, match=said):
        parse_listen(text)
