"""Kong's `POST /config`: the whole configuration replaced by a declarative file, in one version.

Kong has this only without a database, and its clients find out from `GET /` that they should not use it here; who sends
a file all the same gets what it means. The document may be the JSON body itself, the `config` argument of a JSON or
form body, or a YAML body. `check_hash=1` answers 304 when the same text is what runs; `flatten_errors=1` adds the flat
list of errors. A body without a document gets the answer of a Kong that has a database, and so does GET.
"""

from __future__ import annotations

import asyncio
import hashlib

from control_plane import declarative
from control_plane.admin.bodies import content_type_of, entity_body
from control_plane.admin.messages import Answer, Call, encode_json, json_answer, message_answer
from control_plane.admin.operations import FORM, JSON, YAML, Operation, Parameter
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Writes
from control_plane.declarative.flattened import kong_errors
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody
from control_plane.store.contract import Transaction

_TRUE = ("1", "true", "yes", "on")
_YAML_TYPES = ("text/yaml", "application/yaml")
_FILE: EntityBody = {
    "type": "object",
    "properties": {
        "_format_version": {"enum": ["1.1", "2.1", "3.0"]},
        "config": {"type": "string", "description": "The file as a text, YAML or JSON."},
    },
}
_LOAD = Operation(
    summary="Replace the whole configuration by a file, as Kong does without a database",
    body={JSON: _FILE, FORM: _FILE, YAML: {"type": "object"}},
    answers={
        201: {"type": "object", "additionalProperties": {"type": "object"}, "description": "By collection and id."},
        304: None,
    },
    parameters=(
        Parameter(name="check_hash", schema={"enum": [0, 1]}, description="1 = answer 304 to the text that runs."),
        Parameter(name="flatten_errors", schema={"enum": [0, 1]}, description="1 = a list of the entities at fault."),
    ),
    writes=True,
)


def mount(table: PathTable, writes: Writes) -> None:
    """Adds the path."""
    loading = _Loading(writes)
    refused = Operation(summary="Always refused: there is a database; see `/config/dump`", answers={})
    table.add("/config", {"GET": _only_without_database, "POST": loading.post}, about={"GET": refused, "POST": _LOAD})


async def _only_without_database(_call: Call, _path: tuple[str, ...]) -> Answer:
    """Refused: there is a database; see `/config/dump`."""
    return message_answer(400, "this endpoint is only available when Kong is configured to not use a database")


class _Loading:
    def __init__(self, writes: Writes) -> None:
        self._writes = writes
        self._loaded: tuple[str, int] | None = None
        """MD5 of the text loaded last, as Kong hashes it, and the version it made. Forgotten with the process, which
        costs one load that changes nothing."""

    async def post(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Loads a file."""
        content_type = content_type_of(call).lower()
        options: EntityBody = dict(call.query)
        digest = ""
        if content_type.startswith(_YAML_TYPES):
            raw = await call.body(call.limits.file_bytes_max)
            digest = _md5(raw)
            text_type = "application/yaml"
        else:
            body = await entity_body(call, dict, bytes_max=call.limits.file_bytes_max)
            config = body.get("config")
            if isinstance(config, str):
                raw, text_type = config.encode(errors="surrogatepass"), ""
                digest = _md5(raw)
            elif "_format_version" in body:
                raw, text_type = encode_json(body).encode(), "application/json"
            else:
                return await _only_without_database(call, path)
            options = {**options, **body}
        checking = digest and str(options.get("check_hash")) == "1"
        if checking and self._loaded == (digest, await self._writes.store.head()):
            return Answer(304)
        flatten = str(options.get("flatten_errors")).lower() in _TRUE
        return await self._load(call, raw, text_type, digest, flatten=flatten)

    async def _load(self, call: Call, raw: bytes, text_type: str, digest: str, *, flatten: bool) -> Answer:
        document: declarative.Document | None = None
        now = self._writes.now()

        def work(tx: Transaction) -> EntityBody:
            assert document is not None, "it was read"
            declarative.sync(tx, document, now=now)
            loaded: EntityBody = {}
            for collection in SCHEMAS:
                bodies: EntityBody = {str(body["id"]): body for body in tx.each(collection)}
                if bodies:
                    loaded[collection] = bodies
            return loaded

        try:
            document = await asyncio.to_thread(declarative.read, raw, text_type)
            answer = await self._writes.perform(call, work, source="config", status=201, outcome=_outcome, tagged=False)
        except declarative.FileRefused as refused:
            return json_answer(400, kong_errors(refused, document, flatten=flatten))
        version = answer.headers.get("X-Pointsman-Version")
        if digest and version is not None:
            self._loaded = digest, int(version)
        return answer


def _outcome(loaded: EntityBody | None) -> EntityBody:
    return {"config": loaded}


def _md5(text: bytes) -> str:
    return hashlib.md5(text, usedforsecurity=False).hexdigest()
