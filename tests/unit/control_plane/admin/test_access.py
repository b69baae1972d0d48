"""Every path of the Admin API, every method and every role: what is let through equals the policy table."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from control_plane.identity.operators import Operators, Rules
from control_plane.identity.roles import RULES, Role, required
from control_plane.store.contract import Origin
from tests.unit.control_plane.admin.conftest import Client, make_api, tree

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
READING = ("GET", "HEAD")

SECRET = re.compile(r"certificate|/(key-auth|basic-auth|hmac-auth|jwt|oauth2)")
ADMIN_ONLY = (
    "/identity/tokens",
    "/identity/tokens/{token}",
    "/fleet/join-tokens",
    "/fleet/join-tokens/{token}",
    "/fleet/ca/rotate",
    "/fleet/ca/advance",
    "/fleet/nodes/{node_id}/revoke",
    "/fleet/nodes/{node_id}/approve",
)
WEIGHT = "/upstreams/{upstreams}/targets/{targets}"
MANUAL_HEALTH = (
    "/upstreams/{upstreams}/targets/{targets}/healthy",
    "/upstreams/{upstreams}/targets/{targets}/unhealthy",
    "/upstreams/{upstreams}/targets/{targets}/{address}/healthy",
    "/upstreams/{upstreams}/targets/{targets}/{address}/unhealthy",
)
SIDES = ("/fleet/services/{services}/preview", "/fleet/services/{services}/mirror")


@pytest.fixture
def operators(client: Client) -> Operators:
    return Operators(client.store, Rules(required=True, reads_per_s=0, writes_per_s=0))


@pytest.fixture
def guarded(client: Client, operators: Operators) -> Client:
    """The same store behind a door."""
    return Client(make_api(client.store, client.fleet, operators=operators), client.store, client.fleet)


@pytest.fixture
async def tokens(operators: Operators) -> Mapping[Role, str]:
    made = {}
    for role in Role:
        made[role], _ = await operators.create(name=role.value, role=role, ttl_s=None, origin=Origin())
    return made


def expected(method: str, template: str) -> Role:
    """The policy in words of its own, so that a slip in the table shows."""
    reading = method in READING
    if template in ADMIN_ONLY or template.startswith("/audit"):
        return Role.ADMIN
    if template.startswith("/schemas") or template in ("/config/diff", "/config/validate", "/fleet/trace"):
        return Role.VIEWER
    if reading and SECRET.search(template) and "ca_certificates" not in template:
        return Role.EDITOR
    if reading:
        return Role.VIEWER
    moves_traffic = template in (*MANUAL_HEALTH, *SIDES) or (template == WEIGHT and method == "PATCH")
    moves_traffic = moves_traffic or template.startswith("/switches")
    return Role.OPERATOR if moves_traffic else Role.EDITOR


async def test_each_path_method_and_role(guarded: Client, tokens: Mapping[Role, str]) -> None:
    checked = 0
    for template in guarded.api.table.templates():
        found = guarded.api.table.find(template.replace("{", "").replace("}", ""))
        assert found is not None
        methods = [method for method in METHODS if ("GET" if method == "HEAD" else method) in found.methods]
        for method in methods:
            least = required(method, found.template)
            assert least is expected(method, found.template), (method, found.template)
            for role, token in tokens.items():
                answer = await guarded.ask(
                    method, template.replace("{", "").replace("}", ""), headers={"Authorization": f"Bearer {token}"}
                )
                denied = answer.status == 403
                assert denied is not role.covers(least), (method, found.template, role, answer.status, answer.body)
                checked += 1
    assert checked > 400


async def test_nothing_without_a_token(guarded: Client, tokens: Mapping[Role, str]) -> None:
    assert tokens
    for template in [*guarded.api.table.templates(), "/no/such/path"]:
        path = template.replace("{", "").replace("}", "")
        for method in METHODS:
            answer = await guarded.ask(method, path)
            assert answer.status == 401, (method, path)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert (await guarded.ask("OPTIONS", path)).status in (204, 404)
    assert await guarded.store.head() == 0


def test_what_no_rule_names_is_for_admins() -> None:
    assert required("POST", "/brand/new") is Role.ADMIN
    assert required("TRACE", "/services") is Role.ADMIN
    assert all(rule.methods for rule in RULES)


async def test_kong_s_header_works_too(guarded: Client, tokens: Mapping[Role, str]) -> None:
    answer = await guarded.ask("GET", "/identity/self", headers={"Kong-Admin-Token": tokens[Role.VIEWER]})
    assert tree(answer)["role"] == "viewer"


@pytest.mark.parametrize("value", ["Basic dTpw", "Bearer", "Bearer  ", "pmt_x", ""])
async def test_other_credentials(guarded: Client, tokens: Mapping[Role, str], value: str) -> None:
    assert tokens
    assert (await guarded.ask("GET", "/", headers={"Authorization": value})).status == 401


async def test_the_author_of_a_write_is_its_token(guarded: Client, tokens: Mapping[Role, str]) -> None:
    headers = {"Authorization": f"Bearer {tokens[Role.EDITOR]}", "X-Pointsman-Author": "somebody else"}
    assert (await guarded.ask("POST", "/upstreams", {"name": "blue"}, headers=headers)).status == 201
    version = await guarded.store.version(1)
    assert version is not None
    assert version.origin.author == "editor"


async def test_a_token_s_life_over_the_api(guarded: Client, tokens: Mapping[Role, str]) -> None:
    headers = {"Authorization": f"Bearer {tokens[Role.ADMIN]}"}
    made = await guarded.ask(
        "POST", "/identity/tokens", {"name": "ci", "role": "viewer", "ttl_s": 3600}, headers=headers
    )
    assert made.status == 201
    body = tree(made)
    text = body.pop("token")
    assert isinstance(text, str)
    listed = await guarded.ask("GET", "/identity/tokens", headers=headers)
    assert text.encode() not in listed.body
    assert b"hash" not in listed.body
    assert (await guarded.ask("GET", "/", headers={"Authorization": f"Bearer {text}"})).status == 200
    assert (await guarded.ask("DELETE", "/identity/tokens/ci", headers=headers)).status == 204
    assert (await guarded.ask("GET", "/", headers={"Authorization": f"Bearer {text}"})).status == 401
    assert (await guarded.ask("DELETE", "/identity/tokens/none", headers=headers)).status == 404


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"name": "a", "role": "king"}, "role"),
        ({"name": "", "role": "viewer"}, "name"),
        ({"name": "a\nb", "role": "viewer"}, "name"),
        ({"name": "a", "role": "viewer", "ttl_s": 1}, "ttl_s"),
        ({"name": "a", "role": "viewer", "ttl_s": True}, "ttl_s"),
        ({"name": "a", "role": "viewer", "admin": True}, "admin"),
    ],
)
async def test_what_no_token_can_be_made_of(
    guarded: Client, tokens: Mapping[Role, str], body: dict[str, str], word: str
) -> None:
    answer = await guarded.ask(
        "POST", "/identity/tokens", dict(body), headers={"Authorization": f"Bearer {tokens[Role.ADMIN]}"}
    )
    assert answer.status == 400
    assert word in str(tree(answer)["message"])
