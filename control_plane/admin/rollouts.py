"""`/fleet/rollouts`: any set of changes brought to the whole fleet at one instant, or to nobody.

`POST /fleet/rollouts` takes

    {"changes": [{"operation": "update", "collection": "services", "key": "shop", "body": {"host": "green"}}],
     "reason": "release 2.7.1",
     "policy": {"need_percent": 100, "vote_by_s": 5, "on_refuse": "abort", "on_slow": "proceed", "tolerate": [],
                "min_healthy_percent": 75, "confirm_by_s": 5, "hold_s": 60, "connections_per_target": 32}}

and answers 202 with the rollout at once, or with `Prefer: wait=SECONDS` when it has ended: 200 when every node
confirmed, 202 when it is partial or still on its way, 409 when it was aborted. `operation` is create, upsert, update or
delete; `parent` names the upstream of a target. Nothing of a rollout that is aborted has happened.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from control_plane.admin import rollout_operations as about
from control_plane.admin.messages import Answer, Call, Refused, json_answer, not_found
from control_plane.admin.preferences import wait_seconds
from control_plane.admin.table import PathTable
from control_plane.admin.writes import origin_of
from control_plane.entities.errors import SchemaViolation
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.rollout import Policy, Reaction, State, TooLate
from control_plane.fleet.rollouts import Entry, Rollouts, TooLarge, Unchanged
from control_plane.store import editor
from control_plane.store.contract import Transaction

SIZE = 20
SIZE_MAX = 100
Now = Callable[[], float]


def mount(table: PathTable, rollouts: Rollouts, now: Now) -> None:
    """Adds the paths."""
    handlers = _Handlers(rollouts, now)
    methods = {"GET": handlers.list_page, "POST": handlers.create}
    table.add("/fleet/rollouts", methods, about={"GET": about.LIST, "POST": about.CREATE})
    table.add("/fleet/rollouts/{rollout}", {"GET": handlers.get}, about={"GET": about.GET})
    table.add("/fleet/rollouts/{rollout}/abort", {"POST": handlers.abort}, about={"POST": about.ABORT})


def status_of(entry: Entry) -> int:
    """What a rollout's answer is, by how it ended."""
    match entry.machine.state:
        case State.CONFIRMED:
            return 200
        case State.ABORTED:
            return 409
        case _:
            return 202


@dataclass(frozen=True, slots=True)
class _Handlers:
    rollouts: Rollouts
    now: Now

    async def list_page(self, call: Call, _path: tuple[str, ...]) -> Answer:
        size = _number(call.argument("size") or str(SIZE))
        before = call.argument("before")
        if size is None or not 1 <= size <= SIZE_MAX:
            raise Refused(400, f"size must be a whole number from 1 to {SIZE_MAX}")
        shown: list[JsonValue] = list(
            await self.rollouts.views(size=size, before=None if before is None else _number(before))
        )
        return json_answer(200, {"data": shown})

    async def get(self, _call: Call, path: tuple[str, ...]) -> Answer:
        number = _number(path[0])
        view = await self.rollouts.view(number) if number is not None else None
        if view is None:
            raise not_found()
        return json_answer(200, view)

    async def abort(self, call: Call, path: tuple[str, ...]) -> Answer:
        number = _number(path[0])
        view = await self.rollouts.view(number) if number is not None else None
        if number is None or view is None:
            raise not_found()
        origin = origin_of(call, "admin-api")
        try:
            entry = self.rollouts.abort(number, origin.reason or "aborted by an operator", origin.author or call.remote)
        except TooLate as error:
            raise Refused(409, str(error)) from None
        if entry is None:
            if State(str(view["state"])).final:
                raise Refused(409, f"the rollout has ended as {view['state']}")
            raise Refused(409, f"the rollout is coordinated by control plane {view['coordinator']}; ask it")
        await entry.ended.wait()
        return json_answer(200, entry.view())

    async def create(self, call: Call, _path: tuple[str, ...]) -> Answer:
        body = await _json(call)
        unknown = sorted(body.keys() - {"changes", "reason", "policy"})
        if unknown:
            raise SchemaViolation({unknown[0]: "unknown field"})
        work = _work(body.get("changes"), self.now())
        policy = policy_of(body.get("policy"))
        origin = origin_of(call, "rollout")
        reason = body.get("reason")
        if reason is not None:
            if not isinstance(reason, str) or len(reason) > call.limits.reason_chars_max:
                raise SchemaViolation({"reason": f"expected a text of at most {call.limits.reason_chars_max}"})
            origin = replace(origin, reason=reason)
        try:
            entry = await self.rollouts.create(work, origin, policy)
        except Unchanged:
            raise Refused(400, "nothing would change; there is nothing to roll out") from None
        except TooLarge as error:
            raise Refused(413, str(error)) from None
        wait_s = wait_seconds(call.headers.get("Prefer"), wait_s_max=call.limits.wait_s_max)
        if wait_s is None:
            return _answer(entry, 202)
        await ended_within(entry, wait_s)
        answer = _answer(entry, status_of(entry))
        answer.headers["Preference-Applied"] = f"wait={wait_s:g}"
        return answer


async def ended_within(entry: Entry, wait_s: float) -> bool:
    """Waits for the end of a rollout; False when it has not come by then."""
    try:
        async with asyncio.timeout(wait_s):
            await entry.ended.wait()
    except TimeoutError:
        return False
    return True


def _answer(entry: Entry, status: int) -> Answer:
    headers = {"Location": f"/fleet/rollouts/{entry.facts.number}", "X-Pointsman-Rollout": str(entry.facts.number)}
    view = entry.view()
    if status == 409:
        view = {"message": f"rollout {entry.facts.number} was aborted: {entry.machine.reason}", **view}
    if entry.machine.version is not None:
        headers["X-Pointsman-Version"] = str(entry.machine.version)
    return json_answer(status, view, headers)


def policy_of(told: JsonValue) -> Policy:
    """A policy from JSON; what is not said is the default. Raises SchemaViolation, which names the field."""
    if told is None:
        return Policy()
    if not isinstance(told, dict):
        raise SchemaViolation({"policy": "expected a record"})
    problems: EntityBody = {}
    values: dict[str, float] = {}
    policy = Policy()
    for name, value in told.items():
        if name in about.NUMBERS:
            low, high = about.NUMBERS[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                problems[name] = f"expected a number from {low:g} to {high:g}"
            else:
                values[name] = float(value)
        elif name in ("on_refuse", "on_slow"):
            if value not in ("abort", "proceed"):
                problems[name] = "expected one of: abort, proceed"
            elif name == "on_refuse":
                policy = replace(policy, on_refuse=Reaction(str(value)))
            else:
                policy = replace(policy, on_slow=Reaction(str(value)))
        elif name == "tolerate":
            if not isinstance(value, list) or not all(isinstance(code, str) for code in value):
                problems[name] = "expected a list of codes of faults"
            else:
                policy = replace(policy, tolerate=frozenset(str(code) for code in value))
        elif name == "connections_per_target":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= about.CONNECTIONS_MAX:
                problems[name] = f"expected a whole number from 0 to {about.CONNECTIONS_MAX}"
            else:
                policy = replace(policy, connections_per_target=value)
        else:
            problems[name] = "unknown field"
    if problems:
        raise SchemaViolation({"policy": problems})
    return replace(
        policy,
        need_percent=values.get("need_percent", policy.need_percent),
        vote_by_s=values.get("vote_by_s", policy.vote_by_s),
        min_healthy_percent=values.get("min_healthy_percent", policy.min_healthy_percent),
        confirm_by_s=values.get("confirm_by_s", policy.confirm_by_s),
        hold_s=values.get("hold_s", policy.hold_s),
    )


def _work(told: JsonValue, now: float) -> Callable[[Transaction], None]:
    if not isinstance(told, list) or not told:
        raise SchemaViolation({"changes": "expected a list of at least one change"})
    if len(told) > about.CHANGES_MAX:
        raise SchemaViolation({"changes": f"expected at most {about.CHANGES_MAX} changes; use a file: /config/apply"})
    changes = []
    for at, change in enumerate(told, 1):
        if not isinstance(change, dict):
            raise SchemaViolation({f"changes[{at}]": "expected a record"})
        changes.append(_change(change, f"changes[{at}]"))

    def work(tx: Transaction) -> None:
        for change in changes:
            change.do(tx, now)

    return work


@dataclass(frozen=True, slots=True)
class _Change:
    operation: str
    collection: str
    key: str
    parent: str
    body: EntityBody
    place: str

    def do(self, tx: Transaction, now: float) -> None:
        """Raises what the editor raises, and SchemaViolation for a parent that is not there."""
        parent = None
        if self.parent:
            found = editor.lookup(tx, "upstreams", self.parent)
            if found is None:
                raise SchemaViolation({f"{self.place}.parent": f"there is no upstream '{self.parent}'"})
            parent = editor.Parent("upstream", "upstreams", str(found["id"]))
        match self.operation:
            case "create":
                editor.create(tx, self.collection, self.body, now=now, parent=parent)
            case "upsert":
                editor.upsert(tx, self.collection, self.key, self.body, now=now, parent=parent)
            case "update":
                editor.update(tx, self.collection, self.key, self.body, now=now, parent=parent)
            case _:
                editor.delete(tx, self.collection, self.key, parent=parent)


def _change(told: EntityBody, place: str) -> _Change:
    unknown = sorted(told.keys() - {"operation", "collection", "key", "parent", "body"})
    if unknown:
        raise SchemaViolation({f"{place}.{unknown[0]}": "unknown field"})
    operation = told.get("operation", "update")
    if operation not in about.OPERATIONS:
        raise SchemaViolation({f"{place}.operation": f"expected one of: {', '.join(about.OPERATIONS)}"})
    collection = told.get("collection")
    if not isinstance(collection, str) or collection not in SCHEMAS:
        raise SchemaViolation({f"{place}.collection": f"expected one of: {', '.join(sorted(SCHEMAS))}"})
    key, parent, body = told.get("key", ""), told.get("parent", ""), told.get("body", {})
    if not isinstance(key, str) or (not key and operation != "create"):
        raise SchemaViolation({f"{place}.key": "expected an id or a name"})
    if not isinstance(parent, str) or (parent and collection != "targets"):
        raise SchemaViolation({f"{place}.parent": "expected the upstream of a target"})
    if not isinstance(body, dict):
        raise SchemaViolation({f"{place}.body": "expected a record"})
    return _Change(str(operation), collection, key, parent, body, place)


async def _json(call: Call) -> EntityBody:
    raw = await call.body(call.limits.file_bytes_max)
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "Cannot parse JSON body") from None
    if not isinstance(body, dict):
        raise Refused(400, "expected a JSON record with the field changes")
    return body


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None
