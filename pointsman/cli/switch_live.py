"""A switch on a terminal: the tree, redrawn in place, and keys that speak to it. Leaving it leaves it running."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pointsman.cli import canary_view, switch_view
from pointsman.cli.client import AdminClient
from pointsman.cli.errors import CliError
from pointsman.cli.json_values import JsonObject, as_object, as_text
from pointsman.cli.keys import keys
from pointsman.cli.output import Output
from pointsman.cli.signs import ASCII, UTF8

if TYPE_CHECKING:
    from rich.console import Console

REDRAW_EVERY_S = 0.2
WIDTH_MAX = 120
_VERBS = {"p": "promote", "h": "hold", "a": "abort", "u": "undo"}


def show_live(
    client: AdminClient,
    output: Output,
    console: Console,
    number: int,
    *,
    deadline: float,
    rests: Callable[[JsonObject], bool],
) -> tuple[int, JsonObject]:
    """Shows a switch until it rests, the time is over, or q is pressed; the number and the last of what was shown.

    An undo of a switch that has ended is a switch of its own: from then on that one is shown.
    """
    from rich.live import Live
    from rich.text import Text

    signs = UTF8 if output.utf8 else ASCII
    said = ""

    def drawn(view: JsonObject) -> Text:
        lines = switch_view.tree(view, signs, width=min(console.width, WIDTH_MAX), now=time.time())
        if pressing.there:
            lines.append(said or (canary_view.KEYS if canary_view.is_open(view) else "keys: u undo  q leave"))
        return Text("\n".join(lines), no_wrap=True)

    with keys() as pressing:
        view = _view(client, number)
        with Live(drawn(view), console=console, auto_refresh=False) as live:
            while not rests(view) and time.monotonic() < deadline:
                if not pressing.there and view.get("state") == "held":
                    break  # nobody here can say more
                key = pressing.wait(REDRAW_EVERY_S)
                if key == "q":
                    break
                if key in _VERBS:
                    number, said = _press(client, view, _VERBS[key])
                view = _view(client, number)
                live.update(drawn(view), refresh=True)
    return number, view


def _press(client: AdminClient, view: JsonObject, verb: str) -> tuple[int, str]:
    """What a key asks for: the switch to show from now on, and what came of it."""
    number = int(as_text(view.get("switch")))
    if verb != "undo" and not canary_view.is_canary(view):
        return number, f"{verb} is for canaries: this one goes all at once"
    try:
        answer = as_object(client.write_json("POST", f"/switches/{number}/{verb}", {}).body)
    except CliError as error:
        return number, f"{verb}: {error.faults[0].what}"
    return int(as_text(answer.get("switch"))), f"{verb}: {switch_view.ending(answer)}"


def _view(client: AdminClient, number: int) -> JsonObject:
    return as_object(client.get(f"/switches/{number}").body)
