"""Declarative files: decK's format read into entities, compared with the store, written and dumped.

Used by the Admin API's `/config/{sync,apply,diff,dump}`:

    document = parse(body, content_type)                         # outside of the store's thread
    written = await store.write(lambda tx: sync(tx, document, now=now), origin)
    written.result.to_json()

Errors are `FileRefused` (code 14 and a list of problems), and what the store itself raises.
"""

from control_plane.declarative.changes import EntityChange, FieldChange, Summary
from control_plane.declarative.document import Document, FileEntity, effective_tags, parse, read
from control_plane.declarative.dump import dump
from control_plane.declarative.plan import Mode
from control_plane.declarative.problems import FileRefused, Problem
from control_plane.declarative.writing import apply, diff, sync
from control_plane.declarative.yaml_writer import to_yaml

__all__ = [
    "Document",
    "EntityChange",
    "FieldChange",
    "FileEntity",
    "FileRefused",
    "Mode",
    "Problem",
    "Summary",
    "apply",
    "diff",
    "dump",
    "effective_tags",
    "parse",
    "read",
    "sync",
    "to_yaml",
]
