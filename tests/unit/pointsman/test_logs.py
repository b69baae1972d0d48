"""Logs: one line an event, facts as fields, nothing a client sent can forge a line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from pointsman import logs


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield logging.getLogger("test.logs"), io.StringIO()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


Log = tuple[logging.Logger, io.StringIO]


def test_text_has_facts_as_fields(log: Log) -> None:
    logger, stream = log
    logs.set_up(level=logs.LogLevel.INFO, form=logs.LogFormat.TEXT, stream=stream)
    logger.info("listening", extra={"address": "127.0.0.1:1", "why": "two words"})
    line = stream.getvalue()
    assert line.endswith('INFO test.logs: listening address=127.0.0.1:1 why="two words"\n')


def test_json_is_one_object_a_line(log: Log) -> None:
    logger, stream = log
    logs.set_up(level=logs.LogLevel.INFO, form=logs.LogFormat.JSON, stream=stream)
    logger.warning("odd", extra={"version": 7, "name_of": ["x"]})
    event = json.loads(stream.getvalue())
    assert (event["level"], event["logger"], event["message"]) == ("warning", "test.logs", "odd")
    assert (event["version"], event["name_of"]) == (7, "['x']")


def test_less_severe_events_are_left_out(log: Log) -> None:
    logger, stream = log
    logs.set_up(level=logs.LogLevel.WARNING, form=logs.LogFormat.TEXT, stream=stream)
    logger.info("quiet")
    assert stream.getvalue() == ""


def test_libraries_keep_their_details_to_themselves(log: Log) -> None:
    _, stream = log
    logs.set_up(level=logs.LogLevel.DEBUG, form=logs.LogFormat.TEXT, stream=stream)
    for library in ("sqlalchemy.engine.Engine", "alembic.runtime.migration", "asyncio", "aiohttp.server", "grpc"):
        logging.getLogger(library).info("a statement with its values")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("form", list(logs.LogFormat))
def test_no_forged_lines(log: Log, form: logs.LogFormat) -> None:
    logger, stream = log
    logs.set_up(level=logs.LogLevel.INFO, form=form, stream=stream)
    logger.info("path %s", "/a\nERROR forged", extra={"path": "/b\r\n2026 forged"})
    assert stream.getvalue().count("\n") == 1
    assert "\r" not in stream.getvalue()


@pytest.mark.parametrize("form", list(logs.LogFormat))
def test_exceptions_are_written(log: Log, form: logs.LogFormat) -> None:
    logger, stream = log
    logs.set_up(level=logs.LogLevel.INFO, form=form, stream=stream)
    try:
        raise ValueError("inner")
    except ValueError:
        logger.exception("outer")
    text = stream.getvalue()
    assert "outer" in text
    assert "ValueError: inner" in text
    if form is logs.LogFormat.TEXT:
        assert all(line.startswith("    ") for line in text.splitlines()[1:])
