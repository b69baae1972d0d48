"""Where a PostgreSQL database is and how a connection to it is made."""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg
from typing_extensions import override

_FAREWELL_S = 0.2
IN_USE = 0x706F696E74736D6E  # "pointsmn"
"""The advisory lock that each running control plane shares, and that an upgrade or a restore takes for itself."""


class _Connection(asyncpg.Connection):
    """One that is closed without long farewells: they go to servers that may not answer any more."""

    @override
    async def close(self, *, timeout: float | None = None) -> None:
        await super().close(timeout=_FAREWELL_S if timeout is None else min(timeout, _FAREWELL_S))


class Link:
    """A database by its URL, in the form of libpq. `name` is the URL without its password, for messages."""

    def __init__(self, url: str, *, connect_timeout_s: float = 1.5, lock_patience_s: float = 2.0) -> None:
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self.lock_patience_s = lock_patience_s
        parts = urlsplit(url)
        where = parts.hostname or "its socket"
        self.name = f"'{parts.path.lstrip('/')}' at {where}{f':{parts.port}' if parts.port else ''}"

    async def connect(
        self, *, timeout_s: float | None = None, answer_timeout_s: float | None = None
    ) -> asyncpg.Connection:
        """A new connection. A commit is on disk when it is answered, whatever the server's or the role's default.

        `timeout_s` replaces the time that connecting may take. `answer_timeout_s` is how long the server may take for
        one statement: a server that hangs says nothing, so only the client can notice. Raises TimeoutError, here and
        for a statement.
        """
        connection: asyncpg.Connection = await asyncpg.connect(
            self._url,
            timeout=self._connect_timeout_s if timeout_s is None else timeout_s,
            command_timeout=answer_timeout_s,
            connection_class=_Connection,
            server_settings={
                "application_name": "pointsman",
                "lock_timeout": f"{int(self.lock_patience_s * 1000)}ms",
                "idle_in_transaction_session_timeout": "60s",  # a control plane that was stopped gives its lock back
                "jit": "off",
                "TimeZone": "UTC",
            },
        )
        try:
            await connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off'"
            )
        except BaseException:
            connection.terminate()
            raise
        return connection
