"""Runs the shell commands of a document, in order, against a real control plane and real nodes on loopback.

Blocks fenced as `sh` are run, those fenced as `text` right behind one are what it prints, all others are not meant to
run. Ports that a document names (8000-8099, 9000-9099) become ports that the kernel chose, in the commands and through
the settings of both planes, so that a reader's commands need no change to be tested. Where a reader would take a breath
after starting something, the run waits until that something answers.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.patience import PATIENCE_S

ALL_COMMANDS_S = 2.5 * PATIENCE_S
"""For all commands of a document: some show what takes seconds."""
OUT_OF_TIME = 124
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = re.compile(r"\b(?:80|90)\d\d\b")
STATUS_DEFAULT = "8007"
ADMIN_DEFAULT = "8001"

# Each probe is bounded: 2,400 x 50 ms. `up` asks for a connection, `joined` for a node that
# has reached the control plane and runs its newest version.
PRELUDE = r"""
set -euo pipefail
up() {
    for _ in $(seq 2400); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.05
    done
    echo "nothing listens on port $1" >&2
    exit 1
}
joined() {
    local head
    head=$(curl -s "$POINTSMAN_ADDR/versions?size=1" | grep -o '"version":[0-9]*' | head -n 1 || true)
    up "$1"
    for _ in $(seq 2400); do
        if curl -s "http://127.0.0.1:$1/status" | tr -d ' ' | grep '"control_plane_connected":true' |
            grep -q "${head:-control_plane_connected}"; then return; fi
        sleep 0.05
    done
    echo "the node with status port $1 did not reach the control plane, or not its version" >&2
    exit 1
}
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One block to run, and the lines that it must print; `line` is where it stands in the document."""

    line: int
    commands: str
    prints: tuple[str, ...] = ()


def blocks_of(text: str) -> list[Block]:
    """The blocks of a document that are meant to run."""
    found: list[Block] = []
    end = -1
    for match in BLOCK.finditer(text):
        language, content = match[1], match[2]
        if language == "sh":
            found.append(Block(text.count("\n", 0, match.start()) + 1, content))
        elif language == "text" and found and not text[end : match.start()].strip() and end >= 0:
            found[-1] = Block(found[-1].line, found[-1].commands, tuple(content.splitlines()))
        end = match.end() if language == "sh" else -1
    return found


class Ports:
    """A kernel-chosen port for each port that a document names; held until the commands run, so no two are the same."""

    def __init__(self, named: Sequence[str]) -> None:
        with ExitStack() as held:
            self._chosen: dict[str, int] = {}
            for name in sorted(set(named)):
                sock = held.enter_context(socket.socket())
                sock.bind(("127.0.0.1", 0))
                self._chosen[name] = sock.getsockname()[1]

    def __getitem__(self, name: str) -> int:
        return self._chosen[name]

    def put_into(self, commands: str) -> str:
        """The commands with the chosen ports."""
        return PORT.sub(lambda found: str(self._chosen[found[0]]), commands)


def script_of(blocks: Sequence[Block], ports: Ports) -> str:
    """All blocks as one script; a line before each block's output names it."""
    lines = [PRELUDE]
    for number, block in enumerate(blocks):
        lines.append(f"printf '\\n@@block {number}@@\\n'")
        for line in block.commands.splitlines():
            lines.append(ports.put_into(line))
            if line.rstrip().endswith("&"):
                lines.extend(_waits(line, ports))
    return "\n".join(lines) + "\n"


def _waits(line: str, ports: Ports) -> list[str]:
    if "pointsman control-plane" in line:
        return [f"up {ports[ADMIN_DEFAULT]}"]
    if "pointsman data-plane" in line:
        named = re.search(r"--status-listen \S+:(\d+)", line)
        return [f"joined {ports[named[1] if named else STATUS_DEFAULT]}"]
    listens = PORT.search(line)
    return [f"up {ports[listens[0]]}"] if listens else []


def run(document: Path, folder: Path) -> list[str]:
    """Runs a document in `folder`; returns what went wrong, one line each, empty when all is as it says."""
    blocks = blocks_of(document.read_text())
    named = [port for block in blocks for port in PORT.findall(block.commands)]
    ports = Ports([*named, "8000", ADMIN_DEFAULT, "8005", STATUS_DEFAULT])
    (folder / "examples").symlink_to(Path(__file__).parents[2] / "examples")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "POINTSMAN_ADDR": f"http://127.0.0.1:{ports[ADMIN_DEFAULT]}",
        "POINTSMAN_ADMIN_LISTEN": f"127.0.0.1:{ports[ADMIN_DEFAULT]}",
        "POINTSMAN_FLEET_LISTEN": f"127.0.0.1:{ports['8005']}",
        "POINTSMAN_CONTROL_PLANE": f"127.0.0.1:{ports['8005']}",
        "POINTSMAN_PROXY_LISTEN": f"127.0.0.1:{ports['8000']}",
        "POINTSMAN_STATUS_LISTEN": f"127.0.0.1:{ports[STATUS_DEFAULT]}",
        "POINTSMAN_WORKERS": "1",
        "POINTSMAN_DRAIN_DELAY_S": "0",
    }
    output = _execute(script_of(blocks, ports), folder, environment)
    return _compare(blocks, output)


@dataclass(frozen=True, slots=True)
class Output:
    """What a script printed, and how it ended."""

    code: int
    stdout: str
    stderr: str


def _execute(script: str, folder: Path, environment: dict[str, str]) -> Output:
    # Files, not pipes: what the script leaves running in the background would keep a pipe open.
    with (folder / "stdout").open("w+") as stdout, (folder / "stderr").open("w+") as stderr:
        child = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True,
        )  # fmt: skip
        try:
            code = child.wait(ALL_COMMANDS_S)
        except subprocess.TimeoutExpired:
            code = OUT_OF_TIME
        finally:
            with suppress(ProcessLookupError):  # nothing was left in the background
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        stdout.seek(0)
        stderr.seek(0)
        return Output(code, stdout.read(), stderr.read())


def _compare(blocks: Sequence[Block], output: Output) -> list[str]:
    printed = re.split(r"\n@@block \d+@@\n", output.stdout)[1:]
    if output.code != 0:
        block = blocks[max(len(printed) - 1, 0)]
        said = f"{(printed or [''])[-1][-1500:]}{output.stderr[-3000:]}"
        how = f"were not done after {ALL_COMMANDS_S:g} s" if output.code == OUT_OF_TIME else f"ended with {output.code}"
        return [f"the commands from line {block.line} {how}:\n{said}"]
    problems = []
    for block, said in zip(blocks, printed, strict=True):
        lines = {line.strip() for line in said.splitlines()}
        problems += [
            f"the commands from line {block.line} did not print '{line}' but:\n{said}"
            for line in block.prints
            if line.strip() not in lines
        ]
    return problems
