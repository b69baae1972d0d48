"""The command line's generic commands on consumers, credentials, certificates and their names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointsman.cli.errors import ExitCode
from pointsman.cli.main import main
from tests.support.processes import ControlPlane
from tests.support.tls import authority_pem, issued


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        asyncio.run(plane.up())
        yield plane
    finally:
        plane.destroy()


def test_every_kind_is_made_listed_and_deleted(
    plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pem = issued("a.test")
    for name, text in (("server.pem", pem.cert), ("server.key", pem.key), ("ca.pem", authority_pem())):
        (tmp_path / name).write_text(text)

    def run(*arguments: str) -> dict[str, object]:
        code = main(["--addr", plane.url, "-o", "json", *arguments])
        shown = capsys.readouterr()
        assert code == ExitCode.DONE, shown.err
        tree = json.loads(shown.out) if shown.out else {}
        assert isinstance(tree, dict)
        return tree

    ann = run("consumer", "create", "username=ann", "custom_id=42")
    files = (f"cert=@{tmp_path}/server.pem", f"key=@{tmp_path}/server.key")
    made = {
        "key-auth": ("consumer=ann", "key=@not-a-file"),
        "basic-auth": ("username=ann", "password=p", f"consumer={ann['id']}"),
        "hmac-auth": ("username=ann", "consumer=ann"),
        "jwt": ("key=issuer", "consumer=ann"),
        "acl": ("group=staff", "consumer=ann"),
        "oauth2": ("name=app", "consumer=ann"),
        "certificate": (*files, "snis=a.test"),
        "ca-certificate": (f"cert=@{tmp_path}/ca.pem",),
    }
    for kind, fields in made.items():
        entity = run(kind, "create", *fields)
        assert run(kind, "get", str(entity["id"])) == entity
        listed = run(kind, "list")["data"]
        assert listed == [entity]
        assert run(kind, "set", str(entity["id"]), "tags=a")["tags"] == ["a"]
    snis = run("sni", "list")["data"]
    assert isinstance(snis, list)
    assert [sni["name"] for sni in snis] == ["a.test"]
    assert run("plugin", "list")["data"] == []
    run("consumer", "delete", "ann")
    assert run("key-auth", "list")["data"] == []


def test_a_file_that_is_not_there_is_told(plane: ControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--addr", plane.url, "certificate", "create", "cert=@/nowhere.pem", "key=x"]) == ExitCode.USAGE
    assert "'/nowhere.pem' can't be read" in capsys.readouterr().err
