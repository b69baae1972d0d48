"""Fifty thousand calls made of the OpenAPI document. Prints its figures."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.support.openapi_calls import call_everything
from tests.support.processes import ControlPlane

CALLS = int(os.environ.get("POINTSMAN_OPENAPI_CALLS", "50000"))
SEED = int(os.environ.get("POINTSMAN_SEED", "2"))


@pytest.mark.prove
@pytest.mark.timeout(7200)
def test_every_answer_is_in_the_document(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, "--wait-s-max", "0")
    try:
        asyncio.run(plane.up())
        print(f"\nseed {SEED}: {call_everything(plane.url, calls=CALLS, seed=SEED)}")
        assert plane.running
    finally:
        plane.destroy()
