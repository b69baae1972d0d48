"""The last look before a commit: can every node run what this unit of work makes?

The schemas and the store have checked fields, references and unique keys. What is left is what only shows when the
entities are turned into what travels: that each encodes, and that neither one entity nor the whole outgrows the nodes.
Regexes were compiled by the very rules that nodes use (`pointsman/rules/regexes.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.entities.errors import ENTITY, SchemaViolation
from control_plane.snapshot.encode import encode
from control_plane.store.contract import Change, Transaction

ENTITY_BYTES_MAX = 1 << 20
"""One entity as it travels. It must fit a message between a node and its workers with room to spare."""


def check_changes(_tx: Transaction, changes: Sequence[Change]) -> None:
    """Raise SchemaViolation naming the entity that no node could run."""
    for change in changes:
        if change.after is None:
            continue
        encoded_bytes = len(encode(change.collection, change.after))
        if encoded_bytes > ENTITY_BYTES_MAX:
            name = change.after.get("name") or change.id
            text = (
                f"{change.collection} '{name}' takes {encoded_bytes} bytes, nodes accept {ENTITY_BYTES_MAX}: "
                "split it into several entities"
            )
            raise SchemaViolation({ENTITY: [text]})
