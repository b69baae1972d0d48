"""What a worker is told on its command line: the settings that never change while it lives, as one JSON text.

Written by the node process and read by the worker's start, so both read and write live here. No secret may go in:
command lines are visible to everybody on the machine.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_plane.flavours import RouterFlavour
from data_plane.observe.access_log import AccessLogFormat, AccessLogSettings
from data_plane.observe.traffic import SERIES_MAX
from data_plane.proxy.settings import ProxySettings
from pointsman.logs import LogFormat, LogLevel

PAIRS_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Handover:
    """Settings of one worker. `backlogs` has one number for each inherited socket, in order."""

    proxy: ProxySettings = field(default_factory=ProxySettings)
    backlogs: tuple[int, ...] = ()
    tls: tuple[bool, ...] = ()  # whether each of the sockets begins with a handshake; empty = none does
    proxy_protocol: tuple[bool, ...] = ()  # whether each begins with a PROXY header before that; empty = none does
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT
    node_id: str = ""
    access_log: AccessLogSettings = field(default_factory=AccessLogSettings)
    series_max: int = SERIES_MAX
    router_flavour: RouterFlavour = RouterFlavour.TRADITIONAL_COMPATIBLE

    def to_json(self) -> str:
        """The text for the command line; only what differs from the defaults."""
        standard = ProxySettings()
        proxy: dict[str, object] = {}
        for each in dataclasses.fields(ProxySettings):
            value = getattr(self.proxy, each.name)
            if value != getattr(standard, each.name):
                proxy[each.name] = [str(network) for network in value] if each.name == "trusted_ips" else value
        return json.dumps(
            {
                "proxy": proxy,
                "backlogs": self.backlogs,
                "tls": self.tls,
                "proxy_protocol": self.proxy_protocol,
                "log_level": self.log_level.value,
                "log_format": self.log_format.value,
                "node_id": self.node_id,
                "access_log": dataclasses.asdict(self.access_log),
                "series_max": self.series_max,
                "router_flavour": self.router_flavour.value,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Handover:
        """The inverse; raises ValueError or TypeError on what no node process of this version writes."""
        given = json.loads(text)
        proxy = dict(given["proxy"])
        if "trusted_ips" in proxy:
            proxy["trusted_ips"] = tuple(ipaddress.ip_network(network) for network in proxy["trusted_ips"])
        if "port_maps" in proxy:
            proxy["port_maps"] = tuple((inside, outside) for inside, outside in proxy["port_maps"])
        return cls(
            proxy=ProxySettings(**proxy),
            backlogs=tuple(given["backlogs"]),
            tls=tuple(given["tls"]),
            proxy_protocol=tuple(given["proxy_protocol"]),
            log_level=LogLevel(given["log_level"]),
            log_format=LogFormat(given["log_format"]),
            node_id=given["node_id"],
            access_log=AccessLogSettings(
                path=given["access_log"]["path"],
                format=AccessLogFormat(given["access_log"]["format"]),
                queue_max=given["access_log"]["queue_max"],
            ),
            series_max=given["series_max"],
            router_flavour=RouterFlavour(given["router_flavour"]),
        )


Pair = tuple[str, str]
"""A certificate with its chain, and its private key, as PEM texts."""


def pairs_to_bytes(pairs: Sequence[Pair]) -> bytes:
    """What the memory file of default pairs holds; it has a key in it and belongs nowhere else."""
    return json.dumps(pairs).encode()


def read_pairs(descriptor: int) -> list[Pair]:
    """Read that file. Workers share its descriptor and with it its position, so each reads from the start."""
    return [(certificate, key) for certificate, key in json.loads(os.pread(descriptor, PAIRS_BYTES_MAX, 0))]
