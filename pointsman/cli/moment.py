"""Times as operators write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from datetime import time as datetime_time

from pointsman.cli.errors import ExitCode, failure

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parsed(text: str, now: float) -> float:
    """Seconds since 1970 of `+10m`, `22:30` (the next one), `2026-11-28T22:30` (here) or `...Z`, `...+01:00`.

    Raises CliError.
    """
    if (ahead := re.fullmatch(r"\+(\d{1,6})([smhd])", text)) is not None:
        return now + int(ahead.group(1)) * UNITS_S[ahead.group(2)]
    here = datetime.fromtimestamp(now).astimezone()
    try:
        if re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?", text):
            of_day = datetime_time.fromisoformat(text if text[2] == ":" else f"0{text}")
            # Made anew of its parts, since the zone's offset may be another one then.
            then = datetime.combine(here.date(), of_day).astimezone()
            if then <= here:
                then = datetime.combine(here.date() + timedelta(days=1), of_day).astimezone()
            return then.timestamp()
        if re.match(r"\d{4}-\d\d-\d\d[T ]", text):
            return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        pass
    raise failure(
        ExitCode.USAGE,
        f"'{text}' is not a time",
        where="--at",
        remedy="write it like +10m, 22:30, 2026-11-28T22:30 or 2026-11-28T21:30:00Z",
    )
