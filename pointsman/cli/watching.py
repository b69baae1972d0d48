"""`--watch`: a table kept up to date until it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable

from pointsman.cli.errors import ExitCode, failure
from pointsman.cli.output import Format, Output, Table

WATCH_EVERY_S = 1.0


def watch_table(output: Output, make: Callable[[], Table], *, told_by: int, command: str) -> None:
    """Redraws in place on a terminal; elsewhere prints the table again whenever its first `told_by` columns changed.

    The columns behind those change all the time (ages) or are not worth a new table.
    """
    if output.format is not Format.TABLE:
        raise failure(
            ExitCode.USAGE, "--watch is for eyes", where="-o", remedy=f"poll `pointsman {command} -o json` instead"
        )
    console = output.live_console()
    if not console.is_terminal:
        _watch_lines(output, make, told_by)
        return
    from rich.live import Live

    with Live(output.drawn(make()), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_EVERY_S)
            live.update(output.drawn(make()), refresh=True)


def _watch_lines(output: Output, make: Callable[[], Table], told_by: int) -> None:
    shown: list[tuple[str, ...]] | None = None
    while True:
        table = make()
        facts = [tuple(row[:told_by]) for row in table.rows]
        if facts != shown:
            output.table(table)
            shown = facts
        time.sleep(WATCH_EVERY_S)
