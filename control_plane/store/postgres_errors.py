"""What an error of PostgreSQL or of the way to it means: whether it passes, and what to tell an operator."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg
from sqlalchemy.exc import DBAPIError

from control_plane.store.contract import StoreBusy, StoreError, StoreUnavailable

_TEXTS = {
    "28": "it refuses this user or password; correct the URL",
    "3D": "there is no such database; create it, or correct the URL",
    "42501": "this user lacks a permission; make it the owner of the database",
    "53100": "its disk is full; free some space",
    "53200": "the server is out of memory",
    "53300": "it takes no more connections; raise max_connections, or end what holds them",
    "25006": "it is read-only; name the primary server, not a standby",
    "57P03": "it is starting up or shutting down",
    "57P01": "the connection was ended by the server",
    "57P02": "the connection was ended by a crash of the server",
    "57014": "a statement took too long",
    "XX": "it reports damage or a mistake of its own; look into the server's log",
}
_PASSING = ("08", "57", "53300", "25006", "40")
_CROSSED = ("40001", "40P01")
_LOCKED = "55P03"


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error as the store's callers should see it."""

    error: StoreError
    passing: bool
    """Trying again on a new connection may succeed within moments."""
    crossed: bool = False
    """Another transaction got in the way."""


def judge(error: BaseException, *, name: str, lock_patience_s: float) -> Trouble | None:
    """What an error means; None for one that is not of the database, which is its caller's."""
    if isinstance(error, StoreError):
        return None
    original = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(original, "sqlstate", None) or _cause_state(original)
    if state == _LOCKED:
        text = f"another control plane has been writing for more than {lock_patience_s:g} s; ask again shortly"
        return Trouble(StoreBusy(text), passing=False)
    if state is not None:
        reason = _TEXTS.get(state) or _TEXTS.get(state[:2]) or f"{_first_line(original)} (SQLSTATE {state})"
        passing = state in _PASSING or state[:2] in _PASSING
        return Trouble(_unavailable(name, reason), passing=passing, crossed=state in _CROSSED)
    if isinstance(error, DBAPIError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return Trouble(_unavailable(name, f"the connection was lost ({_first_line(original)})"), passing=True)
    if isinstance(error, TimeoutError):
        return Trouble(_unavailable(name, "the server does not answer"), passing=True)
    if isinstance(error, OSError):
        return Trouble(_unavailable(name, f"it cannot be reached: {error.strerror or error}"), passing=True)
    return None


def _cause_state(error: BaseException | None) -> str | None:
    """SQLAlchemy's adapter hides the driver's error behind one of its own."""
    cause = error.__cause__ if error is not None else None
    state: str | None = getattr(cause, "sqlstate", None)
    return state


def _unavailable(name: str, reason: str) -> StoreUnavailable:
    return StoreUnavailable(f"the database {name} cannot be used: {reason}")


def _first_line(error: BaseException | None) -> str:
    """Without the class that SQLAlchemy's adapter puts before the server's words."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.partition("'>: ")[2] or line
