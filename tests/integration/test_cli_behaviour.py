"""What golden files can't show: how the command line fails, waits, is interrupted, and what it sends."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typing_extensions import override

from pointsman.cli.json_values import Json, JsonObject
from pointsman.cli.main import main
from pointsman.cli.output import Format, Output, Table
from tests.integration.cli_admin import FakeAdmin
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
CONSOLE_SCRIPT = "from pointsman.cli.main import run; run()"


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    with FakeAdmin() as fake:
        yield fake


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The console script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", CONSOLE_SCRIPT, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_nobody_at_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert main(["nodes", "--addr", f"127.0.0.1:{port}"]) == 1
    told = capsys.readouterr().err
    assert "can't be reached: Connection refused" in told
    assert f"http://127.0.0.1:{port}" in told
    assert "--addr or POINTSMAN_ADDR" in told


def test_the_address_comes_from_the_environment(admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_ADDR", admin.address)
    admin.answer("GET", "/fleet/nodes", {"data": []})
    assert main(["nodes"]) == 0


def test_an_answer_that_is_not_ours(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answer("GET", "/services/x", status=502, text="<html>bad gateway</html>")
    assert main(["service", "get", "x", "--addr", admin.address]) == 1
    assert "bad gateway" in capsys.readouterr().err


def test_pages_are_followed(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answer("GET", "/services?size=1000", {"data": [{"id": "1", "name": "b"}], "next": "/x", "offset": "abc"})
    admin.answer("GET", "/services?size=1000&offset=abc", {"data": [{"id": "2", "name": "a"}], "next": None})
    assert main(["service", "list", "-o", "name", "--addr", admin.address]) == 0
    assert capsys.readouterr().out == "a\nb\n"


def test_fields_travel_as_a_form_with_references_by_name_or_id(admin: FakeAdmin) -> None:
    admin.answer("POST", "/routes", {"id": "1", "name": "r"}, status=201)
    service_id = "11111111-1111-4111-8111-111111111111"
    fields = ["name=r", "hosts=a.example", "hosts=b.example", "service=shop", "paths=", "headers.x-a=1&2"]
    assert main(["--addr", admin.address, "route", "create", *fields]) == 0
    seen = admin.request("POST", "/routes")
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    assert seen.body == b"name=r&hosts=a.example&hosts=b.example&service.name=shop&paths=&headers.x-a=1%262"
    assert main(["--addr", admin.address, "route", "create", f"service={service_id}"]) == 0
    assert admin.request("POST", "/routes").body == f"service.id={service_id}".encode()


def test_a_write_tells_who_why_and_how_long_it_waits(admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_AUTHOR", "Zoë")
    admin.answer("PATCH", "/services/a", {"id": "1", "name": "a"}, version=3)
    arguments = ["service", "set", "a", "host=x", "--wait", "7", "--reason", "release 2.7 – 100 %"]
    assert main(["--addr", admin.address, *arguments]) == 0
    headers = admin.request("PATCH", "/services/a").headers
    assert headers["prefer"] == "wait=7"
    assert headers["x-pointsman-author"] == "Zo%C3%AB"
    assert headers["x-pointsman-reason"] == "release 2.7 %E2%80%93 100 %25"


@pytest.mark.parametrize("options", [[], ["-f"], ["-s"], ["--state"]])
def test_files_are_named_as_deck_has_it_or_by_an_option(admin: FakeAdmin, tmp_path: Path, options: list[str]) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("services: []\n")
    two.write_text("routes: []\n")
    admin.answer(
        "POST", "/config/sync?dry_run=1", {"created": 0, "updated": 0, "deleted": 0, "unchanged": 0, "changes": []}
    )
    assert main(["--addr", admin.address, "validate", str(one), *options, str(two)]) == 0
    assert admin.request("POST", "/config/sync?dry_run=1").body == b"services: []\n\n---\nroutes: []\n"


@pytest.mark.parametrize("verb", ["sync", "apply", "diff", "validate"])
def test_no_file_is_a_usage_error_not_an_empty_configuration(
    admin: FakeAdmin, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--addr", admin.address, verb]) == 64
    assert "name at least one file" in capsys.readouterr().err
    assert admin.seen == []


def test_several_files_are_one_request_and_problems_name_the_right_one(
    admin: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.json"
    one.write_text("services:\n- name: a\n")
    two.write_text('{"upstreams": [\n{"name": "b"}]}')
    problem: JsonObject = {
        "message": "no",
        "remedy": "do",
        "line": 5,
        "path": "upstreams[0]",
        "entity_type": "upstream",
    }
    admin.answer("POST", "/config/sync", {"code": 14, "message": "refused", "problems": [problem]}, status=400)
    assert main(["--addr", admin.address, "sync", "-f", str(one), "-f", str(two)]) == 1
    seen = admin.request("POST", "/config/sync")
    assert seen.headers["content-type"] == "application/yaml"
    assert seen.body == b'services:\n- name: a\n\n---\n{"upstreams": [\n{"name": "b"}]}'
    assert f"{two}:1" in capsys.readouterr().err


def test_dump_writes_a_file_and_overwrites_only_when_told(admin: FakeAdmin, tmp_path: Path) -> None:
    path = tmp_path / "saved.yaml"
    arguments = ["--addr", admin.address, "dump", "-f", str(path)]
    admin.answer("GET", "/config/dump?format=yaml", text="_format_version: '3.0'\n")
    assert main(arguments) == 0
    assert path.read_text() == "_format_version: '3.0'\n"
    path.write_text("mine")
    assert main(arguments) == 4
    assert path.read_text() == "mine"
    assert main([*arguments, "--yes"]) == 0
    assert path.read_text() != "mine"


def test_quiet_prints_data_and_errors_only(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answer("GET", "/services?size=1000", {"data": []})
    assert main(["-q", "service", "list", "--addr", admin.address]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_colour_unless_it_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        @override
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = Table(("NODE", "STATE"), [("dp-1", "rejected")])
    coloured = Terminal()
    Output(Format.TABLE, quiet=False, stdout=coloured).table(table)
    assert "\x1b[31m" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    Output(Format.TABLE, quiet=False, stdout=plain).table(table)
    assert "\x1b[31m" not in plain.getvalue()
    assert "rejected" in plain.getvalue()


def test_a_pipe_gets_each_row_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    stdout = io.StringIO()
    Output(Format.TABLE, quiet=False, stdout=stdout).table(Table(("A", "B"), [("x" * 300, "y" * 300)]))
    assert stdout.getvalue().splitlines()[1] == f"{'x' * 300}  {'y' * 300}"


def test_a_terminal_without_utf8(admin: FakeAdmin) -> None:
    admin.answer("GET", "/services?size=1000", {"data": [{"id": "1", "name": "caf\u00e9", "host": "h\u00fc"}]})
    for form in ("table", "json", "yaml", "name"):
        ended = run("service", "list", "-o", form, "--addr", admin.address, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert ended.stdout.isascii()
        if form == "json":
            assert json.loads(ended.stdout)["data"][0]["name"] == "caf\u00e9"


def test_interrupted(admin: FakeAdmin) -> None:
    admin.answer("GET", "/fleet/nodes", {"data": [{"node_id": "1", "hostname": "dp-1", "state": "current"}]})
    watching = subprocess.Popen(
        [
            sys.executable,
            "-c",
            CONSOLE_SCRIPT,
            "nodes",
            "--watch",
            "--addr",
            admin.address,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith(b"NODE")
    assert watching.stdout.readline().startswith(b"dp-1")
    watching.send_signal(signal.SIGINT)
    _, told = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == 130
    assert b"Traceback" not in told


def test_a_reader_that_has_seen_enough(admin: FakeAdmin) -> None:
    entities: list[Json] = [{"id": str(number), "name": f"service-{number}"} for number in range(20_000)]
    admin.answer("GET", "/services?size=1000", {"data": entities, "next": None})
    listing = subprocess.Popen(
        [sys.executable, "-c", CONSOLE_SCRIPT, "service", "list", "-o", "name", "--addr", admin.address],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.readline()
    listing.stdout.close()
    assert listing.stderr.read() == b""
    listing.stderr.close()
    assert listing.wait(PATIENCE_S) == 1  # not everything was written, and that is no reason for words


def test_watch_is_for_eyes(admin: FakeAdmin) -> None:
    assert main(["nodes", "--watch", "-o", "json", "--addr", admin.address]) == 64
    assert main(["upstream", "health", "u", "--watch", "-o", "json", "--addr", admin.address]) == 64


@pytest.mark.parametrize(("command", "module"), [("control-plane", "control_plane"), ("data-plane", "data_plane")])
def test_the_planes_get_every_argument(monkeypatch: pytest.MonkeyPatch, command: str, module: str) -> None:
    became: list[list[str]] = []

    def execv(path: str, arguments: list[str]) -> None:
        became.append([path, *arguments])
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", execv)
    with pytest.raises(SystemExit):
        main([command, "--help", "-o", "x", "--addr", "y", "--", "z"])
    assert became == [[sys.executable, sys.executable, "-m", module, "--help", "-o", "x", "--addr", "y", "--", "z"]]


def test_help_answers_at_once() -> None:
    """The figure to keep is 150 ms on an idle machine; the heavy imports that would break it are named here."""
    code = (
        "import sys; from pointsman.cli.main import main; main(['--help']); "
        "heavy = {'aiohttp', 'grpc', 'rich', 'yaml', 'ssl', 'http.client'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=True)
    assert ended.stderr.strip() == b"[]", f"took {time.monotonic() - began:.3f} s"
