"""Who may be a node: `/fleet/join-tokens`, shutting out nodes or letting them in again, and the CA behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from control_plane.admin.bodies import parse_json
from control_plane.admin.messages import Answer, Call, Refused, entity_page, json_answer, not_found
from control_plane.admin.operations import JSON, Operation
from control_plane.admin.table import PathTable
from control_plane.admin.writes import origin_of
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.identity.ca_rotation import NotNow, State, state_of
from control_plane.identity.join_tokens import TTL_S_MAX, TTL_S_MIN, USES_MAX
from control_plane.identity.node_ca import FORMER, ISSUING, NEXT
from control_plane.identity.node_certificates import NodeCertificates
from control_plane.identity.node_records import NodeRecord

LABELS_MAX, LABEL_CHARS_MAX = 32, 63

_TOKEN_SCHEMA: EntityBody = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "state": {"type": "string", "enum": ["good", "used up", "expired", "revoked"]},
        "created_at": {"type": "number"},
        "created_by": {"type": "string"},
        "expires_at": {"type": "number"},
        "uses": {"type": "integer"},
        "used_by": {"type": "array", "items": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "revoked_at": {"type": ["number", "null"]},
        "token": {"type": "string", "description": "The token itself; only in the answer that makes it."},
    },
    "required": ["id", "state", "uses"],
}
_LIST = Operation(
    summary="List the join tokens",
    answers={200: {"type": "object", "properties": {"data": {"type": "array", "items": _TOKEN_SCHEMA}}}},
)
_CREATE = Operation(
    summary="Make a join token",
    body={
        JSON: {
            "type": "object",
            "properties": {
                "ttl_s": {"type": "number", "minimum": TTL_S_MIN, "maximum": TTL_S_MAX},
                "uses": {"type": "integer", "minimum": 1, "maximum": USES_MAX},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "additionalProperties": False,
        }
    },
    answers={201: _TOKEN_SCHEMA},
)
_REVOKE_TOKEN = Operation(summary="End a join token at once; nodes that joined with it stay", answers={204: None})
_CA_SCHEMA: EntityBody = {
    "type": "object",
    "properties": {
        "state": {"type": "string", "enum": [each.value for each in State]},
        "authorities": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "enum": [ISSUING, NEXT, FORMER]},
                    "fingerprint": {"type": "string"},
                    "since": {"type": ["number", "null"]},
                    "not_after": {"type": "number"},
                },
            },
        },
        "missing": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"node_id": {"type": "string"}, "until": {"type": "number"}},
            },
        },
    },
    "required": ["state", "authorities", "missing"],
}
_CA = Operation(summary="Show the nodes' CA, and whom its rotation waits for", answers={200: _CA_SCHEMA})
_ROTATE = Operation(summary="Begin a rotation of the nodes' CA", answers={200: _CA_SCHEMA})
_ADVANCE = Operation(
    summary="Take the rotation's next step without the nodes that are missing", answers={200: _CA_SCHEMA}
)
_NODE_SCHEMA: EntityBody = {"type": "object", "required": ["node_id", "revoked"]}
_REVOKE = Operation(summary="Shut a node out and close its stream", answers={200: _NODE_SCHEMA})
_APPROVE = Operation(summary="Let a node in again that was revoked", answers={200: _NODE_SCHEMA})


def mount(table: PathTable, nodes: NodeCertificates | None, *, clock: Callable[[], float] = time.time) -> None:
    """Adds the paths; without `nodes` they say that this control plane gives out no certificates."""
    pages = _Pages(nodes, clock)
    table.add(
        "/fleet/join-tokens",
        {"GET": pages.list_tokens, "POST": pages.create},
        about={"GET": _LIST, "POST": _CREATE},
    )
    table.add("/fleet/join-tokens/{token}", {"DELETE": pages.revoke_token}, about={"DELETE": _REVOKE_TOKEN})
    table.add("/fleet/nodes/{node_id}/revoke", {"POST": pages.revoke}, about={"POST": _REVOKE})
    table.add("/fleet/nodes/{node_id}/approve", {"POST": pages.approve}, about={"POST": _APPROVE})
    table.add("/fleet/ca", {"GET": pages.show_ca}, about={"GET": _CA})
    table.add("/fleet/ca/rotate", {"POST": pages.rotate_ca}, about={"POST": _ROTATE})
    table.add("/fleet/ca/advance", {"POST": pages.advance_ca}, about={"POST": _ADVANCE})


@dataclass(frozen=True, slots=True)
class _Pages:
    nodes: NodeCertificates | None
    clock: Callable[[], float]

    def _known(self) -> NodeCertificates:
        if self.nodes is None:
            raise Refused(
                409,
                "this control plane gives out no certificates, so there is nothing to join with or to revoke; "
                "start it with --cluster-mtls=enrolled",
            )
        return self.nodes

    async def list_tokens(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        now = self.clock()
        found = await self.nodes.tokens() if self.nodes is not None else ()
        shown: list[JsonValue] = [record.shown(now) for record in found]
        return json_answer(200, entity_page(shown))

    async def create(self, call: Call, _path: tuple[str, ...]) -> Answer:
        nodes = self._known()
        body = parse_json(await call.body(), call.limits)
        unknown = sorted(body.keys() - {"ttl_s", "uses", "labels"})
        if unknown:
            raise Refused(400, f"unknown field '{unknown[0]}'; a join token has ttl_s, uses and labels")
        ttl_s, uses, labels = _ttl_s(body), _uses(body), _labels(body)
        try:
            token, record = await nodes.create_token(
                ttl_s=ttl_s, uses=uses, labels=labels, origin=origin_of(call, "identity")
            )
        except ValueError as error:
            raise Refused(409, str(error)) from None
        shown: EntityBody = {**record.shown(self.clock()), "token": token.text}
        return json_answer(201, shown, {"Cache-Control": "no-store"})

    async def revoke_token(self, call: Call, path: tuple[str, ...]) -> Answer:
        if not await self._known().revoke_token(path[0], origin=origin_of(call, "identity")):
            raise not_found()
        return Answer(204)

    async def revoke(self, call: Call, path: tuple[str, ...]) -> Answer:
        return _node(await self._known().revoke(path[0], origin=origin_of(call, "identity")))

    async def approve(self, call: Call, path: tuple[str, ...]) -> Answer:
        return _node(await self._known().approve(path[0], origin=origin_of(call, "identity")))

    async def show_ca(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        return await _ca(self._known())

    async def rotate_ca(self, call: Call, _path: tuple[str, ...]) -> Answer:
        nodes = self._known()
        try:
            await nodes.rotate_ca(origin=origin_of(call, "identity"))
        except NotNow as error:
            raise Refused(409, str(error)) from None
        return await _ca(nodes)

    async def advance_ca(self, call: Call, _path: tuple[str, ...]) -> Answer:
        nodes = self._known()
        try:
            await nodes.hurry_ca(origin=origin_of(call, "identity"))
        except NotNow as error:
            raise Refused(409, str(error)) from None
        return await _ca(nodes)


async def _ca(nodes: NodeCertificates) -> Answer:
    missing: list[JsonValue] = [{"node_id": each.node_id, "until": each.until} for each in await nodes.ca_missing()]
    found = nodes.authorities
    places = ((ISSUING, found.issuing), (NEXT, found.next), (FORMER, found.former))
    shown: list[JsonValue] = [
        {
            "place": place,
            "fingerprint": each.fingerprint,
            "since": each.since or None,
            "not_after": each.not_after,
        }
        for place, each in places
        if each is not None
    ]
    return json_answer(200, {"state": state_of(found).value, "authorities": shown, "missing": missing})


def _node(record: NodeRecord | None) -> Answer:
    if record is None:
        raise not_found()
    return json_answer(
        200,
        {
            "node_id": record.id,
            "revoked": record.revoked_at is not None,
            "joined_at": record.joined_at,
            "certificate_expires_at": record.expires_at,
        },
    )


def _ttl_s(body: EntityBody) -> float:
    ttl_s = body.get("ttl_s", 3600)
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not TTL_S_MIN <= ttl_s <= TTL_S_MAX:
        raise Refused(400, f"ttl_s: expected seconds from {TTL_S_MIN:g} to {TTL_S_MAX:g}")
    return float(ttl_s)


def _uses(body: EntityBody) -> int:
    uses = body.get("uses", 1)
    if isinstance(uses, bool) or not isinstance(uses, int) or not 1 <= uses <= USES_MAX:
        raise Refused(400, f"uses: expected a whole number of nodes from 1 to {USES_MAX}")
    return uses


def _labels(body: EntityBody) -> Mapping[str, str]:
    labels = body.get("labels", {})
    wanted = f"labels: expected up to {LABELS_MAX} names with printable texts of up to {LABEL_CHARS_MAX} characters"
    if not isinstance(labels, dict) or len(labels) > LABELS_MAX:
        raise Refused(400, wanted)
    found: dict[str, str] = {}
    for name, value in labels.items():
        if not isinstance(value, str) or not 0 < len(name) <= LABEL_CHARS_MAX or len(value) > LABEL_CHARS_MAX:
            raise Refused(400, wanted)
        if not (name.isprintable() and value.isprintable()):
            raise Refused(400, wanted)
        found[name] = value
    return found
