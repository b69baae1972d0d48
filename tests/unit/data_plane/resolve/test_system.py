from __future__ import annotations

import pytest

from data_plane.resolve.system import (
    Nameserver,
    ResolvConf,
    as_address,
    names_to_try,
    parse_hosts,
    parse_resolv_conf,
)


def test_resolv_conf_is_read_as_the_manual_says() -> None:
    conf = parse_resolv_conf(
        """
        # a comment
        nameserver 10.0.0.2
        nameserver fe80::1%eth0
        domain old.test
        search one.test Two.Test.
        options ndots:2 timeout:3 attempts:4 rotate edns0
        """
    )
    assert conf == ResolvConf(
        nameservers=(Nameserver("10.0.0.2"), Nameserver("fe80::1")),
        search=("one.test", "two.test"),
        ndots=2,
        attempt_timeout_s=3.0,
        attempts=4,
        rotate=True,
    )


def test_nonsense_in_resolv_conf_is_skipped() -> None:
    conf = parse_resolv_conf("nameserver nowhere\nnameserver\noptions ndots:many timeout:0 attempts:0\nsearch\n")
    assert conf == ResolvConf(attempts=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1", Nameserver("127.0.0.1", 53)),
        ("127.0.0.1:5300", Nameserver("127.0.0.1", 5300)),
        ("[::1]:5300", Nameserver("::1", 5300)),
        ("::1", Nameserver("::1", 53)),
    ],
)
def test_a_nameserver_may_carry_a_port(text: str, expected: Nameserver) -> None:
    assert Nameserver.parse(text) == expected


@pytest.mark.parametrize("text", ["", "ns.test", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000", "[::1"])
def test_what_is_no_nameserver_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|number|IP"):
        Nameserver.parse(text)


def test_hosts_file_lists_every_address_of_a_name_and_always_knows_localhost() -> None:
    hosts = parse_hosts("10.0.0.1 Blue blue.test # first\nfe80::9 blue\n10.0.0.2 blue\nbroken line\n::1 localhost\n")
    assert hosts["blue"] == ("10.0.0.1", "10.0.0.2", "fe80::9")
    assert hosts["blue.test"] == ("10.0.0.1",)
    assert hosts["localhost"] == ("127.0.0.1",)


@pytest.mark.parametrize(
    ("name", "ndots", "expected"),
    [
        ("blue", 1, ("blue.one", "blue.two", "blue")),
        ("blue.svc", 1, ("blue.svc", "blue.svc.one", "blue.svc.two")),
        ("blue.svc", 2, ("blue.svc.one", "blue.svc.two", "blue.svc")),
        ("blue.", 1, ("blue",)),
    ],
)
def test_search_list_stands_before_or_after_the_bare_name(name: str, ndots: int, expected: tuple[str, ...]) -> None:
    assert names_to_try(name, ResolvConf(search=("one", "two"), ndots=ndots)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "::1"),
        ("0000:0000:0000:0000:0000:0000:0000:000a", "::a"),
        ("blue", None),
        ("blue1", None),
        ("10.0.0.256", None),
    ],
)
def test_addresses_are_told_from_names(text: str, expected: str | None) -> None:
    assert as_address(text) == expected
