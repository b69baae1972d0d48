"""`POST /batch`: many changes of any entities as one transaction and one version.

    {"operations": [
       {"method": "POST", "path": "/services", "body": {"name": "a", "host": "blue"}},
       {"method": "POST", "path": "/services/a/routes", "body": {"name": "r", "paths": ["/"]}},
       {"method": "PATCH", "path": "/upstreams/blue", "body": {"slots": 100}, "if_match": "\"...\""}]}

Operations run in order, and a later one sees what an earlier one did. All of them happen or none: the first that is
refused ends the batch with the status and body that it would have had alone, its message led by which one it was, and
its position under `operation` (from 0). The answer is 200 with `results`, each with the status it would have had.
`?dry_run=1`, `Idempotency-Key`, `Prefer: wait` and the headers of the history concern the batch as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multidict import CIMultiDict

from control_plane.admin.access import check as check_access
from control_plane.admin.bodies import entity_body
from control_plane.admin.errors import STATUS_BY_CODE
from control_plane.admin.guard import WRITING
from control_plane.admin.messages import Answer, Call, Refused, Step, encode_json
from control_plane.admin.operations import JSON, Operation, answer_of
from control_plane.admin.preconditions import check, is_guarded
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Writes
from control_plane.entities.errors import EntityError
from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Transaction

_PLACES = frozenset({*(schema.path for schema in STORED.values()), "fleet"})
"""First segments of the paths that may be part of a batch: the others do more than change entities."""

_KNOWN = frozenset({"method", "path", "body", "if_match", "if_none_match"})
_OPERATIONS: EntityBody = {
    "type": "object",
    "properties": {
        "operations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "method": {"enum": [*sorted(WRITING)]},
                    "path": {"type": "string", "pattern": "^/", "description": "Of an entity, or of its collection."},
                    "body": {"type": ["object", "null"], "description": "What the path takes."},
                    "if_match": {"type": ["string", "null"], "description": "As the header."},
                    "if_none_match": {"type": ["string", "null"], "description": "As the header."},
                },
                "required": ["method", "path"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["operations"],
    "additionalProperties": False,
}
_RESULTS: EntityBody = {
    "type": "object",
    "properties": {
        "results": {
            "type": "array",
            "items": answer_of({"status": {"type": "integer"}, "entity": {"type": ["object", "null"]}}),
        }
    },
    "required": ["results"],
    "additionalProperties": False,
}


def mount(table: PathTable, writes: Writes) -> None:
    """Adds the path."""
    about = Operation(
        summary="Make many changes as one version, or none of them",
        body={JSON: _OPERATIONS},
        answers={200: _RESULTS},
        writes=True,
    )
    table.add("/batch", {"POST": _Batch(table, writes).post}, about={"POST": about})


@dataclass(frozen=True, slots=True)
class _Part:
    """One operation, ready to run."""

    call: Call
    step: Step


@dataclass(frozen=True, slots=True)
class _Batch:
    table: PathTable
    writes: Writes

    async def post(self, call: Call, _path: tuple[str, ...]) -> Answer:
        """Runs the operations."""
        if call.steps is not None:
            raise Refused(400, "a batch can't be part of a batch")
        operations = await _operations(call)
        parts = []
        for position, operation in enumerate(operations):
            try:
                parts.append(await self._part(call, operation))
            except (Refused, EntityError) as error:
                raise _of_operation(position, operation, error) from error

        def work(tx: Transaction) -> EntityBody:
            results: list[JsonValue] = []
            for position, part in enumerate(parts):
                try:
                    if is_guarded(part.call.headers):
                        check(tx, part.call.headers, part.step.current)
                    body = part.step.work(tx)
                except (Refused, EntityError) as error:
                    raise _of_operation(position, operations[position], error) from error
                results.append({"status": part.step.status, "entity": body})
            return {"results": results}

        return await self.writes.perform(call, work, source="batch", outcome=lambda body: body or {}, tagged=False)

    async def _part(self, call: Call, operation: EntityBody) -> _Part:
        """Has the operation's own handler say what it would do, without doing it."""
        method, path, body = operation.get("method"), operation.get("path"), operation.get("body")
        unknown = operation.keys() - _KNOWN
        if unknown:
            raise Refused(400, f"unknown field '{min(unknown)}'; known are: {', '.join(sorted(_KNOWN))}")
        if not isinstance(method, str) or method not in WRITING:
            raise Refused(400, f"method must be one of: {', '.join(sorted(WRITING))}")
        if not isinstance(path, str) or not path.startswith("/"):
            raise Refused(400, "path must be a path of the Admin API, like /services/example-service")
        if body is not None and not isinstance(body, dict):
            raise Refused(400, "body must be an object")
        headers: CIMultiDict[str] = CIMultiDict()
        for name, header in (("if_match", "If-Match"), ("if_none_match", "If-None-Match")):
            value = operation.get(name)
            if isinstance(value, str):
                headers[header] = value
            elif value is not None:
                raise Refused(400, f"{name} must be a string")
        raw = b"" if body is None else encode_json(body).encode()

        async def read(bytes_max: int) -> bytes:
            if len(raw) > bytes_max:
                raise Refused(413, f"the body is larger than {bytes_max} bytes")
            return raw

        part = Call(
            method,
            path,
            headers=headers,
            content_types=("application/json",) if raw else (),
            has_body=bool(raw),
            read_body=read,
            remote=call.remote,
            limits=call.limits,
        )
        part.steps = []
        found = self.table.find(part.path)
        if found is None:
            raise Refused(404, "Not found")
        handler = found.methods.get(method)
        if handler is None:
            raise Refused(405, "Method not allowed")
        if found.template.split("/")[1] not in _PLACES:
            raise Refused(400, "this path changes no entity; it can't be part of a batch")
        part.template = found.template
        part.principal = call.principal
        check_access(part)
        answer = await handler(part, found.variables)
        if len(part.steps) != 1:
            text = "this path changes no entity" if answer.status < 400 else "Method not allowed"
            raise Refused(400 if answer.status < 400 else answer.status, f"{text}; it can't be part of a batch")
        return _Part(part, part.steps[0])


async def _operations(call: Call) -> Sequence[EntityBody]:
    body = await entity_body(call, dict, bytes_max=call.limits.file_bytes_max)
    given = body.get("operations")
    if not isinstance(given, list) or not given or len(body) != 1:
        raise Refused(400, 'expected {"operations": [...]} with at least one operation and nothing else')
    if len(given) > call.limits.batch_operations_max:
        raise Refused(
            413,
            f"{len(given)} operations are more than the {call.limits.batch_operations_max} of one batch; "
            "split it, or send a file to /config/apply",
        )
    operations = []
    for position, operation in enumerate(given):
        if not isinstance(operation, dict):
            raise Refused(400, f"operation {position}: expected an object", extra={"operation": position})
        operations.append(operation)
    return operations


def _of_operation(position: int, operation: EntityBody, error: Refused | EntityError) -> Refused:
    where = f"operation {position} ({str(operation.get('method'))[:10]} {str(operation.get('path'))[:200]})"
    if isinstance(error, Refused):
        told: EntityBody = {**error.extra}
        status, message = error.status, error.message
    else:
        told = error.to_json()
        status, message = STATUS_BY_CODE[error.code], str(told.pop("message", None) or error.name)
    return Refused(status, f"{where}: {message}; nothing was changed", extra={**told, "operation": position})
