"""A control plane killed in the middle of writing: what was acknowledged is there, the rest is whole or not at all.

A child process writes as fast as it can, eight at a time, and prints each acknowledged version with its name after the
store's word. It is killed without warning at a random moment, several times over one database. After each kill the
parent opens the database and compares it with what it read.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import textwrap
from pathlib import Path

from control_plane.store.contract import Operation
from control_plane.store.sqlite import open_sqlite

ROUNDS = 6
WRITER = textwrap.dedent("""
    import asyncio, itertools, sys
    from pathlib import Path
    from control_plane.store import editor
    from control_plane.store.contract import Origin
    from control_plane.store.sqlite import open_sqlite

    async def main(path, prefix):
        store = await open_sqlite(Path(path))

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


def write_until_killed(path: Path, prefix: str, acknowledged: int) -> dict[int, str]:
    """Kills the writer after that many acknowledgements; returns all that came out of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), prefix],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    lines = []
    with process.stdout as output:
        for line in output:
            lines.append(line)
            if len(lines) == acknowledged:
                process.kill()
    process.wait()
    # The kill can cut the last line in two; a version is acknowledged by the whole of it.
    return {int(version): name for version, name in (line.split() for line in lines if line.endswith("\n"))}


async def test_nothing_acknowledged_is_lost_and_nothing_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    rng = random.Random(20)
    acknowledged: dict[int, str] = {}
    for round_number in range(ROUNDS):
        told = await asyncio.to_thread(write_until_killed, path, f"r{round_number}", rng.randrange(1, 120))
        assert told
        acknowledged |= told

        store = await open_sqlite(path)
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
