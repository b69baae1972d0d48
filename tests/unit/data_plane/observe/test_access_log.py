"""The log's queue and thread: lines arrive in order, a full queue drops and counts, a moved file is opened anew."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from data_plane.observe.access_log import AccessLog, AccessLogSettings, Record
from tests.unit.data_plane.observe.test_log_lines import RECORD


def _line(record: Record) -> bytes:
    return record.path + b"\n"


def _record(number: int) -> Record:
    return RECORD._replace(path=b"/%d" % number)


def test_lines_are_written_in_order_and_all_of_them_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(AccessLogSettings(str(path)), _line)
    log.start()
    for number in range(500):
        log.put(_record(number))
    log.stop()
    assert path.read_text() == "".join(f"/{number}\n" for number in range(500))
    assert (log.written, log.dropped, log.lost) == (500, 0, 0)
    assert path.stat().st_mode & 0o007 == 0


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def slow(record: Record) -> bytes:
        writing.set()
        go_on.wait(10)
        return _line(record)

    log = AccessLog(AccessLogSettings(str(tmp_path / "access.log"), queue_max=3), slow)
    log.start()
    log.put(_record(0))
    writing.wait(10)
    for number in range(1, 10):
        log.put(_record(number))
    assert log.dropped == 7
    go_on.set()
    log.stop()
    assert log.written == 3


def test_reopening_goes_on_in_a_new_file_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    written = threading.Event()

    def line(record: Record) -> bytes:
        if record.path == b"/1":
            written.set()
        return _line(record)

    log = AccessLog(AccessLogSettings(str(path)), line)
    log.start()
    log.put(_record(0))
    log.reopen()
    log.put(_record(1))
    written.wait(10)
    path.rename(tmp_path / "access.log.1")
    log.reopen()
    log.put(_record(2))
    log.stop()
    lines = [(tmp_path / name).read_text() for name in ("access.log.1", "access.log") if (tmp_path / name).exists()]
    assert "".join(lines) == "/0\n/1\n/2\n"
    assert path.read_text().endswith("/2\n")


def test_a_file_that_cant_be_written_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    log = AccessLog(AccessLogSettings(str(tmp_path / "missing" / "access.log")), _line)
    log.start()
    log.put(_record(0))
    log.stop()
    assert (log.written, log.lost) == (0, 1)


def test_a_record_that_breaks_the_formatter_is_counted(tmp_path: Path) -> None:
    def line(record: Record) -> bytes:
        if record.path == b"/1":
            raise ValueError("no line")
        return _line(record)

    path = tmp_path / "access.log"
    log = AccessLog(AccessLogSettings(str(path)), line)
    log.start()
    for number in range(3):
        log.put(_record(number))
    log.stop()
    assert path.read_text() == "/0\n/2\n"
    assert log.lost == 1


def test_a_pipe_that_nobody_reads_holds_up_nobody() -> None:
    reader, writer = os.pipe()
    try:
        log = AccessLog(AccessLogSettings(f"/proc/self/fd/{writer}", queue_max=10), lambda _: b"x" * 100_000 + b"\n")
        log.start()
        for number in range(100):
            log.put(_record(number))
        assert log.dropped > 0
    finally:
        os.close(reader)
        log.stop()
        os.close(writer)
