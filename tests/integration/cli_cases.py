"""Command lines whose output is held by golden files, beside those of `test_cli_golden.py`: who may do what, events,
contexts, and the kinds of entities that are listed and shown by the same code as services."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pointsman.cli.contexts import Contexts, Target, write_contexts
from pointsman.cli.entities import KINDS
from pointsman.cli.json_values import Json, JsonObject
from tests.integration.cli_admin import FakeAdmin


@dataclass(frozen=True)
class Case:
    """A command line and the answers it finds; `formats` are the ways it is run."""

    name: str
    arguments: list[str]
    prepare: Callable[[FakeAdmin], object]
    formats: tuple[str, ...] = ("table", "json")


ID = "66666666-6666-4666-8666-666666666666"
ANN: JsonObject = {"id": "77777777-7777-4777-8777-777777777777"}
AT = 1700000000
NODE = "4ef3b2c4-9d5c-4ce8-9bb1-7a1c5ad7eb0f"
TOKEN: JsonObject = {
    "id": "5f0c2e9ab41d", "name": "ci", "role": "editor", "created_at": AT, "expires_at": 4_000_000_000,
    "last_used_at": AT + 60, "revoked_at": None,
}  # fmt: skip
JOIN: JsonObject = {
    "id": "0a1b2c3d4e5f", "state": "used up", "uses": 1, "used_by": [NODE], "created_at": AT, "expires_at": AT + 3600,
    "labels": {"zone": "a"},
}  # fmt: skip
AUTHORITIES: JsonObject = {
    "state": "distributing",
    "authorities": [
        {"place": "issuing", "fingerprint": "ab:cd", "since": AT, "not_after": AT + 86_400},
        {"place": "next", "fingerprint": "12:34", "since": AT + 60, "not_after": AT + 172_800},
    ],
    "missing": [{"node_id": NODE, "until": AT + 3600}],
}
REFUSED: JsonObject = {
    "node_id": NODE, "hostname": "dp-9", "address": "10.0.0.9", "reason": "revoked", "times": 3, "last_at": AT,
    "message": "this node was revoked",
}  # fmt: skip
SWITCHED: JsonObject = {"switch": 7, "services": [{"name": "shop", "from": "blue", "to": "green"}], "author": "ann"}
EVENTS: list[tuple[str, JsonObject]] = [
    ("version", {"version": 9, "author": "ann", "reason": "release 2.7.1", "change_count": 1}),
    ("node", {"node_id": NODE, "hostname": "dp-1", "state": "rejected", "faults": ["no regex"], "reason": ""}),
    ("rollout", {"rollout": 6, "state": "aborted", "ended_because": "dp-2 refused", "author": "", "reason": ""}),
    ("switch", {**SWITCHED, "state": "scheduled", "ended_because": "", "reason": "tonight", "begins_at": AT + 3600}),
    ("switch", {**SWITCHED, "state": "watching", "step": 1, "share_percent": 5.0, "broken_gate": None}),
    ("switch", {**SWITCHED, "state": "confirmed", "took_s": 0.182, "safe_to_tear_down": True, "reason": "2.7.1"}),
    ("gap", {"missed": 12}),
]
COUNT = str(len(EVENTS))
EXAMPLES: dict[str, JsonObject] = {
    "consumer": {"id": ID, "username": "ann", "custom_id": "17", "tags": None},
    "certificate": {"id": ID, "cert": "-----BEGIN CERTIFICATE-----", "key": None, "snis": ["a.example"], "tags": None},
    "sni": {"id": ID, "name": "a.example", "certificate": {"id": ANN["id"]}, "tags": ["shop"]},
    "ca-certificate": {"id": ID, "cert": "-----BEGIN CERTIFICATE-----", "cert_digest": "ab" * 8, "tags": None},
    "plugin": {"id": ID, "name": "cors", "enabled": False, "service": ANN, "config": {"origins": ["*"]}},
    "key-auth": {"id": ID, "key": "SECRET", "consumer": ANN, "tags": None, "ttl": None},
    "basic-auth": {"id": ID, "username": "ann", "password": "hash", "consumer": ANN, "tags": None},
    "hmac-auth": {"id": ID, "username": "ann", "secret": "SECRET", "consumer": ANN, "tags": None},
    "jwt": {"id": ID, "key": "issuer", "algorithm": "HS256", "secret": "SECRET", "consumer": ANN, "tags": None},
    "acl": {"id": ID, "group": "staff", "consumer": ANN, "tags": None},
    "oauth2": {"id": ID, "name": "app", "client_id": "app-1", "redirect_uris": ["https://a.example"], "consumer": ANN},
}


def _stream(admin: FakeAdmin) -> None:
    text = "retry: 1000\n\n"
    for number, (kind, data) in enumerate(EVENTS, 1):
        event = {"id": f"a-{number}", "type": kind, "at": AT + number, "data": data}
        text += f"id: a-{number}\nevent: {kind}\ndata: {json.dumps(event)}\n\n"
    admin.answer("GET", "/events?after=0", text=text)


def _contexts(_admin: FakeAdmin) -> None:
    prod = Target("https://admin.example:8444", "SECRET", "/etc/pointsman/ca.pem")
    path = Path(os.environ["POINTSMAN_CONTEXTS"])
    write_contexts(path, Contexts("prod", {"prod": prod, "test": Target("http://10.0.0.1:8001", read_only=True)}))


def _of_kinds() -> list[Case]:
    """Each kind's list and one of it: their columns are what differs; the other verbs are those of services."""
    made = []
    for kind in KINDS:
        if (entity := EXAMPLES.get(kind.name)) is None:
            continue
        listed: JsonObject = {"data": [entity], "next": None}
        key = str(entity[kind.key])
        at = kind.where
        made += [
            Case(f"{kind.name}-list", [kind.name, "list"],
                 _said("GET", f"{at}?size=1000", listed)),
            Case(f"{kind.name}-get", [kind.name, "get", key],
                 _said("GET", f"{at}/{key}", entity)),
        ]  # fmt: skip
    return made


def _said(method: str, path: str, body: Json = None, *, status: int = 200) -> Callable[[FakeAdmin], object]:
    return lambda admin: admin.answer(method, path, body, status=status)


TARGETS = "/upstreams/blue/targets"
TARGET: JsonObject = {"id": ID, "target": "10.0.0.1:80", "weight": 50, "upstream": ANN, "tags": None}

OTHER_CASES = [
    Case("events", ["events", "--after", "0", "--count", COUNT], _stream),
    Case("whoami", ["whoami"], _said("GET", "/identity/self", {"name": "ci", "role": "editor"})),
    Case("token-create", ["token", "create", "--name", "ci", "--role", "editor", "--ttl", "90d"],
         _said("POST", "/identity/tokens", {**TOKEN, "token": "pmt_SECRET"}, status=201)),
    Case("token-create-no-time", ["token", "create", "--name", "ci", "--role", "editor", "--ttl", "soon"],
         lambda _: None),
    Case("token-list", ["token", "list"], _said("GET", "/identity/tokens", {"data": [TOKEN]})),
    Case("token-list-none", ["token", "list"], _said("GET", "/identity/tokens", {"data": []})),
    Case("token-revoke", ["token", "revoke", "ci"], _said("DELETE", "/identity/tokens/ci", status=204)),
    Case("join-token-create", ["join-token", "create", "--labels", "zone=a"],
         _said("POST", "/fleet/join-tokens", {**JOIN, "token": "pmj_SECRET"}, status=201)),
    Case("join-token-list", ["join-token", "list"], _said("GET", "/fleet/join-tokens", {"data": [JOIN]})),
    Case("join-token-revoke", ["join-token", "revoke", "0a1b2c3d4e5f"],
         _said("DELETE", "/fleet/join-tokens/0a1b2c3d4e5f", status=204)),
    Case("node-revoke", ["node", "revoke", NODE], _said("POST", f"/fleet/nodes/{NODE}/revoke", {})),
    Case("node-approve", ["node", "approve", NODE], _said("POST", f"/fleet/nodes/{NODE}/approve", {})),
    Case("node-refused", ["node", "refused"], _said("GET", "/fleet/refusals", {"data": [REFUSED]})),
    Case("ca-show", ["ca", "show"], _said("GET", "/fleet/ca", AUTHORITIES)),
    Case("ca-rotate", ["ca", "rotate"], _said("POST", "/fleet/ca/rotate", AUTHORITIES)),
    Case("ca-advance", ["ca", "advance"], _said("POST", "/fleet/ca/advance", AUTHORITIES)),
    Case("context-list", ["context", "list"], _contexts),
    Case("context-list-none", ["context", "list"], lambda _: None),
    Case("context-set", ["context", "set", "test"], _contexts),
    Case("context-use", ["context", "use", "test"], _contexts),
    Case("context-delete", ["context", "delete", "prod"], _contexts),
    Case("context-delete-missing", ["context", "delete", "nope"], _contexts),
    Case("target-create", ["target", "create", "target=10.0.0.1:80", "weight=50", "-u", "blue"],
         _said("POST", TARGETS, TARGET, status=201)),
    Case("target-delete", ["target", "delete", "10.0.0.1:80", "-u", "blue"],
         lambda a: a.answer("GET", f"{TARGETS}/10.0.0.1%3A80", TARGET)
                    .answer("DELETE", f"{TARGETS}/10.0.0.1%3A80", status=204)),
    *_of_kinds(),
]  # fmt: skip
