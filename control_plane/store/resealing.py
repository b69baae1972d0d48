"""What brings a database's secrets to the active key after the keyring was changed, beside everything else."""

from __future__ import annotations

import asyncio
import logging

from control_plane.store import seals
from control_plane.store.contract import StoreError
from control_plane.store.sql_store import SqlStore

_log = logging.getLogger(__name__)


async def reseal_with_active_key(store: SqlStore, *, retry_s: float = 5.0) -> None:
    """Looks once whether other keys are in use, and returns when they are not any more.

    Cancelled, it leaves what is done; the next one goes on from there.
    """
    while True:
        try:
            await _reseal(store)
            return
        except StoreError as error:
            _log.warning("secrets could not be sealed with the active key; it is tried again", extra={"why": error})
            await asyncio.sleep(retry_s)


async def _reseal(store: SqlStore) -> None:
    codec = store.codec
    if set(await store.in_transaction(seals.keys_in_use)) <= {codec.active}:
        return
    rewritten = await seals.reseal(codec, store.in_transaction)
    if rewritten is None:
        _log.warning(
            "another control plane goes on sealing with another key; give all of them the same first line in their "
            "keyrings, then restart this one"
        )
    else:
        _log.info("all secrets are sealed with the active key", extra={"key": codec.active, "rows": rewritten})
