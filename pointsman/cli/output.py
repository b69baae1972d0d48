"""Printing: data as a table, JSON, YAML or bare names on stdout; messages and errors on stderr.

Tables are for eyes only, and plain enough for a dumb terminal: columns and spaces, no lines, state as a word before
colour. Scripts use `-o json`, whose shape is the Admin API's own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO, assert_never

from pointsman.cli.errors import ExitCode, Fault
from pointsman.cli.json_values import Json, as_number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

UNWRAPPED_COLUMNS = 10_000
"""Width of a table that no terminal shows: a pipe gets every row on one line, whatever its length."""


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Table:
    """Columns with their rows; every row has a text for every column. Columns without any text are not shown."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def shown(self) -> Sequence[int]:
        """The positions of the columns that have something to show."""
        return [at for at in range(len(self.columns)) if any(row[at] for row in self.rows)]


_STYLES = {
    "created": "green",
    "current": "green",
    "connecting": "yellow",
    "disconnected": "yellow",
    "lagging": "yellow",
    "syncing": "yellow",
    "updated": "yellow",
    "ahead": "red",
    "deleted": "red",
    "expired": "red",
    "rejected": "red",
}
"""Colour for state words; the word itself always carries the meaning."""


class Output:
    """Where a command prints."""

    def __init__(
        self, form: Format, *, quiet: bool, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self.format = form
        self.quiet = quiet
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr

    def message(self, text: str) -> None:
        """Something for the operator that is not data. None with JSON: whoever parses one stream may parse both."""
        if not self.quiet and self.format is not Format.JSON:
            print(text, file=self._stderr)

    def data(self, value: Json, *, table: Table, names: Sequence[str]) -> None:
        """The result of a command, in the format asked for; `names` are what `-o name` lists, one a line."""
        match self.format:
            case Format.TABLE:
                self.table(table)
            case Format.JSON:
                print(json.dumps(value, indent=2, ensure_ascii=not self.utf8), file=self._stdout)
            case Format.YAML:
                import yaml

                text: str = yaml.dump(value, Dumper=yaml.CSafeDumper, allow_unicode=self.utf8, sort_keys=False)
                self._stdout.write(text)
            case Format.NAME:
                for name in names:
                    print(name, file=self._stdout)
            case _:
                assert_never(self.format)

    def text(self, text: str) -> None:
        """Data that is text already."""
        self._stdout.write(text if text.endswith("\n") or not text else text + "\n")

    def line(self, text: str) -> None:
        """One line of something that goes on; it is out at once."""
        print(text, file=self._stdout, flush=True)

    def table(self, table: Table) -> None:
        """Prints a table; one without rows prints nothing."""
        if not table.rows:
            return
        console = self._console()
        if console.color_system is not None:
            console.print(_drawn(table))
            return
        with console.capture() as captured:
            console.print(_drawn(table))
        self._stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())

    def live_console(self) -> Console:
        """A console for displays that redraw themselves."""
        return self._console()

    def drawn(self, table: Table) -> RichTable:
        """The table for such a display."""
        return _drawn(table)

    def faults(self, exit_code: ExitCode, faults: Sequence[Fault]) -> None:
        """What went wrong; always printed, also with --quiet."""
        if self.format is Format.JSON:
            told = [{"what": fault.what, "where": fault.where, "remedy": fault.remedy} for fault in faults]
            value = {"exit_code": int(exit_code), "errors": told}
            print(json.dumps(value, indent=2, ensure_ascii=not self.utf8), file=self._stderr)
            return
        for fault in faults:
            print(_fault_text(fault), file=self._stderr)

    @property
    def utf8(self) -> bool:
        """Whether the data stream can show more than ASCII."""
        return "utf" in (getattr(self._stdout, "encoding", None) or "utf-8").lower()

    def _console(self) -> Console:
        from rich.console import Console

        is_terminal = self._stdout.isatty()
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() else None
        if width is None and not is_terminal:
            width = UNWRAPPED_COLUMNS
        return Console(
            file=self._stdout,
            width=width,
            no_color=True if os.environ.get("NO_COLOR") else None,
            force_terminal=is_terminal,
            highlight=False,
            emoji=False,
            markup=False,
        )


def local_time(value: Json) -> str:
    """A time of the wire, in the operator's own zone; empty for none."""
    number = as_number(value)
    return datetime.fromtimestamp(number).astimezone().strftime("%Y-%m-%d %H:%M:%S") if number is not None else ""


def _fault_text(fault: Fault) -> str:
    """One fault as lines for eyes."""
    lines = [f"error: {fault.what}"]
    if fault.where:
        lines.append(f"  where: {fault.where}")
    if fault.remedy:
        lines.append(f"  to do: {fault.remedy}")
    return "\n".join(lines)


def _drawn(table: Table) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown = table.shown
    for column in (table.columns[at] for at in shown):
        # Fold rather than cut: a name that is cut can't be copied, and the mark of a cut needs UTF-8.
        drawn.add_column(column, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(row[at], style=_STYLES.get(row[at], ""), overflow="fold") for at in shown))
    return drawn
