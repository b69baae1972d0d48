"""One name to its addresses: what is asked, in which order, and how an answer is read.

The order of Kong's default client: an address is itself; then the hosts file; then the type that a name was found by
last, SRV, A, and AAAA when the settings name it, in the order of the settings. Each type is tried over the whole search
list before the next one. A transport failure ends the lookup at once, so that an outage is not mistaken for "no such
name". With SRV after A, the order of Kong's newer client: SRV alone for a name like `_service._proto.x`, and for no
other.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.rrset

from data_plane.resolve.answers import EMPTY_ANSWER, NAME_ERROR, Record
from data_plane.resolve.cache import Found, NotFound, Outcome
from data_plane.resolve.client import Exchange, TransportFailure
from data_plane.resolve.system import ResolvConf, as_address, names_to_try

CNAMES_MAX = 16
LAST_KINDS_MAX = 100_000
RECORDS_MAX = 1000
"""A set larger than this is cut: no upstream has more, and an answer over TCP may hold several thousand."""
SRV_WEIGHT_MAX = 65535

_SRV_NAME = re.compile(r"_[^.]+\._[^.]+\..+")
_A = dns.rdatatype.A
_AAAA = dns.rdatatype.AAAA
_SRV = dns.rdatatype.SRV
_CNAME = dns.rdatatype.CNAME


def is_srv_name(name: str) -> bool:
    """Whether `name` has the form `_service._proto.name` and so is asked for as SRV only."""
    return _SRV_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class _Addresses:
    ips: tuple[str, ...]
    ttl_s: float


@dataclass(frozen=True, slots=True)
class _Failure:
    error: str
    final: bool = False  # nobody answered: do not go on to the next name or type


class Resolver:
    """Lookups by the rules above. Concurrent lookups of one name share a single conversation."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        conf: ResolvConf,
        hosts: Mapping[str, tuple[str, ...]],
        families: Sequence[str] = ("SRV", "A"),
    ) -> None:
        self._exchange = exchange
        self._conf = conf
        self._hosts = hosts
        self._address_kinds = tuple(
            dns.rdatatype.from_text(family) for family in families if family in ("A", "AAAA")
        ) or (_A,)
        self._srv = "SRV" in families
        self._srv_first = self._srv and families[0] == "SRV"
        self._plain: set[str] = set()  # names found by an address type last: they cost no question about SRV
        self._running: dict[str, asyncio.Task[Outcome]] = {}

    async def resolve(self, name: str) -> Outcome:
        """What `name` stands for now. Never raises for anything a nameserver does; may be cancelled."""
        task = self._running.get(name)
        if task is None:
            task = asyncio.create_task(self._resolve(name), name=f"resolve {name}")
            self._running[name] = task
            task.add_done_callback(lambda _: self._running.pop(name, None))
        # Shielded: one caller that gives up must not take the answer away from the others.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End the lookups under way."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _resolve(self, name: str) -> Outcome:
        literal = as_address(name)
        if literal is not None:
            return Found((Record(literal),), None)
        plain = name.rstrip(".").lower()
        listed = self._hosts.get(plain)
        if listed is None and plain.endswith(".localhost"):
            listed = self._hosts.get("localhost")  # RFC 6761 section 6.3
        if listed:
            return Found(tuple(Record(ip) for ip in listed), None)
        if self._srv and is_srv_name(plain):
            answer = await self._search_srv(name)
            return NotFound(answer.error) if isinstance(answer, _Failure) else await self._expand_srv(answer)
        if self._srv_first and name not in self._plain:
            answer = await self._search_srv(name)
            if isinstance(answer, _Failure):
                if answer.final:
                    return NotFound(answer.error)
            # Kubernetes answers for a service without named ports with entries that point back at it.
            elif any(entry.target != plain for entry in answer.entries):
                return await self._expand_srv(answer)
        addresses = await self._search_addresses(name)
        if isinstance(addresses, _Failure):
            if self._srv_first and name in self._plain and not addresses.final:
                self._plain.discard(name)  # its records may be of another type now
                return await self._resolve(name)
            return NotFound(addresses.error)
        if len(self._plain) >= LAST_KINDS_MAX:
            self._plain.clear()
        self._plain.add(name)
        return Found(tuple(Record(ip) for ip in addresses.ips), addresses.ttl_s)

    async def _search_addresses(self, name: str) -> _Addresses | _Failure:
        failure = _Failure(NAME_ERROR)
        for kind in self._address_kinds:
            for candidate in names_to_try(name, self._conf):
                found = await self._addresses(candidate, kind)
                if isinstance(found, _Addresses):
                    return found
                failure = _worse(failure, found)
                if failure.final:
                    return failure
        return failure

    async def _addresses(self, name: str, kind: dns.rdatatype.RdataType) -> _Addresses | _Failure:
        answer = await self._ask(name, kind)
        if isinstance(answer, _Failure):
            return answer
        return _Addresses(answer.ips, answer.ttl_s)

    async def _search_srv(self, name: str) -> _Answers | _Failure:
        failure = _Failure(NAME_ERROR)
        for candidate in names_to_try(name, self._conf):
            answer = await self._ask(candidate, _SRV)
            if isinstance(answer, _Answers):
                return answer
            failure = _worse(failure, answer)
            if failure.final:
                break
        return failure

    async def _expand_srv(self, answer: _Answers) -> Outcome:
        """The SRV entries of the lowest priority, each as the addresses of its target.

        A target with several addresses shares its weight among them, so that its part of the traffic is what the
        record says; all weights are scaled by a common factor to keep that exact.
        """
        lowest = min(entry.priority for entry in answer.entries)
        entries = sorted(
            (entry for entry in answer.entries if entry.priority == lowest),
            key=lambda entry: (entry.target, entry.port),
        )
        targets = list(dict.fromkeys(entry.target for entry in entries))
        looked_up = await asyncio.gather(*(self._srv_target(target) for target in targets))
        found = {
            target: addresses
            for target, addresses in zip(targets, looked_up, strict=True)
            if isinstance(addresses, _Addresses)
        }
        if not found:
            failures = [addresses for addresses in looked_up if isinstance(addresses, _Failure)]
            return NotFound(failures[0].error if failures else EMPTY_ANSWER)
        scale = math.lcm(*(len(addresses.ips) for addresses in found.values()))
        if scale * max(max(entry.weight, 1) for entry in entries) > SRV_WEIGHT_MAX:
            scale = 1
        ttl_s = min(answer.ttl_s, *(addresses.ttl_s for addresses in found.values()))
        records: list[Record] = []
        for entry in entries:
            addresses = found.get(entry.target)
            if addresses is None:
                continue
            weight = max(max(entry.weight, 1) * scale // len(addresses.ips), 1)
            records.extend(Record(ip, entry.port, weight, entry.target) for ip in addresses.ips)
        return Found(tuple(records[:RECORDS_MAX]), ttl_s)

    async def _srv_target(self, target: str) -> _Addresses | _Failure:
        literal = as_address(target)
        if literal is not None:
            return _Addresses((literal,), float("inf"))
        listed = self._hosts.get(target)
        if listed:
            return _Addresses(listed, float("inf"))
        failure = _Failure(NAME_ERROR)
        for kind in self._address_kinds:
            found = await self._addresses(target, kind)
            if isinstance(found, _Addresses):
                return found
            failure = _worse(failure, found)
            if failure.final:
                break
        return failure

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType) -> _Answers | _Failure:
        """The records of `kind` at `name`, CNAMEs followed within the answer and by further questions."""
        try:
            asked = dns.name.from_text(name)
        except dns.exception.DNSException as error:
            return _Failure(f"dns client error: {error}")
        seen = {asked}
        ttl_s = float("inf")
        for _ in range(CNAMES_MAX):
            try:
                response = await self._exchange.ask(asked, kind)
            except TransportFailure as error:
                return _Failure(str(error), final=True)
            code = response.rcode()
            if code == dns.rcode.NXDOMAIN:
                return _Failure(NAME_ERROR)
            if code != dns.rcode.NOERROR:
                return _Failure(_server_error(code))
            step = _read(response, asked, kind, seen)
            ttl_s = min(ttl_s, step.ttl_s)
            if step.ips or step.entries:
                return _Answers(step.ips, step.entries, ttl_s)
            if step.loop:
                return _Failure("recursion detected")
            if step.owner == asked:
                return _Failure(EMPTY_ANSWER)
            asked = step.owner
        return _Failure("recursion detected")


@dataclass(frozen=True, slots=True)
class _SrvEntry:
    priority: int
    weight: int
    port: int
    target: str  # lower-case, without the trailing dot


@dataclass(frozen=True, slots=True)
class _Answers:
    ips: tuple[str, ...]
    entries: tuple[_SrvEntry, ...]
    ttl_s: float


@dataclass(frozen=True, slots=True)
class _Step:
    """Where one answer led: records, or the name at the end of its CNAME chain."""

    owner: dns.name.Name
    ttl_s: float
    ips: tuple[str, ...] = ()
    entries: tuple[_SrvEntry, ...] = ()
    loop: bool = False


def _read(
    response: dns.message.Message, asked: dns.name.Name, kind: dns.rdatatype.RdataType, seen: set[dns.name.Name]
) -> _Step:
    owner = asked
    ttl_s = float("inf")
    by_key: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset] = {
        (rrset.name, rrset.rdtype): rrset for rrset in response.answer if rrset.rdclass == dns.rdataclass.IN
    }
    while True:
        wanted = by_key.get((owner, kind))
        if wanted is not None and len(wanted) > 0:
            ips, entries = _plain(wanted)
            return _Step(owner, min(ttl_s, float(wanted.ttl)), ips, entries)
        alias = by_key.get((owner, _CNAME))
        if alias is None or len(alias) == 0:
            return _Step(owner, ttl_s)
        ttl_s = min(ttl_s, float(alias.ttl))
        owner = alias[0].target
        if owner in seen:
            return _Step(owner, ttl_s, loop=True)
        seen.add(owner)


def _plain(rrset: dns.rrset.RRset) -> tuple[tuple[str, ...], tuple[_SrvEntry, ...]]:
    """The records as plain values: addresses in the nameserver's order, or SRV entries."""
    ips: list[str] = []
    entries: list[_SrvEntry] = []
    for rdata in rrset:
        if isinstance(rdata, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA):
            ips.append(str(rdata.address))
        elif isinstance(rdata, dns.rdtypes.IN.SRV.SRV):
            target = rdata.target.to_text(omit_final_dot=True).lower()
            entries.append(_SrvEntry(rdata.priority, rdata.weight, rdata.port, target))
    return tuple(ips[:RECORDS_MAX]), tuple(entries[:RECORDS_MAX])


def _worse(before: _Failure, after: _Failure) -> _Failure:
    """The failure to report: the last one met, but "no such name" of a suffix does not hide what the nameserver had."""
    if after.final or after.error != NAME_ERROR:
        return after
    return before


def _server_error(code: dns.rcode.Rcode) -> str:
    texts = {
        dns.rcode.FORMERR: "format error",
        dns.rcode.SERVFAIL: "server failure",
        dns.rcode.NOTIMP: "not implemented",
        dns.rcode.REFUSED: "refused",
    }
    return f"dns server error: {int(code)} {texts.get(code, 'unknown')}"
