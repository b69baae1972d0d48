"""A thousand calls made of the OpenAPI document: no 5xx, and no answer that the document does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.openapi_calls import call_everything
from tests.support.processes import ControlPlane

CALLS = 1_000


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path, "--wait-s-max", "0")
    try:
        asyncio.run(plane.up())
        yield plane
    finally:
        plane.destroy()


@pytest.mark.timeout(900)
def test_every_answer_is_in_the_document(plane: ControlPlane) -> None:
    made = call_everything(plane.url, calls=CALLS, seed=1)
    assert made.sent >= CALLS * 0.9
    assert made.statuses[200] > 100
    assert made.statuses[201] > 0
    assert plane.running
