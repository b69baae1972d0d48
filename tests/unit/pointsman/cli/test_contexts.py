"""Contexts: control planes by name. Goal: a token goes to the control plane it was kept for, and to nobody else."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pointsman.cli.contexts import Contexts, Target, chosen, contexts_path, read_contexts, write_contexts
from pointsman.cli.errors import CliError, ExitCode
from pointsman.cli.main import main

PROD = Target("https://admin.example:8444", "secret", "/etc/ca.pem", read_only=True)
LOCAL = Target("http://127.0.0.1:8001")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("POINTSMAN_ADDR", "POINTSMAN_TOKEN", "POINTSMAN_CA", "POINTSMAN_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "of" / "contexts.toml"
    monkeypatch.setenv("POINTSMAN_CONTEXTS", str(path))
    return path


def test_what_is_written_is_read_and_only_by_the_owner(path: Path) -> None:
    contexts = Contexts("prod", {"prod": PROD, "local": LOCAL, "a.b-c_d": Target('http://"\\x:1', "tö\nken")})
    write_contexts(path, contexts)
    assert read_contexts(path) == contexts
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_no_file_is_no_contexts(path: Path) -> None:
    assert read_contexts(path) == Contexts()
    assert chosen(Target(""), "", {"POINTSMAN_CONTEXTS": str(path)}) == LOCAL


def test_the_file_is_the_operators_own() -> None:
    assert contexts_path({"HOME": "/home/ann"}) == Path("/home/ann/.config/pointsman/contexts.toml")
    assert contexts_path({"HOME": "/home/ann", "XDG_CONFIG_HOME": "/x"}) == Path("/x/pointsman/contexts.toml")


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        (Target(""), "", PROD),  # the one in use
        (Target(""), "local", LOCAL),
        (Target("http://other:1"), "", Target("http://other:1")),  # no token of another control plane
        (Target("", "mine"), "", Target(PROD.address, "mine", PROD.ca_file, read_only=True)),
        (Target("", read_only=True), "local", Target(LOCAL.address, read_only=True)),
        (Target(PROD.address), "prod", PROD),
    ],
)
def test_what_is_chosen(path: Path, given: Target, name: str, expected: Target) -> None:
    write_contexts(path, Contexts("prod", {"prod": PROD, "local": LOCAL}))
    assert chosen(given, name, {"POINTSMAN_CONTEXTS": str(path)}) == expected


@pytest.mark.parametrize(
    ("given", "name", "code"),
    [(Target(""), "nope", ExitCode.NOT_FOUND), (Target("http://other:1"), "prod", ExitCode.USAGE)],
)
def test_what_cannot_be_chosen(path: Path, given: Target, name: str, code: ExitCode) -> None:
    write_contexts(path, Contexts("prod", {"prod": PROD}))
    with pytest.raises(CliError) as caught:
        chosen(given, name, {"POINTSMAN_CONTEXTS": str(path)})
    assert caught.value.exit_code is code


@pytest.mark.parametrize(
    "text",
    [
        "use = 5",
        "other = 1",
        "[contexts]\nprod = 1",
        "[contexts.prod]",
        "[contexts.prod]\naddr = 1",
        "[contexts.prod]\naddr = 'a'\nread_only = 'yes'",
        "[contexts.prod]\naddr = 'a'\nmore = 1",
        "contexts = 5",
        "no toml",
        "\udcff",
    ],
)
def test_a_file_of_something_else_is_refused(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CliError, match="no file of contexts"):
        read_contexts(path)


def test_tokens_that_others_can_read_are_not_used(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_contexts(path, Contexts("prod", {"prod": PROD}))
    path.chmod(0o640)
    assert main(["status"]) == ExitCode.ERROR
    assert f"chmod 600 {path}" in capsys.readouterr().err


def test_set_use_list_and_delete(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["context", "list"]) == 0
    assert "there are no contexts" in capsys.readouterr().err
    assert main(["context", "set", "local", "--addr", LOCAL.address]) == 0
    assert main(["context", "set", "prod", "--addr", PROD.address, "--token", "secret", "--read-only"]) == 0
    assert main(["context", "set", "prod", "--ca", "/etc/ca.pem"]) == 0
    assert read_contexts(path) == Contexts("local", {"local": LOCAL, "prod": PROD})
    assert main(["context", "use", "prod"]) == 0
    capsys.readouterr()
    assert main(["context", "list", "-o", "json"]) == 0
    listed = capsys.readouterr().out
    assert "secret" not in listed
    assert [(row["name"], row["used"], row["has_token"]) for row in json.loads(listed)["data"]] == [
        ("local", False, False),
        ("prod", True, True),
    ]
    assert main(["context", "set", "prod", "--addr", "https://elsewhere:1"]) == 0
    assert "is gone" in capsys.readouterr().err
    assert read_contexts(path).by_name["prod"] == Target("https://elsewhere:1")
    assert main(["context", "delete", "prod"]) == 0
    assert read_contexts(path) == Contexts("", {"local": LOCAL})
    assert main(["context", "use", "prod"]) == ExitCode.NOT_FOUND
    assert main(["context", "set", "a b", "--addr", LOCAL.address]) == ExitCode.USAGE
    assert main(["context", "set", "new"]) == ExitCode.USAGE


@pytest.mark.parametrize(
    "command",
    [["service", "create", "host=a"], ["rollback", "1"], ["token", "revoke", "a"], ["join-token", "create"]],
)
def test_a_read_only_context_sends_no_write(command: list[str], path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_contexts(path, Contexts("prod", {"prod": Target("http://127.0.0.1:1", read_only=True)}))
    assert main(command) == ExitCode.DENIED
    assert "nothing was sent" in capsys.readouterr().err
