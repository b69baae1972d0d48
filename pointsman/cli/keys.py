"""Single keys of a terminal, without waiting for a line."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator


class Keys:
    """What is pressed while something is shown; on what is no terminal nothing ever is."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @property
    def there(self) -> bool:
        """Whether anything can be pressed."""
        return self._descriptor is not None

    def wait(self, timeout_s: float) -> str:
        """The next key, in lower case, or an empty text when the time is over first."""
        if self._descriptor is None:
            time.sleep(timeout_s)
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], timeout_s)
        return os.read(self._descriptor, 1).decode("ascii", "ignore").lower() if ready else ""


@contextlib.contextmanager
def keys() -> Iterator[Keys]:
    """Takes keys one by one, unseen, as long as it lasts; Ctrl-C goes on to interrupt."""
    try:
        import termios
        import tty
    except ImportError:  # no such terminals on this system
        yield Keys(None)
        return
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
