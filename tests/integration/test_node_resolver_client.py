"""The resolver's client against a real nameserver on loopback: transports, forgeries, failures."""

from __future__ import annotations

from collections.abc import AsyncIterator

import dns.name
import dns.rcode
import dns.rdatatype
import pytest

from data_plane.resolve.client import Client, TransportFailure
from data_plane.resolve.system import Nameserver
from tests.support.dns_server import DnsServer, Failure

A = dns.rdatatype.A
BLUE = dns.name.from_text("blue.test")


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("blue.test", "A", [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(5)])
        yield server


def client(*nameservers: Nameserver, timeout: float = 2.0, attempts: int = 2) -> Client:
    return Client(nameservers, attempt_timeout_s=timeout, attempts=attempts)


async def test_a_question_gets_its_answer(server: DnsServer) -> None:
    response = await client(server.nameserver).ask(BLUE, A)
    assert {rdata.address for rdata in response.answer[0]} == {f"10.0.0.{n + 1}" for n in range(5)}


@pytest.mark.parametrize("failure", [Failure.WRONG_ID_FIRST, Failure.GARBAGE_FIRST])
async def test_what_does_not_fit_the_question_is_ignored(server: DnsServer, failure: Failure) -> None:
    server.fail("blue.test", failure)
    response = await client(server.nameserver).ask(BLUE, A)
    assert len(response.answer[0]) == 5


async def test_a_truncated_answer_is_fetched_over_tcp(server: DnsServer) -> None:
    server.set("blue.test", "A", [f"10.{n // 250}.0.{n % 250 + 1}" for n in range(600)])
    server.fail("blue.test", Failure.TRUNCATED)
    response = await client(server.nameserver).ask(BLUE, A)
    assert len(response.answer[0]) == 600
    assert server.asked("blue.test", "A") == 2


async def test_no_such_name_is_an_answer_not_a_failure(server: DnsServer) -> None:
    response = await client(server.nameserver).ask(dns.name.from_text("gone.test"), A)
    assert response.rcode() == dns.rcode.NXDOMAIN


async def test_a_nameserver_that_fails_hands_over_to_the_next(server: DnsServer) -> None:
    async with DnsServer() as broken:
        broken.set("blue.test", "A", ["10.9.9.9"])
        broken.fail("blue.test", Failure.SERVFAIL)
        response = await client(broken.nameserver, server.nameserver).ask(BLUE, A)
    assert len(response.answer[0]) == 5


async def test_a_dead_nameserver_hands_over_to_the_next(server: DnsServer) -> None:
    async with DnsServer() as dead:
        address = dead.nameserver
    response = await client(address, server.nameserver).ask(BLUE, A)
    assert len(response.answer[0]) == 5


async def test_when_all_refuse_the_refusal_is_told(server: DnsServer) -> None:
    server.fail("blue.test", Failure.REFUSED)
    response = await client(server.nameserver).ask(BLUE, A)
    assert response.rcode() == dns.rcode.REFUSED


async def test_silence_ends_after_the_attempts_with_the_nameserver_named(server: DnsServer) -> None:
    server.fail("blue.test", Failure.SILENCE)
    with pytest.raises(TransportFailure, match=rf"127\.0\.0\.1:{server.port} did not answer"):
        await client(server.nameserver, timeout=0.05, attempts=3).ask(BLUE, A)
    assert server.asked("blue.test", "A") == 3
