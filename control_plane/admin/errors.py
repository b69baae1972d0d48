"""Errors of the inner rooms -> HTTP: the one place that gives an entity's error its status."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from control_plane.admin.messages import Answer, json_answer, message_answer
from control_plane.entities.errors import EntityError
from control_plane.store.contract import StoreError

STATUS_BY_CODE: Mapping[int, int] = MappingProxyType(
    {
        1: 400,  # invalid primary key
        2: 400,  # schema violation
        3: 400,  # primary key violation
        4: 400,  # foreign key violation
        5: 409,  # unique constraint violation
        6: 404,  # not found
        7: 400,  # invalid offset
        9: 400,  # invalid size
        10: 400,  # invalid unique
        11: 400,  # invalid options
        12: 405,  # operation unsupported
        13: 400,  # foreign keys unresolved
        14: 400,  # invalid declarative configuration
        19: 400,  # referenced by others
        100: 409,  # held by a rollout
    }
)
"""Kong's codes for clients' mistakes. A test holds it complete against the error classes that there are."""


def error_answer(error: EntityError) -> Answer:
    """Kong's error object with its status."""
    return json_answer(STATUS_BY_CODE[error.code], error.to_json())


def store_answer(error: StoreError) -> Answer:
    """503: nothing was written, and the same request may succeed later."""
    return message_answer(503, f"{error}; nothing was written", {"Retry-After": str(error.retry_after_s)})
