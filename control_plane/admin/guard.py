"""What browsers may do here. Without tokens, a page from elsewhere in the operator's browser is the attacker.

Three rules:

* The `Host` must be an address, `localhost` or a configured name. A page whose own name was made to point at this
  machine (DNS rebinding) sends that name, and gets 421.
* A write from a page of another origin is refused with 403 before its body is read. Browsers tell by `Origin`, by
  `Sec-Fetch-Site` where a page has them hide the origin, and old ones by `Referer`. So forms may be accepted without a
  token: a form on a foreign page carries at least one of them.
* Answers may be read by pages of our own origin and of the configured ones only. Kong allows every origin and even
  credentials; that we do so only where no browser asks is a departure that docs/compatibility.md lists. `Vary` keeps a
  browser from giving a page what it has stored of a request that named no origin.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from control_plane.admin.messages import Headers, Refused

WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
LOCAL = frozenset({"localhost"})
_OWN_PAGES = frozenset({"same-origin", "none"})  # "none" = typed by a person, or no page at all
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Guard:
    """The names this Admin API answers to, and the origins whose pages may use it."""

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    _allowed_hosts: set[str] = field(default_factory=set)  # Host values that were found good; bounded

    def check(self, method: str, headers: Headers) -> None:
        """Raises Refused for what no friendly client sends."""
        host = headers.get("Host", "")
        if host not in self._allowed_hosts:
            if host and not self._host_allowed(host):
                raise Refused(
                    421,
                    f"this Admin API does not answer to the host '{host[:100]}'; "
                    "use its address, or add the name to the setting admin_hosts",
                )
            if len(self._allowed_hosts) < 100:
                self._allowed_hosts.add(host)
        if method not in WRITING:
            return
        origin = headers.get("Origin")
        if origin is not None and not self._origin_allowed(origin, host):
            raise Refused(
                403, f"pages of '{origin[:100]}' may not write here; the setting admin_origins can allow them"
            )
        if origin in self.origins:
            return
        site = headers.get("Sec-Fetch-Site")
        if site is not None and site.lower() not in _OWN_PAGES:
            raise Refused(403, "a page of another origin may not write here; the setting admin_origins can allow it")
        referrer = headers.get("Referer")
        if origin is None and site is None and referrer and not self._origin_allowed(_origin_of(referrer), host):
            raise Refused(403, "a page of another origin may not write here; the setting admin_origins can allow it")

    def sharing(self, headers: Headers) -> dict[str, str]:
        """The headers that tell a browser whether a page may read the answer."""
        origin = headers.get("Origin")
        if origin is None:
            if "Sec-Fetch-Mode" in headers or "Sec-Fetch-Site" in headers:
                return {"Vary": "Origin"}
            return {
                "Access-Control-Allow-Origin": "*",
                "Access-Control-Allow-Credentials": "true",
                "Vary": "Origin",
            }
        if self._origin_allowed(origin, headers.get("Host", "")):
            return {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Credentials": "true",
                "Vary": "Origin",
            }
        return {"Vary": "Origin"}

    def _host_allowed(self, header: str) -> bool:
        found = _HOST.fullmatch(header)
        if found is None:
            return header.lower() in self.hosts
        name = found[1].lower().strip("[]").rstrip(".")
        if name in LOCAL or name.endswith(".localhost") or name in self.hosts or header.lower() in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _origin_allowed(self, origin: str, host: str) -> bool:
        if origin in self.origins:
            return True
        scheme, _, rest = origin.partition("://")
        own = scheme in ("http", "https") and bool(host) and rest.lower() == host.lower()
        return own and self._host_allowed(host)


def _origin_of(address: str) -> str:
    """The origin of a page's address; empty where it has none."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}"
