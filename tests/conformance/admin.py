"""Replays a recording of an Admin API against ours and says what differs.

    python -m tests.conformance admin FILE [--url http://127.0.0.1:8001] [--accepted FILE] [--groups services*,routes*]

Without `--url` a control plane over an empty store is started for it, and a node beside it. Every step of the file is
sent, because later steps stand on earlier ones; those of the groups asked for are scored. The accepted list names
differences that we want, with the reason and our own answer; an accepted step must be answered just so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import fnmatch
import http.client
import http.server
import json
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from typing_extensions import override

from tests.conformance.admin_compare import Answer, Ids, Json, differences
from tests.support.patience import PATIENCE_S
from tests.support.processes import ControlPlane, Node, StartError

ACCEPTED = Path(__file__).with_name("accepted-admin.yaml")
LIVE_PORTS = (19001, 19002)
"""Where the recording's targets lived; it is asked for the health of the first."""

_NAME = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded call. Templates hold `{{name}}` for what earlier steps captured."""

    number: int
    group: str
    method: str
    path: str
    headers: dict[str, str]
    body: str | None
    captures: dict[str, str]
    answer: Answer

    @classmethod
    def read(cls, line: str) -> Step:
        """Reads one line of a recording."""
        raw = json.loads(line)
        return cls(
            number=raw["step"],
            group=raw["group"],
            method=raw["method"],
            path=raw["path_template"],
            headers=raw["request_headers"],
            body=raw["request_body_template"],
            captures=raw["captures"] or {},
            answer=Answer(
                raw["status"],
                {name.lower(): value for name, value in raw["response_headers"]},
                raw["response_text"] or "",
            ),
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """A difference that is meant, by step or by what was sent and recorded; patterns must match somewhere."""

    reason: str
    status: int
    body: str  # pattern over our body
    step: int | None = None
    method: str = ""
    path: str = ""
    request_body: str = ""
    request_headers: str = ""  # pattern over the headers' JSON
    recorded_status: int | None = None
    recorded_body: str = ""
    differs: str = ""  # pattern that everything which differs must match; empty = anything may

    def covers(self, step: Step) -> bool:
        """Whether it speaks of this step."""
        if self.step is not None:
            return step.number == self.step
        return (
            self.recorded_status in (None, step.answer.status)
            and re.fullmatch(self.method or ".*", step.method) is not None
            and re.search(self.path, step.path) is not None
            and re.search(self.request_body, step.body or "") is not None
            and re.search(self.request_headers, json.dumps(step.headers)) is not None
            and re.search(self.recorded_body, step.answer.text) is not None
        )

    def fits(self, ours: Answer, found: Sequence[str]) -> bool:
        """Whether we answered as the list says that we do, and nothing else differs."""
        return (
            ours.status == self.status
            and re.search(self.body, ours.text) is not None
            and all(re.search(self.differs, difference) is not None for difference in found)
        )


def read_accepted(path: Path) -> list[Accepted]:
    """The accepted list: YAML or JSON, a list of mappings with the fields of `Accepted`, ours below `ours`."""
    rows = yaml.safe_load(path.read_text()) or []
    return [
        Accepted(
            **{name: value for name, value in row.items() if name != "ours"},
            status=row["ours"]["status"],
            body=row["ours"].get("body", ""),
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Score:
    """How a replay ended. `lines` is the report, without the last line."""

    passed: int
    total: int
    failing: tuple[int, ...]
    lines: tuple[str, ...]


class Replay:
    """Sends the steps of a recording, one after the other, to one Admin API."""

    def __init__(self, url: str, accepted: Sequence[Accepted], *, live: bool) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=PATIENCE_S)
        self._accepted = accepted
        self._live = live
        self._captured: dict[str, str] = {}
        self._ids = Ids()

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def run(self, steps: Sequence[Step], groups: Sequence[str]) -> Score:
        """Replays all steps and scores those of the groups; no groups = all."""
        lines: list[str] = []
        failing: list[int] = []
        passed: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for step in steps:
            result = self._step(step)
            if groups and not _in(step.group, groups):
                continue
            total[step.group] += 1
            if isinstance(result, Accepted):
                lines.append(f"accepted {step.number}: {result.reason}")
            elif result:
                failing.append(step.number)
                lines.append(f"step {step.number}: {step.method} {step.path}: {'; '.join(result)}")
                continue
            passed[step.group] += 1
        lines += [f"group {group}: {passed[group]} of {total[group]}" for group in total]
        return Score(sum(passed.values()), sum(total.values()), tuple(failing), tuple(lines))

    def _step(self, step: Step) -> list[str] | Accepted:
        missing = [name for name in _NAME.findall(step.path + (step.body or "")) if name not in self._captured]
        ours = self._send(step)
        self._capture(step, ours)
        found = differences(step.answer, ours, self._ids, ordered=_ordered(step), ignored=_ignored(step))
        # Health is what nodes found out and reported, and the recording's gateway had had the time to.
        deadline = time.monotonic() + PATIENCE_S
        while found and self._live and _is_live(step) and time.monotonic() < deadline:
            if any(accepted.covers(step) and accepted.fits(ours, found) for accepted in self._accepted):
                break
            time.sleep(0.1)
            ours = self._send(step)
            found = differences(step.answer, ours, self._ids, ordered=_ordered(step), ignored=_ignored(step))
        for accepted in self._accepted if found else ():
            if accepted.covers(step) and accepted.fits(ours, found):
                self._forget_created(step, ours)
                return accepted
        if found and missing:
            found.append(f"(no earlier step of the file gave {', '.join(missing)})")
        return found

    def _forget_created(self, step: Step, ours: Answer) -> None:
        """What we took and the recording did not would show up in every later list: it is removed again."""
        made = ours.json
        if ours.status == 201 and step.answer.status >= 400 and isinstance(made, dict):
            path = f"{step.path.rstrip('/')}/{made['id']}"
            self._send(dataclasses.replace(step, method="DELETE", path=path, headers={}, body=None))

    def _send(self, step: Step) -> Answer:
        body = None if step.body is None else self._filled(step.body).encode()
        for attempt in (1, 2):
            try:
                self._connection.putrequest(step.method, self._filled(step.path), skip_accept_encoding=True)
                for name, value in step.headers.items():
                    self._connection.putheader(name, value)
                if body is not None:
                    self._connection.putheader("Content-Length", str(len(body)))
                self._connection.endheaders(body)
                response = self._connection.getresponse()
                text = response.read().decode("utf-8", "replace")
                return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # The server may end an idle connection; once is chance, twice is an answer.
                self._connection.close()
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def _filled(self, template: str) -> str:
        return _NAME.sub(lambda found: self._captured.get(found[1], found[0]), template)

    def _capture(self, step: Step, ours: Answer) -> None:
        for name, path in step.captures.items():
            value, recorded = ours.json, step.answer.json
            for part in path.split("."):
                value, recorded = _below(value, part), _below(recorded, part)
            if isinstance(value, str):
                self._captured[name] = value
                if isinstance(recorded, str):
                    self._ids.learn(recorded, value)


def _below(tree: Json, part: str) -> Json:
    if isinstance(tree, list) and part.isdigit():
        return tree[int(part)] if int(part) < len(tree) else None
    return tree.get(part) if isinstance(tree, dict) else None


def _ordered(step: Step) -> bool:
    """Targets are listed newest first, which is no matter of ids."""
    return re.search(r"/targets/?(\?|$)", step.path) is not None


def _is_live(step: Step) -> bool:
    """Steps whose answer depends on what a node has found out by then."""
    return step.method == "GET" and re.search(r"/health(\?|$)", step.path) is not None and step.answer.status == 200


def _ignored(step: Step) -> frozenset[str]:
    """Descriptions of fields are prose, and ours is our own."""
    return frozenset({"description"}) if step.path.startswith("/schemas/") else frozenset()


def _in(group: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(group, pattern) for pattern in patterns)


def replay(file: Path, url: str, *, groups: Sequence[str] = (), accepted: Path = ACCEPTED, live: bool = True) -> Score:
    """Replays a recording against the Admin API at `url`; `live` = a node is there to report health."""
    steps = [Step.read(line) for line in file.read_text().splitlines() if line.strip()]
    with contextlib.closing(Replay(url, read_accepted(accepted), live=live)) as sending:
        return sending.run(steps, groups)


@contextlib.contextmanager
def scratch_gateway(*, node: bool = True) -> Iterator[str]:
    """The URL of a control plane over an empty store, by default with a node where one can be started."""
    with tempfile.TemporaryDirectory(prefix="pointsman-conformance-") as folder:
        plane = ControlPlane(Path(folder))
        beside = Node("node-1", Path(folder), plane.fleet)
        try:
            asyncio.run(plane.up())
            if node:
                beside = Node("node-1", Path(folder), plane.fleet)
                try:
                    asyncio.run(beside.up())
                except StartError as error:
                    sys.stderr.write(f"going on without a node: {str(error).splitlines()[0]}\n")
            yield plane.url
        finally:
            beside.destroy()
            plane.destroy()


@contextlib.contextmanager
def live_targets(ports: Sequence[int] = LIVE_PORTS) -> Iterator[None]:
    """Something that answers 200 where the recording's targets are; a port that is taken is somebody's already."""

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        @override
        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    with contextlib.ExitStack() as stack:
        for port in ports:
            try:
                server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Answering)
            except OSError:
                continue
            server.daemon_threads = True
            serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            serving.start()
            stack.callback(server.server_close)
            stack.callback(serving.join)
            stack.callback(server.shutdown)
        yield


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance admin", description=__doc__)
    parser.add_argument("file", type=Path, help="a recording of the form of vectors/kong-admin.jsonl")
    parser.add_argument("--url", help="the Admin API of a scratch gateway; its entities are changed and deleted")
    parser.add_argument("--accepted", type=Path, default=ACCEPTED, help="the list of accepted differences")
    parser.add_argument("--groups", default="", help="groups to score, like services*,routes*")
    options = parser.parse_args(arguments)
    groups = [group for group in options.groups.split(",") if group]
    with contextlib.ExitStack() as stack:
        stack.enter_context(live_targets())
        url = options.url or stack.enter_context(scratch_gateway())
        score = replay(options.file, url, groups=groups, accepted=options.accepted)
    for line in score.lines:
        print(line)
    print(f"passed {score.passed} of {score.total}")
    return 0 if score.passed == score.total else 1
