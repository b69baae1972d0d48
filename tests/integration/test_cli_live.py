"""The live view of a canary on a real terminal: the tree is redrawn, each key says its word, q leaves it running."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointsman.cli.json_values import JsonObject
from tests.integration.cli_admin import FakeAdmin
from tests.support import canary_views as made
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
CONSOLE_SCRIPT = "from pointsman.cli.main import run; run()"


class Terminal:
    """The command line at a terminal of 90 columns."""

    def __init__(self, *arguments: str, encoding: str) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "90", "LINES": "40", "PYTHONIOENCODING": encoding}
        self.child = subprocess.Popen(
            [sys.executable, "-c", CONSOLE_SCRIPT, *arguments],
            cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def press(self, key: str) -> None:
        self.shown = ""
        os.write(self._master, key.encode())

    def until(self, *texts: str) -> None:
        """Waits until all of these were drawn since the last key."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(text in self.shown for text in texts):
            assert time.monotonic() < deadline, f"waited in vain for {texts} in:\n{self.shown[-3000:]}"
            self._read(0.1)

    def end(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while self.child.poll() is None:
            assert time.monotonic() < deadline, f"did not end:\n{self.shown[-3000:]}"
            self._read(0.1)
        while self._read(0.0):
            pass
        return self.child.returncode

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        os.close(self._master)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._master], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how Linux says that nobody has the other end any more
            return False
        self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        return bool(data)


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    with FakeAdmin() as fake:
        yield fake


def begin(admin: FakeAdmin, view: JsonObject, *, encoding: str = "utf-8") -> Terminal:
    admin.answer("POST", "/switches", view, status=202).answer("GET", "/switches/7", view)
    arguments = ("switch", "example-service", "--to", "green", "--canary", "5,25,100", "--addr", admin.address)
    return Terminal(*arguments, encoding=encoding)


def until_asked(admin: FakeAdmin, target: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not any((seen.method, seen.target) == ("POST", target) for seen in admin.seen):
        assert time.monotonic() < deadline, target
        time.sleep(0.01)


def test_keys_promote_hold_and_undo(admin: FakeAdmin) -> None:
    terminal = begin(admin, made.shown(made.begun(every_s=None)))
    try:
        terminal.until("held until it is promoted: step 1 of 3", "keys: p promote  h hold  a abort  u undo  q leave")
        terminal.until("├─ • steps      5 % ◌  25 % •  100 % •")
        second = made.on_second_step(every_s=None)
        speak(admin, terminal, "p", "promote", made.shown(second))
        terminal.until("promote: held until it is promoted: step 2 of 3", "5 % ✔  25 % ◌")
        second.hold("ann")
        speak(admin, terminal, "h", "hold", made.shown(second))
        terminal.until("held by ann: step 2 of 3")
        admin.answer("POST", "/switches/7/abort", {"message": "the store is away"}, status=503)
        terminal.press("a")
        terminal.until("abort: ", "the store is away")
        back = made.on_second_step(every_s=None)
        back.abort("slow", "ann", made.BEGAN + 50, undo=True)
        back.written(10, 11, made.BEGAN + 50)
        back.settled(True, "", made.BEGAN + 50.1)
        speak(admin, terminal, "u", "undo", made.shown(back))
        assert terminal.end() == 8
        assert "undone, all requests go where they went before: slow" in terminal.shown
    finally:
        terminal.close()


def test_leaving_leaves_it_running_and_ascii_will_do(admin: FakeAdmin) -> None:
    terminal = begin(admin, made.shown(made.begun()), encoding="ascii")
    try:
        terminal.until(".. watching: step 1 of 3", "`- -- old side")
        terminal.press("q")
        assert terminal.end() == 6
        assert "it goes on: pointsman switch show 7" in terminal.shown
        assert [seen.target for seen in admin.seen if seen.method == "POST"] == ["/switches"]
    finally:
        terminal.close()


def speak(admin: FakeAdmin, terminal: Terminal, key: str, verb: str, then: JsonObject) -> None:
    """Presses a key; from its request on the canary is as `then` shows it."""
    admin.answer("POST", f"/switches/7/{verb}", then)
    terminal.press(key)
    until_asked(admin, f"/switches/7/{verb}")
    admin.answer("GET", "/switches/7", then)
