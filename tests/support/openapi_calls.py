"""Calls made of the OpenAPI document, sent to a real control plane: is every answer one that the document knows?

For each operation Schemathesis makes so many calls, right ones and wrong ones. An answer breaks the document when it is
a 5xx (503 and 504 where no node is there to ask are the document's business, and told apart), when it has a status,
content type or body that the document does not give, or when it is not there.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from typing_extensions import override

from control_plane.entities.types import EntityBody
from tests.support.patience import PATIENCE_S
from tests.support.tls import self_signed_authority

CHECKED = (
    "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)  # fmt: skip
ENDLESS = ("/events",)
"""Paths whose answers go on for ever."""
EACH_MAX = 50
"""Of one operation in a row; more calls come in further rounds, over what the others have left behind."""


FEW = 4
"""Calls of one operation in a row that are all right or all wrong."""


def _id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


_CHECKED_HEALTH: EntityBody = {"passive": {"unhealthy": {"tcp_failures": 1}}}
_PAIR = self_signed_authority()
_CERTIFICATE, _CONSUMER = _id(1), _id(2)
PLANTED: Mapping[str, tuple[str, str, EntityBody]] = {
    "certificates": (_CERTIFICATE, f"/certificates/{_CERTIFICATE}", {"cert": _PAIR.cert, "key": _PAIR.key}),
    "snis": ("planted.test", f"/snis/{_id(3)}", {"name": "planted.test", "certificate": {"id": _CERTIFICATE}}),
    "ca_certificates": (_id(4), f"/ca_certificates/{_id(4)}", {"cert": _PAIR.cert}),
    "services": ("planted", f"/services/{_id(5)}", {"name": "planted", "host": "planted"}),
    "routes": ("planted", f"/routes/{_id(6)}", {"name": "planted", "paths": ["/"], "service": {"id": _id(5)}}),
    "upstreams": ("planted", f"/upstreams/{_id(7)}", {"name": "planted", "healthchecks": _CHECKED_HEALTH}),
    "targets": ("planted:80", f"/upstreams/{_id(7)}/targets", {"target": "planted:80"}),
    "consumers": ("planted", f"/consumers/{_CONSUMER}", {"username": "planted"}),
    "keyauth_credentials": ("planted", f"/consumers/{_CONSUMER}/key-auth/{_id(8)}", {"key": "planted"}),
    "basicauth_credentials": (
        "planted",
        f"/consumers/{_CONSUMER}/basic-auth/{_id(9)}",
        {"username": "planted", "password": "p"},
    ),
    "hmacauth_credentials": ("planted", f"/consumers/{_CONSUMER}/hmac-auth/{_id(10)}", {"username": "planted"}),
    "jwt_secrets": ("planted", f"/consumers/{_CONSUMER}/jwt/{_id(11)}", {"key": "planted"}),
    "acls": ("planted", f"/consumers/{_CONSUMER}/acls/{_id(12)}", {"group": "planted"}),
    "oauth2_credentials": (
        "planted",
        f"/consumers/{_CONSUMER}/oauth2/{_id(13)}",
        {"client_id": "planted", "name": "p"},
    ),
}
"""What placeholders are filled with, by name: the key in the path, where it is made, and of what."""
FILLED: Mapping[str, str] = {"version": "1", "address": "127.0.0.1:80", "name": "cors", "tags": "planted"}
"""What other placeholders are filled with."""
_REFERRED = {
    "service": _id(5), "route": _id(6), "upstream": _id(7), "consumer": _CONSUMER, "certificate": _CERTIFICATE,
    "client_certificate": _CERTIFICATE,
}  # fmt: skip
_TLS_ONLY = ("client_certificate", "tls_verify", "tls_verify_depth", "ca_certificates")
_WORD = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
_NAME = st.lists(_WORD, min_size=1, max_size=3).map(".".join)
_IP = st.ip_addresses(v=4).map(str)
FORMATS: Mapping[str, st.SearchStrategy[str]] = {
    "host": _NAME | _IP,
    "host-name": _NAME,
    "host-and-port": st.builds("{}:{}".format, _NAME, st.integers(0, 65535)) | _NAME,
    "ip-and-port": st.builds("{}:{}".format, _IP, st.integers(1, 65535)),
    "ip-or-cidr": _IP | st.builds("{}/{}".format, _IP, st.integers(0, 32)),
    "route-host": _NAME | _NAME.map("*.{}".format) | _NAME.map("{}.*".format),
    "route-path": _WORD.map("/{}".format) | _WORD.map("~/{}$".format) | st.just("/"),
    "sni": _NAME | _NAME.map("*.{}".format),
    "upstream-name": _NAME,
    "uri": _NAME.map("https://{}/".format),
    "pem-certificate": st.just(_PAIR.cert),
    "pem-private-key": st.just(_PAIR.key),
    "pem-public-key": st.just("-----BEGIN PUBLIC KEY-----"),
}
"""Texts of the document's own formats."""
_ABOVE: Mapping[str, tuple[str, ...]] = {
    "routes": ("services",),
    "snis": ("certificates",),
    "targets": ("upstreams",),
    **{name: ("consumers",) for name in PLANTED if name.endswith(("_credentials", "_secrets")) or name == "acls"},
}
"""What must be there for it, by name."""
_REFERRED_MOST = ("certificates", "services", "consumers")
"""What bodies refer to most."""
_SELDOM_RIGHT = ("If-Match", "Idempotency-Key", "X-Pointsman-Reason", "dry_run", "offset", "balancer_health")
"""Arguments and headers with which a call made at random is refused before its body is looked at."""
NODELESS = ("/fleet/trace",)
"""Paths that only a live node can answer; 503 is right where there is none."""


_Operation = APIOperation[Any, Any, Any, Any]


@dataclass(slots=True)
class Calls:
    """What was sent and what came back."""

    operations: int = 0
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)

    @override
    def __str__(self) -> str:
        told = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return f"{self.sent} calls of {self.operations} operations; {told}"


def call_everything(url: str, *, calls: int, seed: int) -> Calls:
    """Sends at least `calls` calls, spread evenly. Raises at the first answer that breaks the document."""
    for name, strategy in FORMATS.items():
        schemathesis.openapi.format(name, strategy)
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    every = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]
    operations = [one for one in every if one.path not in ENDLESS]
    made = Calls(operations=len(operations))
    refusing = [
        one for one in operations if not any(status.startswith("2") for status in one.definition.raw["responses"])
    ]
    shuffled = random.Random(seed)
    session = requests.Session()
    each = min(EACH_MAX, max(1, round(calls / len(operations))))
    round_ = 0
    there: set[str] = set()
    while made.sent < calls:
        shuffled.shuffle(operations)
        for operation in operations:
            if made.sent >= calls:
                break
            _plant(url, session, operation, there)
            _call(operation, made, each, seed=seed + round_, shuffled=shuffled)
        round_ += 1
        if round_ == 1:  # whatever is sent to them, they answer the same
            operations = [one for one in operations if one not in refusing]
    return made


def _plant(url: str, session: requests.Session, operation: _Operation, there: set[str]) -> None:
    """Makes what the path's placeholders can name and bodies refer to, parents first, unless it is `there`."""
    wanted = {name for name in PLANTED if f"{{{name}}}" in operation.path}
    wanted |= {above for name in wanted for above in _ABOVE.get(name, ())}
    if operation.body:
        wanted.update(_REFERRED_MOST)
    for name, (_, where, body) in PLANTED.items():
        if name in wanted - there:
            method = "POST" if name == "targets" else "PUT"
            done = session.request(method, f"{url}{where}", json=body, timeout=PATIENCE_S)
            # 404: below a parent that is not there. 409 and 400: a call took its name, or names what it needs.
            assert done.status_code in (200, 201, 400, 404, 409), done.text
            there.add(name)
    if operation.method.upper() != "GET":
        there.clear()  # it may delete or rename them


def _lead_somewhere(case: Case[Any], number: int) -> None:
    """Two calls of three go to entities that are there, name such, and keep the rules between fields.

    A random name leads to 404 and nothing else, and most random entities break a rule that JSON Schema can't say.
    """
    if not number % 3:
        return
    for name in case.path_parameters or ():
        known = name.rstrip("_")
        if known in PLANTED:
            case.path_parameters[name] = PLANTED[known][0]
        elif known in FILLED:
            case.path_parameters[name] = FILLED[known]
    for name in _SELDOM_RIGHT:
        if case.headers:
            case.headers.pop(name, None)
        if case.query:
            case.query.pop(name, None)
    if isinstance(case.body, dict):
        _mend(case.body)


def _mend(body: dict[str, Any]) -> None:
    for name, entity_id in _REFERRED.items():
        if isinstance(body.get(name), dict):
            body[name] = {"id": entity_id}
    if body.get("protocol", "http") not in ("https", "tls"):
        for name in _TLS_ONLY:
            body.pop(name, None)
    if body.get("protocol", "http") not in ("http", "https"):
        body.pop("path", None)
    body.pop("ca_certificates", None)
    for name in [name for name in body if name.startswith(("hash_", "sticky_", "cert_alt", "key_alt"))]:
        del body[name]
    if body.get("algorithm") == "sticky-sessions" or not str(body.get("algorithm", "HS")).startswith("HS"):
        body.pop("algorithm", None)
    if "strip_path" in body or "paths" in body or "protocols" in body:
        body.update(protocols=["http"], paths=body.get("paths") or ["/planted"])
        for name in ("snis", "sources", "destinations"):
            body.pop(name, None)


def _call(operation: _Operation, made: Calls, each: int, *, seed: int, shuffled: random.Random) -> None:
    checks: list[Any] = [CHECKS.get_one(name) for name in CHECKED]
    # A path segment is any text: nothing wrong can be said there, and looking for it takes long.
    sayable = bool(operation.body) or bool(operation.query)
    for mode, count in _modes(each, shuffled) if sayable else [(GenerationMode.POSITIVE, each)]:
        strategy = operation.as_strategy(generation_mode=mode)

        @seeded(seed)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def send(case: Case[Any]) -> None:
            _lead_somewhere(case, made.sent)
            response = case.call()
            made.sent += 1
            made.statuses[response.status_code] += 1
            refused_for_want_of_a_node = response.status_code == 503 and case.path in NODELESS
            assert response.status_code < 500 or refused_for_want_of_a_node, (
                f"{response.status_code} {response.text[:500]}\n{case.as_curl_command()}"
            )
            case.validate_response(response, checks=checks)

        with contextlib.suppress(Unsatisfiable):  # nothing about this operation can be said wrongly
            send()


def _modes(count: int, shuffled: random.Random) -> Iterator[tuple[GenerationMode, int]]:
    """Three right ones to two wrong ones; a few are all of one kind, since what takes long is to begin with a kind."""
    wrong = count * 2 // 5 if count > FEW else count * int(shuffled.random() < 0.4)
    if count - wrong:
        yield GenerationMode.POSITIVE, count - wrong
    if wrong:
        yield GenerationMode.NEGATIVE, wrong
