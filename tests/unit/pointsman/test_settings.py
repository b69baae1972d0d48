"""Settings: precedence flag > variable > file > default, types, and errors that name the setting and the remedy."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

import pytest

from pointsman.settings import SettingsError, SocketAddress, describe, load, setting


class Colour(enum.StrEnum):
    BLUE = "blue"
    GREEN = "green"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    listen: SocketAddress = setting(SocketAddress("127.0.0.1", 8001), help="where to listen")
    workers: int = setting(0, minimum=0, maximum=64, help="how many")
    beat_s: float = setting(5.0, minimum=0.1, help="seconds")
    insecure: bool = setting(False, help="no guard")
    database: Path = setting(Path("x.db"), help="file")
    colour: Colour = setting(Colour.BLUE, help="side")
    hosts: tuple[str, ...] = setting((), help="names")
    extra: tuple[SocketAddress, ...] = setting((), help="more addresses")
    labels: tuple[tuple[str, str], ...] = setting((), help="labels")


def read(*arguments: str, environment: dict[str, str] | None = None) -> Example:
    return load(Example, arguments, environment or {}, program="example")


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return str(path)


def test_defaults() -> None:
    assert read() == Example()


def test_precedence(tmp_path: Path) -> None:
    config = file(tmp_path, "workers: 1\nbeat_s: 2\ncolour: green\n")
    environment = {"POINTSMAN_WORKERS": "2", "POINTSMAN_BEAT_S": "3", "POINTSMAN_CONFIG": config}
    found = read("--workers", "4", environment=environment)
    assert (found.workers, found.beat_s, found.colour) == (4, 3.0, Colour.GREEN)


def test_every_type_by_flag() -> None:
    found = read(
        "--listen=[::1]:0", "--insecure", "--database", "/tmp/y.db", "--colour", "green",
        "--hosts", "a,b", "--hosts", "c", "--extra", "h:1,127.0.0.1:2", "--labels", "zone=a, tier=b",
    )  # fmt: skip
    assert found.listen == SocketAddress("::1", 0)
    assert found.insecure is True
    assert found.database == Path("/tmp/y.db")
    assert found.hosts == ("a", "b", "c")
    assert found.extra == (SocketAddress("h", 1), SocketAddress("127.0.0.1", 2))
    assert found.labels == (("zone", "a"), ("tier", "b"))


def test_every_type_by_file(tmp_path: Path) -> None:
    text = "insecure: true\nhosts: [a, b]\nlabels: {zone: a}\nextra: 'h:1'\nlisten: 127.0.0.1:9\nbeat-s: 1.5\n"
    found = read("--config", file(tmp_path, text))
    assert found.insecure is True
    assert found.hosts == ("a", "b")
    assert found.labels == (("zone", "a"),)
    assert found.extra == (SocketAddress("h", 1),)
    assert found.beat_s == 1.5


def test_a_flag_can_be_given_as_false() -> None:
    assert read("--insecure=false", environment={"POINTSMAN_INSECURE": "yes"}).insecure is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "x"], ["setting workers", "--workers", "not a whole number"]),
        (["--workers", "65"], ["setting workers", "too large", "64"]),
        (["--workers", "1.5"], ["not a whole number"]),
        (["--beat-s", "0"], ["setting beat_s", "too small"]),
        (["--beat-s", "nan"], ["finite"]),
        (["--insecure", "maybe"], ["setting insecure", "neither true nor false"]),
        (["--listen", "localhost"], ["setting listen", "host:port", "127.0.0.1:8001"]),
        (["--listen", "::1:80"], ["brackets"]),
        (["--listen", "h:65536"], ["65535"]),
        (["--listen", "a b:1"], ["neither a host name"]),
        (["--colour", "red"], ["setting colour", "blue, green"]),
        (["--labels", "zone"], ["setting labels", "name=value"]),
        (["--nope"], ["--nope", "--help"]),
        (["--work", "1"], ["--work"]),
        (["--workers"], ["--workers"]),
    ],
)
def test_errors_say_what_and_where(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        read(*arguments)
    for word in words:
        assert word in str(caught.value)


def test_errors_name_the_variable() -> None:
    with pytest.raises(SettingsError, match=r"workers \(from POINTSMAN_WORKERS\)"):
        read(environment={"POINTSMAN_WORKERS": "many"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("worker: 1", ["worker", "did you mean 'workers'"]),
        ("zzz: 1", ["unknown setting 'zzz'", "known: listen"]),
        ("[1]", ["name: value"]),
        ("a: [", ["not YAML"]),
        ("workers: [1]", ["setting workers", "expected a number, not a list"]),
        ("listen: {a: b}", ["setting listen", "expected a text, not a mapping"]),
        ("hosts: 5", ["setting hosts", "expected a list"]),
        ("database: ''", ["setting database", "expected a path"]),
    ],
)
def test_errors_in_the_file(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        read("--config", file(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read"):
        read("--config", str(tmp_path / "none.yaml"))


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="larger"):
        read("--config", file(tmp_path, "#" * (1 << 20) + "\n"))


def test_an_empty_file_is_no_settings(tmp_path: Path) -> None:
    assert read("--config", file(tmp_path, "")) == Example()


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for description in describe(Example):
        assert description.flag in text
        assert description.help


def test_descriptions_for_the_reference() -> None:
    listen = describe(Example)[0]
    assert (listen.flag, listen.variable, listen.default) == ("--listen", "POINTSMAN_LISTEN", "127.0.0.1:8001")


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("0.0.0.0:1", False), ("host:1", False)],
)
def test_loopback(address: str, loopback: bool) -> None:
    assert SocketAddress.parse(address).is_loopback is loopback
    assert str(SocketAddress.parse(address)) == address
