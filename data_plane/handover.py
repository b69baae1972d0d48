"""What a worker is told on its command line: the settings that never change while it lives, as one JSON text.

Written by the node process and read by the worker's start, so both read and write live here. No secret may go in:
command lines are visible to everybody on the machine.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from dataclasses import dataclass, field

from data_plane.proxy.settings import ProxySettings
from pointsman.logs import LogFormat, LogLevel


@dataclass(frozen=True, slots=True)
class Handover:
    """Settings of one worker. `backlogs` has one number for each inherited socket, in order."""

    proxy: ProxySettings = field(default_factory=ProxySettings)
    backlogs: tuple[int, ...] = ()
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT

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
                "log_level": self.log_level.value,
                "log_format": self.log_format.value,
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
        return cls(
            proxy=ProxySettings(**proxy),
            backlogs=tuple(given["backlogs"]),
            log_level=LogLevel(given["log_level"]),
            log_format=LogFormat(given["log_format"]),
        )
