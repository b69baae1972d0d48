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
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from typing_extensions import override

from control_plane.entities.types import EntityBody

CHECKED = (
    "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)  # fmt: skip
EACH_MAX = 50
"""Of one operation in a row; more calls come in further rounds, over what the others have left behind."""
PLANTED: Mapping[str, tuple[str, EntityBody]] = {
    "services": ("/services/planted", {"host": "planted"}),
    "routes": ("/routes/planted", {"paths": ["/planted"]}),
    "upstreams": ("/upstreams/planted", {}),
    "consumers": ("/consumers/planted", {}),
    "keyauth_credentials": ("/consumers/planted/key-auth/planted", {}),
    "jwt_secrets": ("/consumers/planted/jwt/planted", {}),
    "hmacauth_credentials": ("/consumers/planted/hmac-auth/planted", {}),
    "acls": ("/consumers/planted/acls/planted", {}),
}
"""What placeholders are filled with, by name, and how it is made."""
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
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]
    made = Calls(operations=len(operations))
    shuffled = random.Random(seed)
    session = requests.Session()
    each = min(EACH_MAX, max(1, round(calls / len(operations))))
    round_ = 0
    while made.sent < calls:
        shuffled.shuffle(operations)
        for operation in operations:
            if made.sent >= calls:
                break
            _plant(url, session, operation.path)
            _call(operation, made, each, seed=seed + round_, shuffled=shuffled)
        round_ += 1
    return made


def _plant(url: str, session: requests.Session, path: str) -> None:
    """Makes what the path's placeholders can name, parents first; a call before may have deleted it."""
    for name, (where, body) in PLANTED.items():
        if f"{{{name}}}" in path:
            done = session.put(f"{url}{where}", json=body, timeout=30)
            assert done.status_code in (200, 404, 409), done.text  # below a parent that is not there; taken by a rename


def _lead_somewhere(case: Case[Any], number: int) -> None:
    """Two calls of three go to entities that are there; a random name leads to 404 and nothing else."""
    if number % 3 and case.path_parameters:
        for name in case.path_parameters:
            if name in PLANTED:
                case.path_parameters[name] = PLANTED[name][0].rpartition("/")[2]


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
    """Three right ones to two wrong ones."""
    wrong = count * 2 // 5 if count > 1 else int(shuffled.random() < 0.4)
    if count - wrong:
        yield GenerationMode.POSITIVE, count - wrong
    if wrong:
        yield GenerationMode.NEGATIVE, wrong
