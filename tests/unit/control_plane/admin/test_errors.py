"""Every domain error has an HTTP status."""

from __future__ import annotations

import pytest

from control_plane.admin.errors import STATUS_BY_CODE, error_answer
from control_plane.declarative import FileRefused
from control_plane.entities import errors
from control_plane.entities.errors import EntityError, NotFound, UniqueViolation
from control_plane.store.contract import StoreBusy, StoreUnavailable
from tests.unit.control_plane.admin.conftest import Client


def error_classes(of: type[EntityError] = EntityError) -> list[type[EntityError]]:
    return [below for direct in of.__subclasses__() for below in (direct, *error_classes(direct))]


def test_the_error_classes_are_found() -> None:
    assert {errors.SchemaViolation, FileRefused} <= set(error_classes())


@pytest.mark.parametrize("error", error_classes())
def test_every_error_has_a_status(error: type[EntityError]) -> None:
    assert 400 <= STATUS_BY_CODE[error.code] < 500


def test_the_answer_is_kongs_object() -> None:
    answer = error_answer(UniqueViolation({"name": "x"}))
    assert answer.status == 409
    assert b'"code":5' in answer.body
    assert error_answer(NotFound({"name": "x"})).status == 404


@pytest.mark.parametrize("error", [StoreBusy("full"), StoreUnavailable("disk is full", retry_after_s=5)])
async def test_a_store_that_can_not_is_503(
    client: Client, monkeypatch: pytest.MonkeyPatch, error: StoreBusy | StoreUnavailable
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(type(client.store), "write", fail)
    answer = await client.ask("POST", "/services", {"host": "h"})
    assert answer.status == 503
    assert answer.headers["Retry-After"] == str(error.retry_after_s)
    assert str(error).encode() in answer.body
