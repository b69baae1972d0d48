"""Hosts and targets are read as Kong reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.rules.addresses import (
    AddressKind,
    BadAddress,
    HostPort,
    parse_host_port,
    parse_ip_or_cidr,
    parse_target,
    split_target,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api", HostPort(AddressKind.NAME, "api", None)),
        ("Api.Internal.:80", HostPort(AddressKind.NAME, "Api.Internal.", 80)),
        ("-puny_code", HostPort(AddressKind.NAME, "-puny_code", None)),
        ("1.2.3.4.example", HostPort(AddressKind.NAME, "1.2.3.4.example", None)),
        ("001.2.3.4:80", HostPort(AddressKind.IPV4, "1.2.3.4", 80)),
        ("255.10.0.249", HostPort(AddressKind.IPV4, "255.10.0.249", None)),
        ("0.0.0.0:00080", HostPort(AddressKind.IPV4, "0.0.0.0", 80)),
        ("::1", HostPort(AddressKind.IPV6, "0000:0000:0000:0000:0000:0000:0000:0001", None)),
        ("[2001:DB8::1]:443", HostPort(AddressKind.IPV6, "2001:0db8:0000:0000:0000:0000:0000:0001", 443)),
    ],
)
def test_a_host_is_classified_and_normalised(text: str, expected: HostPort) -> None:
    assert parse_host_port(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "invalid hostname: "),
        ("a..b", "invalid hostname: a..b"),
        ("a-.b", "invalid hostname: a-.b"),
        ("a b", "invalid hostname: a b"),
        ("bücher", "invalid hostname: bücher"),
        ("a:b", "invalid hostname: a:b"),
        ("a:65536", "invalid port number"),
        ("1.2.3", "invalid ipv4 address: 1.2.3"),
        ("1.2.3.256:80", "invalid ipv4 address: 1.2.3.256:80"),
        ("1.2.3.4:70000", "invalid port number"),
        ("١.2.3.4", "invalid hostname: ١.2.3.4"),
        ("::1::", "invalid ipv6 address: ::1::"),
        ("fe80::1%eth0", "invalid ipv6 address: fe80::1%eth0"),
        ("[1.2.3.4]:80", "invalid ipv6 address: [1.2.3.4]:80"),
        ("[::1]:70000", "invalid port number"),
    ],
)
def test_a_bad_host_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(BadAddress) as caught:
        parse_host_port(text)

    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("api", "api:8000"),
        ("api:80", "api:80"),
        ("API.example", "API.example:8000"),
        ("001.2.3.4:80", "1.2.3.4:80"),
        ("::1", "[0000:0000:0000:0000:0000:0000:0000:0001]:8000"),
        ("[::1]:80", "[0000:0000:0000:0000:0000:0000:0000:0001]:80"),
    ],
)
def test_a_target_is_stored_with_its_port(text: str, stored: str) -> None:
    assert str(parse_target(text)) == stored
    assert split_target(stored) == (parse_target(text).host, parse_target(text).port)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_a_stored_target_is_its_own_normal_form(address: object, port: int) -> None:
    written = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
    stored = str(parse_target(written))

    assert str(parse_target(stored)) == stored


@given(st.text(max_size=20))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        parsed = parse_target(text)
    except BadAddress:
        return
    assert parse_target(str(parsed)) == parsed


def test_ranges_lose_their_host_bits() -> None:
    assert str(parse_ip_or_cidr("10.1.2.3/8")) == "10.0.0.0/8"
    assert str(parse_ip_or_cidr("::1")) == "::1/128"
    with pytest.raises(BadAddress, match=r"invalid ip or cidr range: '10\.0\.0\.0/33'"):
        parse_ip_or_cidr("10.0.0.0/33")
