"""What the address of a peer adds to its requests, and whom it may speak for."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from data_plane.proxy.forwarding import PeerLines, forwarded_by_trusted, redirect_location, trusted_value
from data_plane.proxy.head import RequestHead
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tables import Plan

TRUSTING = (ip_network("10.0.0.0/8"), ip_network("::1/128"))


def head(*fields: bytes) -> RequestHead:
    made = RequestHead()
    made.block = b"".join(b"\r\n" + line for line in fields)
    return made


def test_the_common_case_is_ready_made() -> None:
    peer = PeerLines("192.0.2.1", ProxySettings())
    assert peer.lines(head()) == peer.common
    assert peer.common.split(b"\r\n") == [
        b"Connection: keep-alive",
        b"X-Forwarded-For: 192.0.2.1",
        b"X-Real-IP: 192.0.2.1",
        b"Via: 1.1 kong/3.10.0",
    ]


def test_what_a_request_brings_is_built_on() -> None:
    asked = head()
    asked.via = b"1.0 a"
    asked.forwarded_for = b"9.9.9.9"
    asked.http10 = True
    asked.te_trailers = True
    assert PeerLines("192.0.2.1", ProxySettings()).lines(asked).split(b"\r\n") == [
        b"Connection: keep-alive",
        b"X-Forwarded-For: 9.9.9.9, 192.0.2.1",
        b"X-Real-IP: 192.0.2.1",
        b"Via: 1.0 a, 1.0 kong/3.10.0",
        b"TE: trailers",
    ]


@pytest.mark.parametrize(
    ("recursive", "said", "expected"),
    [
        (False, b"198.51.100.7", b"198.51.100.7"),
        (False, b"198.51.100.7, 10.0.0.2", b"10.0.0.2"),
        (True, b"198.51.100.7, 10.0.0.2", b"198.51.100.7"),
        (True, b"198.51.100.8, 198.51.100.7, 10.0.0.2", b"198.51.100.7"),
        (True, b"10.0.0.3, 10.0.0.2", b"10.0.0.3"),
        (True, b"nonsense, 10.0.0.2", b"10.0.0.2"),
        (True, b"10.0.0.3 , ,", b"10.0.0.3"),
        (False, b"198.51.100.7:4711", b"198.51.100.7"),
        (False, b"[2001:DB8::1]:4711", b"2001:db8::1"),
        (False, b"2001:db8::1", b"2001:db8::1"),
        (True, b"198.51.100.7, ::ffff:10.0.0.2", b"198.51.100.7"),
        (False, b"[2001:db8::1]", b"2001:db8::1"),
        (False, b"[2001:db8::1", b"10.0.0.1"),
        (False, b"[2001:db8::1]x", b"10.0.0.1"),
        (False, b"198.51.100.7:x", b"10.0.0.1"),
        (False, b"nonsense", b"10.0.0.1"),
        (False, b"", b"10.0.0.1"),
    ],
)
def test_the_client_address_a_trusted_peer_names(*, recursive: bool, said: bytes, expected: bytes) -> None:
    settings = ProxySettings(trusted_ips=TRUSTING, real_ip_header="X-Forwarded-For", real_ip_recursive=recursive)
    peer = PeerLines("10.0.0.1", settings)
    assert peer.trusted
    assert peer.client_address(head(b"X-Forwarded-For: " + said)) == expected


def test_nobody_is_trusted_by_default_and_strangers_never() -> None:
    assert not PeerLines("10.0.0.1", ProxySettings()).trusted
    settings = ProxySettings(trusted_ips=TRUSTING)
    assert not PeerLines("192.0.2.1", settings).trusted
    assert not PeerLines("unknown", settings).trusted
    assert PeerLines("::1", settings).trusted
    assert PeerLines("::ffff:10.0.0.1", settings).trusted
    stranger = PeerLines("192.0.2.1", settings)
    assert stranger.client_address(head(b"X-Real-IP: 1.1.1.1")) == b"192.0.2.1"


def test_a_trusted_peer_overrides_field_by_field() -> None:
    plan = Plan(route=None, service=None)
    plan.forwarded = b"X-Forwarded-Proto: http\r\nX-Forwarded-Port: 8000"
    lines = forwarded_by_trusted(
        plan, [b"X-Forwarded-PROTO: https", b"x-forwarded-proto: ftp", b"X-Forwarded-Prefix: /p"]
    )
    assert lines.split(b"\r\n") == [b"X-Forwarded-Port: 8000", b"X-Forwarded-PROTO: https", b"X-Forwarded-Prefix: /p"]


def test_redirects_go_to_the_host_the_client_knows() -> None:
    asked = head()
    asked.host, asked.path, asked.query = b"A.test:80", b"/x", b"?y"
    assert redirect_location(asked, trusted=False) == b"https://a.test/x?y"
    asked.trusted = [b"X-Forwarded-Host: outer"]
    assert redirect_location(asked, trusted=False) == b"https://a.test/x?y"
    assert redirect_location(asked, trusted=True) == b"https://outer/x?y"
    assert trusted_value(asked, b"x-forwarded-port") == b""
