"""`/config/{sync,apply,diff,dump}`: declarative files over HTTP, YAML or JSON. One file, one transaction, one version.

`sync` and `apply` answer 200 with the summary of changes. With `Prefer: wait` they may answer 202 as every write does:
the summary then stands beside `version`, `nodes` and `waited_s`. `dump` and `diff` say which version they looked at; a
write with that as its `If-Match` is refused when others wrote meanwhile (`version_guard.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from control_plane import declarative
from control_plane.admin.access import demand
from control_plane.admin.bodies import content_type_of
from control_plane.admin.messages import Answer, Call, Refused, json_answer
from control_plane.admin.operations import CHANGE_COUNTS, JSON, YAML, Operation, Parameter, answer_of
from control_plane.admin.table import PathTable
from control_plane.admin.version_guard import EXPECTED_VERSION, position, version_guard, version_tag
from control_plane.admin.writes import Writes
from control_plane.entities.types import EntityBody
from control_plane.identity.roles import Role
from control_plane.store.contract import Transaction

INLINE_BYTES_MAX = 32 << 10
"""Larger files are parsed beside the event loop, so that other requests do not wait for them."""

YAML_TYPE = "application/yaml; charset=utf-8"


_SELECT_TAGS = Parameter(name="select_tags", schema={"type": "string"}, description="Only entities with all of a,b.")
_MODE = Parameter(
    name="mode", schema={"type": "string", "enum": [*declarative.Mode]}, description="Which of the two verbs is meant."
)
_DUMP = Operation(
    summary="Show the whole configuration as a file",
    parameters=(
        _SELECT_TAGS,
        Parameter(name="format", schema={"type": "string", "enum": ["yaml", "json"]}, description="Of the file."),
        Parameter(name="with_ids", schema={"type": "boolean"}, description="Show ids of entities with names too."),
        Parameter(name="with_keys", schema={"type": "boolean"}, description="Show private keys and other secrets."),
    ),
    answers={200: {"type": ["object", "string"]}},
    answer_type="*/*",
)


def _taking(summary: str, *more: Parameter, writes: bool = True) -> Operation:
    file: EntityBody = {"type": "object", "properties": {"_format_version": {"const": "3.0"}}}
    number: EntityBody = {"type": "integer", "minimum": 0}
    looked_at: EntityBody = {
        "version": number,
        "compared_with": {"type": "string", "description": "The version and its history, for `If-Match`."},
    }
    answer = answer_of({**CHANGE_COUNTS, "unchanged": number, **({} if writes else looked_at)})
    return Operation(
        summary=summary,
        body={JSON: file, YAML: file},
        answers={200: answer},
        parameters=(_SELECT_TAGS, *more, *((EXPECTED_VERSION,) if writes else ())),
        writes=writes,
    )


def mount(table: PathTable, writes: Writes) -> None:
    """Adds our verbs; `kong_config.py` has Kong's."""
    files = _Files(writes)
    table.add("/config/sync", {"POST": files.sync}, about={"POST": _taking("Make the gateway equal to a file")})
    table.add(
        "/config/apply", {"POST": files.apply}, about={"POST": _taking("Put what a file says over what is there")}
    )
    table.add(
        "/config/diff",
        {"POST": files.diff},
        about={"POST": _taking("Say what a file would change", _MODE, writes=False)},
    )
    table.add("/config/dump", {"GET": files.dump}, about={"GET": _DUMP})


@dataclass(frozen=True, slots=True)
class _Files:
    writes: Writes

    async def sync(self, call: Call, _path: tuple[str, ...]) -> Answer:
        document, tags, now = await _document(call), _select_tags(call), self.writes.now()
        return await self._write(
            call, "sync", document, lambda tx: declarative.sync(tx, document, select_tags=tags, now=now)
        )

    async def apply(self, call: Call, _path: tuple[str, ...]) -> Answer:
        document, tags, now = await _document(call), _select_tags(call), self.writes.now()
        return await self._write(
            call, "apply", document, lambda tx: declarative.apply(tx, document, select_tags=tags, now=now)
        )

    async def diff(self, call: Call, _path: tuple[str, ...]) -> Answer:
        try:
            mode = declarative.Mode(call.argument("mode") or "sync")
        except ValueError:
            raise Refused(400, f"mode must be one of: {', '.join(declarative.Mode)}") from None
        document, tags, now = await _document(call), _select_tags(call), self.writes.now()
        summary, version = await self.writes.store.read(
            lambda tx: (declarative.diff(tx, document, mode=mode, select_tags=tags, now=now), tx.head())
        )
        epoch = await self.writes.store.epoch()
        told: EntityBody = {**summary.to_json(), "version": version, "compared_with": position(version, epoch)}
        return json_answer(200, told, _at(version, epoch))

    async def dump(self, call: Call, _path: tuple[str, ...]) -> Answer:
        form = call.argument("format") or "yaml"
        if form not in ("yaml", "json"):
            raise Refused(400, "format must be one of: yaml, json")
        with_ids = (call.argument("with_ids") or "false").lower() in ("1", "true", "yes", "on")
        with_keys = (call.argument("with_keys") or "false").lower() in ("1", "true", "yes", "on")
        if with_keys:
            demand(call, Role.EDITOR)
        tags = _select_tags(call)
        document, version = await self.writes.store.read(
            lambda tx: (declarative.dump(tx, select_tags=tags, with_ids=with_ids, with_keys=with_keys), tx.head())
        )
        at = _at(version, await self.writes.store.epoch())
        if form == "json":
            return json_answer(200, document, at)
        text = await asyncio.to_thread(declarative.to_yaml, document)
        return Answer(200, text, at, content_type=YAML_TYPE)

    async def _write(
        self,
        call: Call,
        source: str,
        document: declarative.Document,
        work: Callable[[Transaction], declarative.Summary],
    ) -> Answer:
        tags = declarative.effective_tags(document, _select_tags(call))
        answer = await self.writes.perform(
            call,
            lambda tx: work(tx).to_json(),
            source=source,
            outcome=lambda summary: summary or {},
            tagged=False,
            whole=version_guard(call.headers, tags=tags),
        )
        version = answer.headers.get("X-Pointsman-Version")
        if version is not None:
            answer.headers["ETag"] = version_tag(int(version), await self.writes.store.epoch())
        return answer


def _at(version: int, epoch: bytes) -> dict[str, str]:
    """What a later `If-Match` says of the configuration that was looked at."""
    return {"ETag": version_tag(version, epoch)}


async def _document(call: Call) -> declarative.Document:
    content_type = content_type_of(call)
    raw = await call.body(call.limits.file_bytes_max)
    if not raw.strip():
        raise Refused(400, "expected a declarative configuration; send a YAML or JSON file as the body")
    if len(raw) <= INLINE_BYTES_MAX:
        return declarative.read(raw, content_type)
    return await asyncio.to_thread(declarative.read, raw, content_type)


def _select_tags(call: Call) -> tuple[str, ...]:
    text = call.argument("select_tags") or ""
    return tuple(tag for tag in text.split(",") if tag)
