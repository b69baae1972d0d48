"""What the host says about names: resolv.conf and the hosts file, read once at start.

Pure parsing of given texts (resolv.conf(5), hosts(5)); a line that makes no sense is skipped, as every resolver does,
because a broken line must not take the working ones with it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

DNS_PORT = 53
NAMESERVERS_MAX = 8
SEARCH_MAX = 32
NDOTS_MAX = 15


@dataclass(frozen=True, slots=True)
class Nameserver:
    """One address to ask."""

    ip: str
    port: int = DNS_PORT

    @classmethod
    def parse(cls, text: str) -> Nameserver:
        """`ip`, `ip:port` or `[v6]:port`; raises ValueError when it is no address."""
        host, port = text, str(DNS_PORT)
        if text.startswith("["):
            host, closed, rest = text[1:].partition("]")
            if not closed or (rest and not rest.startswith(":")):
                raise ValueError(f"{text!r} is not an address: expected [IPv6]:port")
            port = rest[1:] or port
        elif text.count(":") == 1:
            host, _, port = text.partition(":")
        address = ipaddress.ip_address(host)
        if not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65535:
            raise ValueError(f"{text!r} is not an address: the port must be a number from 1 to 65535")
        return cls(str(address), int(port))


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """How this host asks: whom, how patiently, and what it appends to short names."""

    nameservers: tuple[Nameserver, ...] = (Nameserver("127.0.0.1"),)
    search: tuple[str, ...] = ()
    ndots: int = 1
    attempt_timeout_s: float = 2.0
    attempts: int = 5
    rotate: bool = False


def parse_resolv_conf(text: str) -> ResolvConf:
    """The settings in `text`; what it does not say stays at the defaults above (Kong's, not glibc's)."""
    nameservers: list[Nameserver] = []
    search: tuple[str, ...] = ()
    numbers = {"ndots": 1, "timeout": 2, "attempts": 5}
    rotate = False
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        keyword, values = words[0], words[1:]
        if keyword == "nameserver":
            address = values[0].split("%", 1)[0]
            try:
                nameservers.append(Nameserver(str(ipaddress.ip_address(address))))
            except ValueError:
                continue
        elif keyword in ("search", "domain"):
            # The last of the two wins, whichever it is.
            search = tuple(suffix.rstrip(".").lower() for suffix in values if suffix.rstrip("."))
        elif keyword == "options":
            for option in values:
                name, _, value = option.partition(":")
                if name == "rotate":
                    rotate = True
                elif name in numbers and value.isascii() and value.isdigit():
                    numbers[name] = int(value)
    return ResolvConf(
        nameservers=tuple(nameservers[:NAMESERVERS_MAX]) or ResolvConf().nameservers,
        search=search[:SEARCH_MAX],
        ndots=min(numbers["ndots"], NDOTS_MAX),
        attempt_timeout_s=float(numbers["timeout"]) if numbers["timeout"] > 0 else 2.0,
        attempts=max(numbers["attempts"], 1),
        rotate=rotate,
    )


def parse_hosts(text: str) -> Mapping[str, tuple[str, ...]]:
    """Lower-case name -> its addresses, IPv4 before IPv6, each family in the order of the file.

    `localhost` is always there, whatever the file says (RFC 6761 section 6.3).
    """
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) < 2:
            continue
        try:
            ip = str(ipaddress.ip_address(words[0].split("%", 1)[0]))
        except ValueError:
            continue
        for name in words[1:]:
            addresses = found.setdefault(name.rstrip(".").lower(), [])
            if ip not in addresses:
                addresses.append(ip)
    found["localhost"] = [ip for ip in found.get("localhost", []) if ":" not in ip] or ["127.0.0.1"]
    return {name: tuple(sorted(addresses, key=lambda ip: ":" in ip)) for name, addresses in found.items()}


def names_to_try(name: str, conf: ResolvConf) -> tuple[str, ...]:
    """The fully qualified names to ask for, in order: the search list before or after the bare name by `ndots`.

    A trailing dot says that the name is complete, which switches the list off.
    """
    if name.endswith("."):
        return (name.rstrip("."),)
    suffixed = tuple(f"{name}.{suffix}" for suffix in conf.search)
    return (name, *suffixed) if name.count(".") >= conf.ndots else (*suffixed, name)


def as_address(text: str) -> str | None:
    """`text` as an IP address without brackets, shortest form, or None when it is a name."""
    if text[-1:].isdigit() or ":" in text:  # no other text is an address, and most hosts are names
        try:
            return str(ipaddress.ip_address(text.strip("[]")))
        except ValueError:
            return None
    return None
