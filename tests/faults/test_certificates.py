"""Short certificates under load: they are renewed in time, the streams stay, and no request notices.

A certificate ends when its time is over, whatever the node was kept from: a third of its life, which is left when it is
renewed, must be longer than a busy machine may keep a process from running. The long form renews many times.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from cryptography import x509

from tests.support import ledger
from tests.support.enrolled import EnrolledFleet
from tests.support.load import Destination, OpenLoop
from tests.support.patience import PATIENCE_S
from tests.support.rollouts import all_live

LOOKED_AT_S = 1.5
"""How often the control plane looks for certificates that are over, and a little."""


def ends_at(identity: bytes) -> float:
    """When the certificate in a node's identity file ends, in seconds since the epoch."""
    return x509.load_pem_x509_certificates(identity)[0].not_valid_after_utc.timestamp()


async def rotate_under_load(fleet: EnrolledFleet, *, rotations: int, rate: float) -> ledger.Ledger:
    """Load until every node had so many certificates, and a switch now and then; the books of all requests."""
    await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
    await ledger.apply_example(fleet)
    await all_live(fleet)
    load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=rate, host=ledger.HOST)
    load.start()
    seen = [{certificate} for certificate in fleet.certificates()]
    first_ends = max(ends_at(certificate) for certificate in fleet.certificates())
    switches: list[ledger.Switch] = []
    while min(map(len, seen)) <= rotations:
        before = [len(each) for each in seen]
        async with asyncio.timeout(PATIENCE_S):
            while [len(each) for each in seen] == before:
                await asyncio.sleep(0.05)
                for each, certificate in zip(seen, fleet.certificates(), strict=True):
                    each.add(certificate)
        switches.append(await ledger.switch_to(fleet, "green" if len(switches) % 2 == 0 else "blue"))
    while time.time() < first_ends + LOOKED_AT_S:  # each stream outlives the certificate that it began with
        await asyncio.sleep(0.1)
    await load.stop()
    duplicates = await ledger.count_duplicates(fleet)
    return ledger.settle(load, switches, revolutions=0, duplicates=duplicates, check_weights=False)


def streams_lost(fleet: EnrolledFleet) -> list[str]:
    """What the control plane's log says of nodes that were gone while the load ran."""
    lines = fleet.plane.log.read_text().splitlines()
    return [line for line in lines if "is gone" in line or "is refused" in line]


async def test_certificates_rotate_under_load(tmp_path: Path) -> None:
    async with EnrolledFleet(tmp_path, nodes=1, life_s=10.0) as fleet:
        books = await rotate_under_load(fleet, rotations=1, rate=100)
        assert books.failures == []
        assert books.answered_once == books.sent
        assert streams_lost(fleet) == []
