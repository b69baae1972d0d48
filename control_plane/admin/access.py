"""The door of the Admin API: who calls, whether the policy lets them, and the pages about tokens.

A token comes as `Authorization: Bearer ...`, or as `Kong-Admin-Token`, which is what Kong's tools can send.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from control_plane.admin.bodies import parse_json
from control_plane.admin.messages import Answer, Call, Refused, entity_page, json_answer, not_found
from control_plane.admin.operations import JSON, Operation
from control_plane.admin.table import PathTable
from control_plane.admin.writes import origin_of
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.identity.operators import Denied, Operators
from control_plane.identity.roles import Role, required

_TOKEN_SCHEMA: EntityBody = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "role": {"type": "string", "enum": [role.value for role in Role]},
        "created_at": {"type": "number"},
        "created_by": {"type": "string"},
        "expires_at": {"type": ["number", "null"]},
        "revoked_at": {"type": ["number", "null"]},
        "last_used_at": {"type": ["number", "null"]},
        "token": {"type": "string", "description": "The token itself; only in the answer that makes it."},
    },
    "required": ["id", "name", "role"],
}
_SELF = Operation(
    summary="Say who calls and what they may do",
    answers={
        200: {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "role": {"type": "string"},
                "token_id": {"type": "string"},
                "login": {"type": "boolean"},
            },
            "required": ["name", "role"],
        }
    },
)
_LIST = Operation(
    summary="List the operators' tokens",
    answers={200: {"type": "object", "properties": {"data": {"type": "array", "items": _TOKEN_SCHEMA}}}},
)
_GET = Operation(summary="Show a token by its id or name", answers={200: _TOKEN_SCHEMA})
_CREATE = Operation(
    summary="Make a token",
    body={
        JSON: {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 100},
                "role": {"type": "string", "enum": [role.value for role in Role]},
                "ttl_s": {"type": ["number", "null"], "minimum": 60},
            },
            "required": ["name", "role"],
            "additionalProperties": False,
        }
    },
    answers={201: _TOKEN_SCHEMA},
)
_REVOKE = Operation(summary="End a token at once, by its id or name", answers={204: None})

TTL_S_MIN, TTL_S_MAX = 60.0, 10 * 365 * 86_400.0
NAME_CHARS_MAX = 100


class Door:
    """Finds out who calls, before anything else is done for them."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    async def admit(self, call: Call) -> None:
        """Finds out who calls and writes it into the call. Raises Refused (401, 429)."""
        try:
            call.principal = await self._operators.admit(_token(call), call.remote)
            self._operators.limit(call.principal, call.method)
        except Denied as denied:
            raise _refused(denied) from None


def check(call: Call) -> None:
    """Raises Refused (403) when the caller may not call this method of the path that was found."""
    demand(call, required(call.method, call.template))


def demand(call: Call, role: Role) -> None:
    """Raises Refused (403) unless the caller has at least this role."""
    if not call.principal.role.covers(role):
        raise Refused(
            403,
            f"this needs the role {role.value}, and the token '{call.principal.name}' "
            f"has the role {call.principal.role.value}",
        )


def mount(table: PathTable, operators: Operators) -> None:
    """Adds `/identity/...`."""
    pages = _Tokens(operators)
    table.add("/identity/self", {"GET": pages.myself}, about={"GET": _SELF})
    table.add(
        "/identity/tokens",
        {"GET": pages.list_tokens, "POST": pages.create},
        about={"GET": _LIST, "POST": _CREATE},
    )
    table.add(
        "/identity/tokens/{token}",
        {"GET": pages.get, "DELETE": pages.revoke},
        about={"GET": _GET, "DELETE": _REVOKE},
    )


@dataclass(frozen=True, slots=True)
class _Tokens:
    operators: Operators

    async def myself(self, call: Call, _path: tuple[str, ...]) -> Answer:
        who = call.principal
        return json_answer(
            200, {"name": who.name, "role": who.role.value, "token_id": who.token_id, "login": bool(who.token_id)}
        )

    async def list_tokens(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        shown: list[JsonValue] = [record.shown() for record in await self.operators.records()]
        return json_answer(200, entity_page(shown))

    async def get(self, _call: Call, path: tuple[str, ...]) -> Answer:
        for record in await self.operators.records():
            if path[0] in (record.id, record.name):
                return json_answer(200, record.shown())
        raise not_found()

    async def create(self, call: Call, _path: tuple[str, ...]) -> Answer:
        body = parse_json(await call.body(), call.limits)
        unknown = sorted(body.keys() - {"name", "role", "ttl_s"})
        if unknown:
            raise Refused(400, f"unknown field '{unknown[0]}'; a token has name, role and ttl_s")
        role, name, ttl_s = _role(body), _name(body), _ttl_s(body)
        try:
            text, record = await self.operators.create(
                name=name, role=role, ttl_s=ttl_s, origin=origin_of(call, "identity")
            )
        except ValueError as error:
            raise Refused(409, str(error)) from None
        return json_answer(201, {**record.shown(), "token": text}, {"Cache-Control": "no-store"})

    async def revoke(self, call: Call, path: tuple[str, ...]) -> Answer:
        if await self.operators.revoke(path[0], origin=origin_of(call, "identity")) is None:
            raise not_found()
        return Answer(204)


def _token(call: Call) -> str | None:
    """The token that a call bears; None = it bears none."""
    authorization = call.headers.get("Authorization")
    if authorization is not None:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Refused(
                401, "send the token as 'Authorization: Bearer ...'", {"WWW-Authenticate": 'Bearer realm="pointsman"'}
            )
        return value.strip()
    return call.headers.get("Kong-Admin-Token")


def _refused(denied: Denied) -> Refused:
    headers = {}
    if denied.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="pointsman"'
    if denied.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(denied.retry_after_s)))
    return Refused(denied.status, denied.message, headers)


def _role(body: EntityBody) -> Role:
    try:
        return Role(str(body.get("role")))
    except ValueError:
        raise Refused(400, f"role: expected one of: {', '.join(Role)}") from None


def _name(body: EntityBody) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise Refused(400, f"name: expected a printable text of 1 to {NAME_CHARS_MAX} characters; history shows it")
    return name.strip()


def _ttl_s(body: EntityBody) -> float | None:
    ttl_s = body.get("ttl_s")
    if ttl_s is None:
        return None
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not TTL_S_MIN <= ttl_s <= TTL_S_MAX:
        raise Refused(400, f"ttl_s: expected seconds from {TTL_S_MIN:g} to {TTL_S_MAX:g}; leave it out for no end")
    return float(ttl_s)
