"""What is asked and how it is read, against a nameserver that is a table."""

from __future__ import annotations

import asyncio

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from data_plane.resolve.answers import EMPTY_ANSWER, NAME_ERROR, SERVER_FAILURE, Record
from data_plane.resolve.cache import Found, NotFound
from data_plane.resolve.client import TransportFailure
from data_plane.resolve.resolver import Resolver
from data_plane.resolve.system import ResolvConf, parse_hosts

Zone = dict[tuple[str, str], list[tuple[str, int, str, list[str]]] | int | None]
"""(name, type) -> records (owner, ttl, type, values) of the answer section, an rcode, or None = nobody answers."""


class Table:
    """A nameserver: what is not in the zone does not exist."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: list[tuple[str, str]] = []

    async def ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.Message:
        key = (name.to_text(omit_final_dot=True), dns.rdatatype.to_text(kind))
        self.asked.append(key)
        await asyncio.sleep(0)
        response = dns.message.make_response(dns.message.make_query(name, kind))
        found = self.zone.get(key, dns.rcode.NXDOMAIN)
        if found is None:
            raise TransportFailure("nobody answers")
        if isinstance(found, int):
            response.set_rcode(dns.rcode.Rcode(found))
        else:
            for owner, ttl, rdtype, values in found:
                response.answer.append(dns.rrset.from_text(f"{owner}.", ttl, "IN", rdtype, *values))
        return response


def resolver(
    zone: Zone, *, conf: ResolvConf | None = None, hosts: str = "", families: tuple[str, ...] = ("A", "SRV")
) -> tuple[Resolver, Table]:
    table = Table(zone)
    return Resolver(table, conf=conf or ResolvConf(), hosts=parse_hosts(hosts), families=families), table


def found(ttl: float | None, *records: Record) -> Found:
    return Found(records, ttl)


async def test_addresses_come_in_the_nameservers_order_with_the_smallest_ttl() -> None:
    names, table = resolver({("blue.test", "A"): [("blue.test", 30, "A", ["10.0.0.9", "10.0.0.1"])]})
    assert await names.resolve("blue.test") == found(30.0, Record("10.0.0.9"), Record("10.0.0.1"))
    assert table.asked == [("blue.test", "A")]


@pytest.mark.parametrize("name", ["10.0.0.1", "::1", "localhost", "LOCALHOST.", "api.localhost", "printer"])
async def test_addresses_localhost_and_the_hosts_file_ask_nobody(name: str) -> None:
    names, table = resolver({}, hosts="10.0.0.7 printer")
    outcome = await names.resolve(name)
    assert isinstance(outcome, Found)
    assert outcome.ttl_s is None
    assert table.asked == []


async def test_cnames_are_followed_inside_one_answer_and_by_further_questions() -> None:
    names, table = resolver(
        {
            ("a.test", "A"): [("a.test", 300, "CNAME", ["b.test."]), ("b.test", 20, "CNAME", ["c.test."])],
            ("c.test", "A"): [("c.test", 60, "A", ["10.0.0.1"])],
        }
    )
    assert await names.resolve("a.test") == found(20.0, Record("10.0.0.1"))
    assert table.asked == [("a.test", "A"), ("c.test", "A")]


async def test_cnames_in_a_circle_are_an_error() -> None:
    names, _ = resolver(
        {
            ("a.test", "A"): [("a.test", 1, "CNAME", ["b.test."])],
            ("b.test", "A"): [("b.test", 1, "CNAME", ["a.test."])],
        }
    )
    assert await names.resolve("a.test") == NotFound("recursion detected")


@pytest.mark.parametrize(
    ("zone", "error"),
    [
        ({}, NAME_ERROR),
        ({("x.test", "A"): []}, EMPTY_ANSWER),
        ({("x.test", "A"): int(dns.rcode.SERVFAIL)}, SERVER_FAILURE),
        ({("x.test", "A"): int(dns.rcode.REFUSED)}, "dns server error: 5 refused"),
        ({("x.test", "A"): None}, "nobody answers"),
    ],
)
async def test_errors_are_told_in_kongs_words(zone: Zone, error: str) -> None:
    names, _ = resolver(zone)
    assert await names.resolve("x.test") == NotFound(error)


async def test_a_name_that_is_no_name_is_an_error_not_a_crash() -> None:
    names, table = resolver({})
    outcome = await names.resolve("a..b")
    assert isinstance(outcome, NotFound)
    assert await names.resolve("x" * 300) != outcome
    assert table.asked == []


async def test_search_list_is_walked_and_a_transport_failure_ends_the_walk() -> None:
    conf = ResolvConf(search=("one", "two"))
    names, table = resolver({("blue.two", "A"): [("blue.two", 5, "A", ["10.0.0.1"])]}, conf=conf)
    assert await names.resolve("blue") == found(5.0, Record("10.0.0.1"))
    assert table.asked == [("blue.one", "A"), ("blue.two", "A")]
    names, table = resolver({("blue.one", "A"): None, ("blue", "A"): [("blue", 5, "A", ["10.0.0.1"])]}, conf=conf)
    assert await names.resolve("blue") == NotFound("nobody answers")
    assert table.asked == [("blue.one", "A")]


async def test_ipv6_is_asked_for_only_when_set_and_after_ipv4() -> None:
    zone: Zone = {("six.test", "A"): [], ("six.test", "AAAA"): [("six.test", 9, "AAAA", ["fe80::1"])]}
    names, _ = resolver(zone)
    assert await names.resolve("six.test") == NotFound(EMPTY_ANSWER)
    names, table = resolver(zone, families=("A", "AAAA", "SRV"))
    assert await names.resolve("six.test") == found(9.0, Record("fe80::1"))
    assert table.asked == [("six.test", "A"), ("six.test", "AAAA")]


async def test_srv_names_ask_for_srv_only_and_use_the_lowest_priority() -> None:
    zone: Zone = {
        ("_http._tcp.blue.test", "SRV"): [
            (
                "_http._tcp.blue.test",
                40,
                "SRV",
                ["10 5 8001 one.test.", "10 0 8002 two.test.", "20 9 8003 spare.test."],
            )
        ],
        ("one.test", "A"): [("one.test", 30, "A", ["10.0.0.1"])],
        ("two.test", "A"): [("two.test", 50, "A", ["10.0.0.2"])],
    }
    names, table = resolver(zone)
    assert await names.resolve("_http._tcp.blue.test") == found(
        30.0, Record("10.0.0.1", 8001, 5, "one.test"), Record("10.0.0.2", 8002, 1, "two.test")
    )
    assert ("spare.test", "A") not in table.asked


async def test_an_srv_target_with_several_addresses_shares_its_weight() -> None:
    zone: Zone = {
        ("_a._tcp.x", "SRV"): [("_a._tcp.x", 40, "SRV", ["1 3 80 one.test.", "1 3 80 two.test."])],
        ("one.test", "A"): [("one.test", 30, "A", ["10.0.0.1", "10.0.0.2"])],
        ("two.test", "A"): [("two.test", 30, "A", ["10.0.0.3"])],
    }
    names, _ = resolver(zone)
    outcome = await names.resolve("_a._tcp.x")
    assert isinstance(outcome, Found)
    assert [(record.ip, record.weight) for record in outcome.records] == [
        ("10.0.0.1", 3),
        ("10.0.0.2", 3),
        ("10.0.0.3", 6),
    ]


async def test_srv_without_one_resolvable_target_is_an_error() -> None:
    zone: Zone = {("_a._tcp.x", "SRV"): [("_a._tcp.x", 40, "SRV", ["1 3 80 gone.test."])]}
    names, _ = resolver(zone)
    assert await names.resolve("_a._tcp.x") == NotFound(NAME_ERROR)


async def test_concurrent_lookups_of_one_name_share_a_question_and_survive_a_caller_that_gives_up() -> None:
    names, table = resolver({("blue.test", "A"): [("blue.test", 30, "A", ["10.0.0.1"])]})
    impatient = asyncio.create_task(names.resolve("blue.test"))
    patient = [asyncio.create_task(names.resolve("blue.test")) for _ in range(3)]
    await asyncio.sleep(0)
    impatient.cancel()
    assert await asyncio.gather(*patient) == [found(30.0, Record("10.0.0.1"))] * 3
    assert table.asked == [("blue.test", "A")]
    await names.close()


SRV_FIRST = ("SRV", "A")


async def test_srv_stands_before_a_for_any_name_when_it_is_named_first() -> None:
    both: Zone = {
        ("both.test", "SRV"): [("both.test", 30, "SRV", ["1 5 8080 one.test."])],
        ("both.test", "A"): [("both.test", 30, "A", ["10.0.0.2"])],
        ("one.test", "A"): [("one.test", 30, "A", ["10.0.0.1"])],
    }
    names, _ = resolver(both, families=SRV_FIRST)
    assert await names.resolve("both.test") == found(30.0, Record("10.0.0.1", 8080, 5, "one.test"))


async def test_the_type_that_worked_last_is_asked_for_first() -> None:
    names, table = resolver({("a.test", "A"): [("a.test", 30, "A", ["10.0.0.2"])]}, families=SRV_FIRST)
    for _ in range(2):
        assert await names.resolve("a.test") == found(30.0, Record("10.0.0.2"))
    assert table.asked == [("a.test", "SRV"), ("a.test", "A"), ("a.test", "A")]
    table.zone = {("a.test", "SRV"): [("a.test", 30, "SRV", ["1 5 8080 10.0.0.3."])]}
    assert await names.resolve("a.test") == found(30.0, Record("10.0.0.3", 8080, 5, "10.0.0.3"))


async def test_srv_entries_that_point_back_at_the_name_are_no_answer() -> None:
    circle: Zone = {
        ("k.test", "SRV"): [("k.test", 30, "SRV", ["1 5 8080 k.test."])],
        ("k.test", "A"): [("k.test", 30, "A", ["10.0.0.2"])],
    }
    names, _ = resolver(circle, families=SRV_FIRST)
    assert await names.resolve("k.test") == found(30.0, Record("10.0.0.2"))


async def test_an_outage_of_srv_is_not_taken_for_a_name_without_it() -> None:
    names, table = resolver({("a.test", "SRV"): None}, families=SRV_FIRST)
    assert await names.resolve("a.test") == NotFound("nobody answers")
    assert table.asked == [("a.test", "SRV")]
