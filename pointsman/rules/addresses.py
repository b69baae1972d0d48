"""Hosts, ports and targets as operators write them, read the way Kong reads them.

Used by the schemas to check and normalise, and by nodes to take a stored target apart. Error texts are Kong's, since
clients compare them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum

from typing_extensions import override

PORT_MAX = 65535
TARGET_PORT_DEFAULT = 8000

_PORT = re.compile(r":([0-9]+)\Z")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4_PLAIN = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}(?::[0-9]+)?\Z")
_IPV4_LIKE = re.compile(r"[0-9.]+(?::[0-9]+)?\Z")
_HOSTNAME = re.compile(r"[A-Za-z0-9._-]+\Z")
_BRACKETED = re.compile(r"\[([^\]]*)\](?::([0-9]+))?\Z")


class AddressKind(StrEnum):
    """What a host turned out to be."""

    NAME = "name"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class BadAddress(ValueError):
    """The text is no host; the message is Kong's."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host and, if one was written, its port.

    `host` is normalised: names as written, IPv4 without leading zeros, IPv6 as eight groups of four lower-case hex
    digits without brackets.
    """

    kind: AddressKind
    host: str
    port: int | None

    @override
    def __str__(self) -> str:
        host = f"[{self.host}]" if self.kind is AddressKind.IPV6 else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parse_host_port(text: str) -> HostPort:
    """Read a name, IPv4 or IPv6 address (bare or in brackets) with an optional port; raises `BadAddress`.

    More than one colon makes it IPv6, only digits and dots IPv4. A bare IPv6 address cannot carry a port.
    """
    if text.count(":") > 1 or text.startswith("["):
        return _ipv6(text)
    if _IPV4_LIKE.match(text):
        return _ipv4(text)
    return _name(text)


def parse_target(text: str) -> HostPort:
    """Read a target; the port is 8000 where none is written. Raises `BadAddress`."""
    parsed = parse_host_port(text)
    return parsed if parsed.port is not None else HostPort(parsed.kind, parsed.host, TARGET_PORT_DEFAULT)


def split_target(target: str) -> tuple[str, int]:
    """Take a stored, normalised `host:port` apart; the host comes back without brackets."""
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


def parse_ip_or_cidr(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Read an address or a range; host bits are masked off. Raises `BadAddress`."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadAddress(f"invalid ip or cidr range: '{text}'") from None


def _port(digits: str | None) -> int | None:
    if digits is None:
        return None
    if len(digits) > 5 or int(digits) > PORT_MAX:
        raise BadAddress("invalid port number")
    return int(digits)


def _ipv6(text: str) -> HostPort:
    bracketed = _BRACKETED.match(text)
    literal, port = (bracketed[1], bracketed[2]) if bracketed else (text, None)
    try:
        address = ipaddress.IPv6Address(literal)
    except ValueError:
        raise BadAddress(f"invalid ipv6 address: {text}") from None
    if address.scope_id is not None:
        raise BadAddress(f"invalid ipv6 address: {text}")
    return HostPort(AddressKind.IPV6, address.exploded, _port(port))


def _ipv4(text: str) -> HostPort:
    if _IPV4_PLAIN.match(text):  # as nearly all are: a file of 100,000 entities has each target read several times
        host, colon, port = text.partition(":")
        return HostPort(AddressKind.IPV4, host, _port(port if colon else None))
    literal, colon, port = text.partition(":")
    groups = literal.split(".")
    if len(groups) != 4 or not all(group and len(group) <= 3 and int(group) <= 255 for group in groups):
        raise BadAddress(f"invalid ipv4 address: {text}")
    return HostPort(AddressKind.IPV4, ".".join(str(int(group)) for group in groups), _port(port if colon else None))


def _name(text: str) -> HostPort:
    found = _PORT.search(text)
    name = text[: found.start()] if found else text
    labels = name.removesuffix(".").split(".")
    if not _HOSTNAME.match(name) or any(not label or label.endswith("-") for label in labels):
        raise BadAddress(f"invalid hostname: {text}")
    return HostPort(AddressKind.NAME, name, _port(found[1] if found else None))
