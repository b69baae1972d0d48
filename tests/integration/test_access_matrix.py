"""Every operation of the OpenAPI document with every kind of credential: who is let in equals the policy table.

The document is the one that a running control plane answers, with a fleet behind it, so that rollouts and switches are
part of it. The policy is what `test_access.py` says in words of its own; an operation that it has no words for is found
by its default, which is stricter than most.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from control_plane.admin.api import AdminApi
from control_plane.admin.information import Connections, Identity
from control_plane.admin.messages import Answer
from control_plane.admin.parts import Parts
from control_plane.fleet.fleet import Fleet
from control_plane.fleet.settings import FleetSettings
from control_plane.identity import operators as identity
from control_plane.identity.operators import Operators, Rules
from control_plane.identity.roles import Role, required
from control_plane.snapshot.consistency import before_commit
from control_plane.store.contract import Origin
from control_plane.store.sql_store import SqlStore
from control_plane.store.sqlite import open_sqlite
from control_plane.switching.canaries import Canaries
from control_plane.switching.schedule import Schedule
from control_plane.switching.switches import Switches
from tests.support.patience import PATIENCE_S
from tests.unit.control_plane.admin.calls import call
from tests.unit.control_plane.admin.conftest import tree
from tests.unit.control_plane.admin.test_access import expected

UNKNOWN = "pmt_000000000000_" + "A" * 43
MALFORMED = (
    "", " ", "Bearer", "pmt_", "pmt_000000000000_", UNKNOWN[:-1], UNKNOWN + "A", UNKNOWN.upper(), "' OR 1=1 --", "null",
    "\x00", "é", "A" * 7_000,
)  # fmt: skip


@dataclass(frozen=True)
class Plane:
    api: AdminApi
    store: SqlStore

    async def ask(self, method: str, path: str, token: str | None, *, header: str = "Authorization") -> Answer:
        value = None if token is None else token if header != "Authorization" else f"Bearer {token}"
        return await self.api.answer(call(method, path, headers={} if value is None else {header: value}))


@pytest.fixture
async def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plane]:
    monkeypatch.setattr(identity, "FAILURES_PER_MINUTE", 1_000_000)
    store = await open_sqlite(tmp_path / "store.db", before_commit=before_commit)
    fleet = Fleet(store, FleetSettings(listen="127.0.0.1:0", canary_wait_s=0))
    await fleet.start()
    api = AdminApi(
        Parts(
            store=store,
            fleet=fleet,
            operators=Operators(store, Rules(required=True, reads_per_s=0, writes_per_s=0)),
            switches=Switches(store, fleet.rollouts, fleet, Canaries(store, fleet.rollouts, fleet), Schedule(store)),
        ),
        identity=Identity(node_id="-", admin_address=lambda: "127.0.0.1:8001"),
        connections=lambda: Connections(accepted=0, active=0, requests=0, writing=0),
    )
    yield Plane(api, store)
    await fleet.stop()
    await store.close()


async def token_of(plane: Plane, role: Role, name: str, *, at: float | None = None) -> str:
    """A token, made now or at another time, good for an hour."""
    maker = Operators(plane.store) if at is None else Operators(plane.store, wall=lambda: at)
    text, _ = await maker.create(name=name, role=role, ttl_s=3600, origin=Origin())
    return text


@pytest.fixture
async def good(plane: Plane) -> Mapping[Role, str]:
    return {role: await token_of(plane, role, role.value) for role in Role}


@pytest.fixture
async def bad(plane: Plane) -> Mapping[str, str | None]:
    """Credentials of an admin that are none any more, and what never was one."""
    revoked = await token_of(plane, Role.ADMIN, "revoked")
    await Operators(plane.store).revoke("revoked", origin=Origin())
    other = await token_of(plane, Role.ADMIN, "other")
    return {
        "none": None,
        "expired": await token_of(plane, Role.ADMIN, "expired", at=0.0),
        "revoked": revoked,
        "unknown": UNKNOWN,
        "of another secret": other[:-4] + ("AAAA" if not other.endswith("AAAA") else "BBBB"),
        "malformed": "pmt_x",
    }


async def operations(plane: Plane, token: str) -> list[tuple[str, str]]:
    """(method, path template) of the document, with HEAD wherever GET is."""
    paths = tree(await plane.ask("GET", "/openapi.json", token))["paths"]
    assert isinstance(paths, dict)
    found = []
    for path, item in paths.items():
        assert isinstance(item, dict)
        methods = [method.upper() for method in item if method != "parameters"]
        found += [(method, path) for method in [*methods, *(["HEAD"] if "GET" in methods else [])]]
    return found


def example(path: str) -> str:
    """A path of nothing that is there."""
    return re.sub(r"\{([^}]*)\}", r"\1", path)


async def test_every_operation_with_every_role(plane: Plane, good: Mapping[Role, str]) -> None:
    document = await operations(plane, good[Role.ADMIN])
    served = {(method, re.sub(r"\{[^}]*\}", "{}", path)) for path, method, _ in plane.api.table.operations()}
    assert {(method, re.sub(r"\{[^}]*\}", "{}", path)) for method, path in document if method != "HEAD"} == served
    for method, path in (("POST", "/switches"), ("POST", "/fleet/rollouts"), ("GET", "/fleet/rollouts/{rollout}")):
        assert (method, path) in document
    for method, path in document:
        found = plane.api.table.find(example(path))
        assert found is not None, path
        least = required(method, found.template)
        assert least is expected(method, found.template), (method, path, least)
        for role, token in good.items():
            async with asyncio.timeout(PATIENCE_S):
                answer = await plane.ask(method, example(path), token)
            assert (answer.status == 403) is not role.covers(least), (method, path, role, answer.status, answer.body)
            assert answer.status not in (401, 429), (method, path, role, answer.status)


async def test_no_operation_without_a_good_token(
    plane: Plane, good: Mapping[Role, str], bad: Mapping[str, str | None]
) -> None:
    document = await operations(plane, good[Role.ADMIN])
    before = await plane.store.read(lambda tx: (tx.head(), len(list(tx.identities.each(identity.KIND)))))
    for method, path in document:
        for kind, token in bad.items():
            answer = await plane.ask(method, example(path), token)
            assert answer.status == 401, (method, path, kind, answer.status)
            assert "Bearer" in answer.headers["WWW-Authenticate"], (method, path, kind)
            assert b"data" not in answer.body, (method, path, kind)
    assert await plane.store.read(lambda tx: (tx.head(), len(list(tx.identities.each(identity.KIND))))) == before


@pytest.mark.parametrize("header", ["Authorization", "Kong-Admin-Token"])
async def test_what_is_no_token(plane: Plane, good: Mapping[Role, str], header: str) -> None:
    for text in (*MALFORMED, *(token[:-1] for token in good.values()), good[Role.ADMIN].swapcase()):
        assert (await plane.ask("GET", "/services", text, header=header)).status == 401, text
    assert (await plane.ask("GET", "/services", good[Role.VIEWER], header=header)).status == 200


async def test_a_token_in_the_address_or_a_cookie_is_none(plane: Plane, good: Mapping[Role, str]) -> None:
    token = good[Role.ADMIN]
    for name in ("token", "access_token", "kong_admin_token"):
        assert (await plane.ask("GET", f"/services?{name}={token}", None)).status == 401
    assert (await plane.ask("GET", "/services", f"session={token}", header="Cookie")).status == 401


async def test_other_spellings_of_a_path_lead_past_no_rule(plane: Plane, good: Mapping[Role, str]) -> None:
    """What a viewer may not read or write under one spelling, he may under none."""
    for method, path in (("GET", "/certificates"), ("GET", "/identity/tokens"), ("POST", "/services")):
        for odd in (path + "/", path.upper(), path.replace("/", "//", 1), f"/.{path}", f"{path}/.", f"/x/..{path}",
                    path.replace("e", "%65"), f"{path};x=1", f"{path}%00", f"{path}%2f"):  # fmt: skip
            answer = await plane.ask(method, odd, good[Role.VIEWER])
            assert answer.status in (400, 403, 404, 405), (odd, answer.status, answer.body)
    assert await plane.store.head() == 0


async def test_a_batch_may_do_what_its_caller_may(plane: Plane, good: Mapping[Role, str]) -> None:
    operations = b'{"operations":[{"method":"POST","path":"/identity/tokens","body":{"name":"x","role":"admin"}}]}'
    for role in (Role.VIEWER, Role.OPERATOR, Role.EDITOR):
        headers = {"Authorization": f"Bearer {good[role]}"}
        asked = call("POST", "/batch", operations, content_type="application/json", headers=headers)
        answer = await plane.api.answer(asked)
        assert answer.status in (400, 403), (role, answer.status, answer.body)
    assert len(await Operators(plane.store).records()) == len(Role)
