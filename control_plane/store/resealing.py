"""The task that brings a database's secrets to the active key after the keyring was changed, beside everything else."""

from __future__ import annotations

import asyncio
import logging

from control_plane.store import seals
from control_plane.store.contract import StoreError
from control_plane.store.sql_store import SqlStore

_log = logging.getLogger(__name__)


class Resealer:
    """Looks once, at the start, whether other keys are in use, and is done when they are not any more."""

    def __init__(self, store: SqlStore, *, retry_s: float = 5.0) -> None:
        self._store = store
        self._retry_s = retry_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._run(), name="resealer")

    async def stop(self) -> None:
        """Ends; what is done stays done, and the next start goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._reseal()
                return
            except StoreError as error:
                _log.warning("secrets could not be sealed with the active key; it is tried again", extra={"why": error})
                await asyncio.sleep(self._retry_s)

    async def _reseal(self) -> None:
        codec = self._store.codec
        if set(await self._store.in_transaction(seals.keys_in_use)) <= {codec.active}:
            return
        rewritten = await seals.reseal(codec, self._store.in_transaction)
        if rewritten is None:
            _log.warning(
                "another control plane goes on sealing with another key; give all of them the same first line in their "
                "keyrings, then restart this one"
            )
        else:
            _log.info("all secrets are sealed with the active key", extra={"key": codec.active, "rows": rewritten})
