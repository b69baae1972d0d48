"""The creations of a recorded Admin API, fed to the schemas: bodies and error objects must be the recorded ones.

The recording itself is replayed over HTTP by `python -m tests.conformance admin`; here only what a schema alone decides
is compared, without a server.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from control_plane.entities.errors import EntityError
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody
from tests.unit.control_plane.entities.schemas import NOW, SERVICE_ID

RECORDING = Path(__file__).parents[3] / "conformance" / "vectors" / "kong-admin.jsonl"

# Where we answer otherwise on purpose: step -> why.
OTHERWISE = {
    151: "a null url is no url; the recorded gateway parses it and reports what it made of it",
    327: "look-around is refused at the path it stands in, not at the entity as a compiled expression",
    464: "sticky-sessions is known here, and is refused for its missing cookie",
    346: "a header without values is refused at the field, not at the entity as a compiled expression",
}
OTHERWISE |= dict.fromkeys(
    (659, 676, 760, 764), "a PEM text's fault is told in our words: a library's may quote what may be a key"
)
_PARENTS = {"services": "service", "upstreams": "upstream", "certificates": "certificate"}


def creations() -> list[tuple[int, str, EntityBody, int, EntityBody]]:
    """Return (step, collection, body, status, answer) of the recorded POSTs that a schema alone decides."""
    found = []
    for line in RECORDING.read_text().splitlines():
        step = json.loads(line)
        segments = step["path_template"].strip("/").split("/")
        collection, answer = segments[-1], step.get("response_body")
        if step["method"] != "POST" or collection not in SCHEMAS or not (step["request_body"] or "").startswith("{"):
            continue
        if step["status"] != 201 and (step["status"] != 400 or answer.get("code") != 2):
            continue
        if "already associated" in step["response_text"]:
            continue  # the store's to say
        try:
            body = json.loads(step["request_body"])
        except ValueError:
            continue
        if len(segments) == 3:
            body[_PARENTS[segments[0]]] = {"id": SERVICE_ID}
        found.append((step["step"], collection, body, step["status"], answer))
    return found


def answered(collection: str, body: EntityBody) -> tuple[int, EntityBody]:
    """Return status and body that our schema leads to."""
    try:
        return 201, SCHEMAS[collection].on_insert(body, now=NOW, resolve=lambda _collection, _field, _value: SERVICE_ID)
    except EntityError as error:
        return 400, error.to_json()


def comparable(answer: EntityBody, status: int, sent: EntityBody) -> EntityBody:
    """Return the answer without what differs from run to run."""
    if status != 201:
        return answer
    made_up = {name for name in ("id", "created_at") if name not in sent} | {
        "updated_at", "service", "upstream", "certificate",
        "snis" if "cert" in sent else "",  # entities of their own
    }  # fmt: skip
    return {name: value for name, value in answer.items() if name not in made_up}


CREATIONS = creations()


def test_the_recording_holds_enough() -> None:
    assert len(CREATIONS) > 200
    assert OTHERWISE.keys() <= {step for step, *_ in CREATIONS}


@pytest.mark.parametrize(
    ("step", "collection", "body", "status", "answer"), CREATIONS, ids=lambda value: str(value)[:40]
)
def test_a_creation_is_answered_as_recorded(
    step: int, collection: str, body: EntityBody, status: int, answer: EntityBody
) -> None:
    our_status, ours = answered(collection, body)
    same = (our_status, comparable(ours, our_status, body)) == (status, comparable(answer, status, body))

    assert same != (step in OTHERWISE), f"{ours} against {answer}"
