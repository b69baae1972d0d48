"""A control plane killed in the middle of writing: what was acknowledged is there, the rest is whole or not at all.

A child process writes as fast as it can, eight at a time, and prints each acknowledged version with its name after the
store's word. It ends without warning, at each fail-point on a write's way in turn, several times over one database.
After each end the parent opens the database and compares it with what it read.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from control_plane.store import failpoints
from control_plane.store.contract import Operation
from control_plane.store.opening import open_store
from tests.support.postgres import KEYRING, KEYRING_LINE, PostgresServer

WRITER = textwrap.dedent("""
    import asyncio, itertools, sys
    from control_plane.store import editor, failpoints
    from control_plane.store.contract import Origin
    from control_plane.store.opening import open_store
    from control_plane.store.keyring import parse

    async def main(keyring, database, prefix, failpoint, passes):
        store = await open_store(database, keyring=parse(keyring, source="the test"))
        failpoints.arm(failpoint, passes=int(passes))

        async def writer(number):
            for turn in itertools.count():
                name = f"{prefix}-{number}-{turn}"

                def work(tx):
                    upstream = editor.create(tx, "upstreams", {"name": name}, now=1.0)
                    for port in (1, 2, 3):
                        body = {"target": f"t:{port}", "upstream": {"id": upstream["id"]}}
                        editor.create(tx, "targets", body, now=1.0)

                written = await store.write(work, Origin())
                sys.stdout.write(f"{written.version} {name}\\n")
                sys.stdout.flush()

        await asyncio.gather(*(writer(number) for number in range(8)))

    asyncio.run(main(*sys.argv[1:]))
""")


def write_until_killed(database: str, prefix: str, failpoint: str, passes: int) -> dict[int, str]:
    """Runs the writer until it ends at the fail-point; returns what it was told until then."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, KEYRING_LINE, database, prefix, failpoint, str(passes)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    # The end can cut the last line in two; a version is acknowledged by the whole of it.
    lines = done.stdout.splitlines(keepends=True)
    return {int(version): name for version, name in (line.split() for line in lines if line.endswith("\n"))}


async def kill_everywhere(database: str, *, rounds: int, rng: random.Random) -> tuple[int, int]:
    """Ends a writer at each fail-point `rounds` times; returns how many versions were told of and are there."""
    acknowledged: dict[int, str] = {}
    for turn in range(rounds):
        for failpoint in failpoints.NAMES:
            passes = rng.randrange(15)
            acknowledged |= await asyncio.to_thread(
                write_until_killed, database, f"{turn}-{failpoint}", failpoint, passes
            )
            await check(database, acknowledged)
        if turn % 5 == 4:  # whoever ends a long series early still has what it came to
            print(f"{(turn + 1) * len(failpoints.NAMES)} kills, {len(acknowledged)} acknowledged", flush=True)
    store = await open_store(database, keyring=KEYRING)
    head = await store.head()
    await store.close()
    return len(acknowledged), head


async def check(database: str, acknowledged: dict[int, str]) -> None:
    store = await open_store(database, keyring=KEYRING)
    history = await store.changes_since(0)
    assert [version.number for version in history] == list(range(1, len(history) + 1))
    names = {}
    for version in history:
        assert [change.operation for change in version.changes] == [Operation.CREATE] * 4
        names[version.number] = str((version.changes[0].after or {})["name"])
    assert {number: names.get(number) for number in acknowledged} == acknowledged
    counts = await store.read(lambda tx: (len(list(tx.each("upstreams"))), len(list(tx.each("targets")))))
    assert counts == (len(history), 3 * len(history))
    await store.close()


@pytest.fixture(params=["postgres", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create(tmp_path.name)


async def test_nothing_acknowledged_is_lost_and_nothing_is_half_written(database: str) -> None:
    told, there = await kill_everywhere(database, rounds=1, rng=random.Random(20))
    assert 0 < told <= there


@pytest.mark.prove
@pytest.mark.timeout(7200)
async def test_kills_at_each_fail_point_40_times(database: str) -> None:
    told, there = await kill_everywhere(database, rounds=40, rng=random.Random(40))
    where = "PostgreSQL" if "://" in database else "SQLite"
    kills = 40 * len(failpoints.NAMES)
    print(f"{kills} kills over {where}: {told} acknowledged versions, all there; {there} in the history, each whole")
