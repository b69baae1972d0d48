"""`python -m control_plane`: settings, logging, and the run of the process until SIGTERM or SIGINT.

Exit codes: 0 stopped as asked, 1 could not start, failed, or the database was restored beneath it, 64 settings that
can't be used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import uvloop

from control_plane.settings import Settings
from pointsman import heap, logs
from pointsman.settings import SettingsError, load
from pointsman.version import software_version

if TYPE_CHECKING:
    from control_plane.wiring import ControlPlane

EXIT_FAILED = 1
EXIT_USAGE = 64

_log = logging.getLogger("control_plane")


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a control plane; returns the exit code."""
    try:
        settings = load(
            Settings,
            arguments,
            environment,
            program="pointsman control-plane",
            description="The control plane: entity store, Admin API and fleet link.",
            version=software_version,
        )
        settings.check()
    except SettingsError as error:
        sys.stderr.write(f"pointsman control-plane: {error}\n")
        return EXIT_USAGE
    logs.set_up(level=settings.log_level, form=settings.log_format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # The parts take a second to load, which wrong settings and --help need not wait for.
    from control_plane import wiring  # noqa: PLC0415

    try:
        return uvloop.run(_run(wiring.ControlPlane(settings)))
    except wiring.StartError as error:
        _log.error("the control plane can't start: %s", error)
        return EXIT_FAILED
    except Exception:
        _log.exception("the control plane failed")
        return EXIT_FAILED


SWITCH_INTERVAL_S = 0.0002
"""How long one thread may keep the interpreter from another. The store's writer gives it up with every statement, and
by Python's own 5 ms has to wait as long to get it back from a busy loop; so has the loop while a file is planned."""


async def _run(control_plane: ControlPlane) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with control_plane as plane:
        heap.settle()
        heap.collect_rarely()
        ends = {asyncio.create_task(stop.wait()), asyncio.create_task(plane.until_put_back())}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if not stop.is_set():
            _log.critical(
                "the database was put back to another history beneath this control plane, which ends: all that it "
                "knows is of the one before; start it anew, as a service manager does by itself"
            )
        _log.info("stopping")
    _log.info("stopped")
    return 0 if stop.is_set() else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
