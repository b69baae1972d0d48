"""Two jobs, one gateway, real nodes: the later job is refused, the way back is waited for, traffic follows.

All by the command line as an operator uses it, in a process of its own, with the control plane kept as a context.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.support.processes import Fleet
from tests.support.rollouts import all_live


class Operator:
    """Somebody at a terminal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {**os.environ, "POINTSMAN_CONTEXTS": str(folder / "contexts.toml")}

    async def run(self, *arguments: str, exits: int = 0, text: str = "") -> str:
        """Runs a command; returns stdout and stderr together."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; from pointsman.cli.main import main; sys.exit(main(sys.argv[1:]))",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
        )
        out, _ = await process.communicate(text.encode())
        assert process.returncode == exits, (arguments, out.decode())
        return out.decode()

    async def json(self, *arguments: str, text: str = "") -> Any:
        """Runs a command with `-o json`."""
        return json.loads(await self.run(*arguments, "-o", "json", text=text))


def config(path: str) -> str:
    return json.dumps(
        {"services": [{"name": "s", "url": "http://127.0.0.1:1", "routes": [{"name": "r", "paths": [path]}]}]}
    )


async def test_a_job_that_comes_late_is_refused_and_a_rollback_is_waited_for(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    async with Fleet(tmp_path, nodes=2) as fleet:
        await fleet.start({})
        await operator.run("context", "set", "here", "--addr", fleet.control_plane.url)
        await operator.run("sync", "-f", "-", text=config("/first"))
        await all_live(fleet)

        compared = await operator.json("diff", "-f", "-", text=config("/second"))
        head, position = compared["version"], str(compared["compared_with"])
        await operator.run("route", "set", "r", 'tags=["theirs"]', "--wait", "30")
        late = await operator.run("sync", "-f", "-", "--expect-version", position, text=config("/second"), exits=4)
        assert "others have written since" in late
        assert (await operator.json("version", "show", str(head + 1)))["source"] == "admin-api"

        await operator.run("sync", "-f", "-", "--expect-version", str(head + 1), "--wait", "30", text=config("/second"))
        assert await routed(fleet, "/second") == [True, True]
        refused = await operator.run("rollback", str(head), "--expect-version", str(head), exits=4)
        assert "nothing was changed" in refused
        told = await operator.run("rollback", str(head), "--reason", "second is ill", "--wait", "30")
        assert f"version {head + 3}: as version {head} was" in told
        assert await routed(fleet, "/first") == [True, True]
        assert await routed(fleet, "/second") == [False, False]
        newest = (await operator.json("history", "--size", "1"))["data"][0]
        assert (newest["source"], newest["reason"]) == ("rollback", "second is ill")


async def routed(fleet: Fleet, path: str) -> list[bool]:
    """Whether each node has a route for a path; nobody answers behind it, which is another refusal than none."""
    statuses = []
    for node in fleet.nodes:
        host, port = node.proxy_address
        answer = await fleet.call("GET", f"http://{host}:{port}{path}")
        statuses.append(answer.status)
    return [status != 404 for status in statuses]
