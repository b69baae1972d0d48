"""How both planes log: one line an event on stderr, as text for eyes or as JSON for machines.

    2026-11-23T21:55:01.123Z INFO control_plane.admin: listening address=127.0.0.1:8001
    {"time":"2026-11-23T21:55:01.123Z","level":"info","logger":"control_plane.admin","message":"listening","address":"127.0.0.1:8001"}

Facts go into `extra={...}` and come out as fields, so that nobody has to parse sentences. Whatever a client sent
can't forge a line: control characters are escaped in both forms.
"""

from __future__ import annotations

import enum
import json
import logging
import sys
import time
from typing import TextIO

from typing_extensions import override


class LogLevel(enum.StrEnum):
    """The least severity that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    """Text for eyes, JSON for machines."""

    TEXT = "text"
    JSON = "json"


def set_up(*, level: LogLevel, form: LogFormat, stream: TextIO | None = None) -> None:
    """Sends the whole process's logging to `stream` (stderr), replacing what was set up before."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_JsonFormatter() if form is LogFormat.JSON else _TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # No line says where in the code it comes from, nor in which thread: finding that out costs more than all the rest.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # What they say below a warning is about themselves. SQLAlchemy's info is every statement with its values, which
    # is as slow as it is indiscreet.
    for chatty in ("asyncio", "aiohttp", "grpc", "sqlalchemy", "alembic"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class _TextFormatter(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        parts = [f"{_time(record)} {record.levelname} {record.name}: {_one_line(record.getMessage())}"]
        parts.extend(f"{name}={_value(value)}" for name, value in _facts(record).items())
        line = " ".join(parts)
        if record.exc_info:
            # A traceback is for a human to read; it is indented so that no line of it can pass for an event.
            line += "\n    " + self.formatException(record.exc_info).replace("\n", "\n    ")
        return line


class _JsonFormatter(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _facts(record).items():
            fields.setdefault(name, value if isinstance(value, bool | int | float | None) else str(value))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=True, separators=(",", ":"))


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _value(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not any(character in text for character in ' "='):
        return text
    return json.dumps(text)
