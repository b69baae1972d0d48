"""Settings of a process: one dataclass, filled from flags, `POINTSMAN_*` variables and one YAML file.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        admin_listen: SocketAddress = setting(SocketAddress("127.0.0.1", 8001), help="where the Admin API listens")

    settings = load(Settings, sys.argv[1:], os.environ, program="pointsman control-plane")

The field above is `--admin-listen`, `POINTSMAN_ADMIN_LISTEN` and `admin_listen:` in the file; a flag beats a variable,
a variable beats the file, the file beats the default. Everything is read once, at start, and every value is checked
before anything is opened, so a typing error costs nothing but the message about it.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import enum
import ipaddress
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from typing_extensions import override

ENVIRONMENT_PREFIX = "POINTSMAN_"
FILE_BYTES_MAX = 1 << 20

T = TypeVar("T")

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class SettingsError(Exception):
    """A setting that can't be used. The text names the setting, where its value came from and what to do."""


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """`host:port` as an operator writes it; IPv6 in brackets. Port 0 = chosen by the kernel."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `host:port`. Raises ValueError with what is wrong and an example."""
        host, colon, port_text = text.strip().rpartition(":")
        if not colon or not host:
            raise ValueError(f"'{text}' is not host:port; write it like 127.0.0.1:8001 or [::1]:8001")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if not _is_ip(host):
                raise ValueError(f"'{host}' is not an IPv6 address; write it like [::1]:8001")
        elif ":" in host:
            raise ValueError(f"'{text}' has more than one colon; put an IPv6 address in brackets, like [::1]:8001")
        elif not _HOST.fullmatch(host):
            raise ValueError(f"'{host}' is neither a host name nor an IP address")
        if not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65_535:
            raise ValueError(f"port '{port_text}' is not a number from 0 to 65535")
        return cls(host, int(port_text))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        return _is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback

    @override
    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _About:
    """What a setting's field carries beside type and default. Bounds are for numbers."""

    help: str
    minimum: float | None
    maximum: float | None


def setting(default: T, *, help: str, minimum: float | None = None, maximum: float | None = None) -> T:
    """A field of a settings dataclass. `help` is one line with the unit; bounds are inclusive.

    Types: bool, int, float, str, Path, SocketAddress, enum.StrEnum, tuple[X, ...] of those (commas or repeated flags;
    a list in the file), and tuple[tuple[str, str], ...] for `name=value` pairs (a mapping in the file).
    """
    return dataclasses.field(default=default, metadata={_About: _About(help, minimum, maximum)})


@dataclass(frozen=True, slots=True)
class Description:
    """One setting as the reference and `--help` show it."""

    name: str
    flag: str
    variable: str
    default: str
    help: str


def describe(settings_type: type[Any]) -> list[Description]:
    """All settings of a dataclass, in its order."""
    return [
        Description(
            name=name,
            flag=_flag(name),
            variable=_variable(name),
            default=_as_text(default),
            help=about.help,
        )
        for name, (_, default, about) in _fields(settings_type).items()
    ]


def load(
    settings_type: type[T],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    program: str,
    description: str = "",
    version: Callable[[], str] | None = None,
) -> T:
    """Fills a settings dataclass. Raises SettingsError; `--help` and `--version` print and raise SystemExit(0)."""
    fields = _fields(settings_type)
    parser = _parser(fields, program=program, description=description)
    if version is not None:
        parser.add_argument("--version", action=_SayVersion, const=version)
    flags = parser.parse_args(arguments)
    file_text = flags.config or environment.get(ENVIRONMENT_PREFIX + "CONFIG", "")
    in_file = _read_file(Path(file_text), known=fields) if file_text else {}
    values: dict[str, object] = {}
    for name, (kind, _, about) in fields.items():
        given: list[str] | None = getattr(flags, name)
        variable = _variable(name)
        if given is not None:
            raw: object = given if _is_tuple(kind) else given[-1]
            source = _flag(name)
        elif variable in environment:
            raw, source = environment[variable], variable
        elif name in in_file:
            raw, source = in_file[name], f"{name} in {file_text}"
        else:
            continue
        try:
            values[name] = _convert(raw, kind)
            _check_bounds(values[name], about)
        except ValueError as error:
            raise SettingsError(f"setting {name} (from {source}): {error}") from error
    return settings_type(**values)


def _fields(settings_type: type[Any]) -> dict[str, tuple[object, object, _About]]:
    hints = typing.get_type_hints(settings_type)
    return {
        field.name: (hints[field.name], field.default, field.metadata[_About])
        for field in dataclasses.fields(settings_type)
    }


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


class _Parser(argparse.ArgumentParser):
    @override
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; `{self.prog} --help` lists the flags")


class _SayVersion(argparse.Action):
    """argparse's own wants to know the version before anybody asks, and finding it takes as long as all settings."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, const: Callable[[], str]) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="show program's version number and exit")
        self._version = const

    @override
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        sys.stdout.write(f"{self._version()}\n")
        parser.exit()


def _parser(
    fields: Mapping[str, tuple[object, object, _About]], *, program: str, description: str
) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description=description,
        allow_abbrev=False,
        epilog=f"Each flag is also a variable, like {ENVIRONMENT_PREFIX}CONFIG for --config, and a name in the file.",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings")
    for name, (kind, default, about) in fields.items():
        shown = _as_text(default)
        text = f"{about.help} (default: {shown})" if shown else about.help
        flag = {"dest": name, "action": "append", "default": None, "help": text.replace("%", "%%")}
        if kind is bool:
            parser.add_argument(_flag(name), nargs="?", const="true", metavar="true|false", **flag)  # type: ignore[arg-type]  # one mapping for both branches
        else:
            parser.add_argument(_flag(name), metavar=_metavar(kind), **flag)  # type: ignore[arg-type]  # as above
    return parser


def _metavar(kind: object) -> str:
    if _is_tuple(kind):
        element = typing.get_args(kind)[0]
        return "NAME=VALUE,..." if typing.get_origin(element) is tuple else f"{_metavar(element)},..."
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        return "|".join(kind)
    return {int: "N", float: "N", Path: "PATH", SocketAddress: "HOST:PORT"}.get(typing.cast("type", kind), "TEXT")


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join("=".join(part) if isinstance(part, tuple) else _as_text(part) for part in value)
    return str(value)


def _read_file(path: Path, *, known: Mapping[str, object]) -> dict[str, object]:
    import yaml  # noqa: PLC0415  # half of what this module takes to load, for those who have no file

    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise SettingsError(f"settings file {path} is larger than {FILE_BYTES_MAX} bytes; is it the right file?")
        tree = yaml.safe_load(raw)
    except OSError as error:
        raise SettingsError(f"settings file {path} can't be read: {error.strerror}; check --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} is not YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"settings file {path} must hold `name: value` lines, not a {type(tree).__name__}")
    values: dict[str, object] = {}
    for key, value in tree.items():
        name = str(key).replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            raise SettingsError(f"settings file {path} has the unknown setting '{key}'; {hint}")
        values[name] = value
    return values


def _is_tuple(kind: object) -> bool:
    return typing.get_origin(kind) is tuple


def _convert(raw: object, kind: object) -> object:
    """A value from a flag or variable (text) or the file (any YAML) in the type of its field. Raises ValueError."""
    if _is_tuple(kind):
        return _convert_many(raw, typing.get_args(kind)[0])
    if kind is bool:
        return _to_bool(raw)
    if kind is int or kind is float:
        return _to_number(raw, whole=kind is int)
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError(f"expected a text, not {_yaml_kind(raw)}")
    text = str(raw)
    if kind is str:
        return text
    if kind is Path:
        if not text:
            raise ValueError("expected a path")
        return Path(text).expanduser()
    if kind is SocketAddress:
        return SocketAddress.parse(text)
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"'{text}' is none of {', '.join(kind)}") from None
    raise AssertionError(f"a settings field has the type {kind}, which the loader does not know")


def _convert_many(raw: object, element: object) -> tuple[object, ...]:
    pairs = typing.get_origin(element) is tuple
    if pairs and isinstance(raw, dict):
        return tuple((str(key), str(value)) for key, value in raw.items())
    if isinstance(raw, str):
        raw = [raw]
    if not isinstance(raw, list):
        raise ValueError(f"expected a list{' or a mapping' if pairs else ''}, not {_yaml_kind(raw)}")
    parts: list[object] = []
    for item in raw:
        parts.extend(part.strip() for part in item.split(",") if part.strip()) if isinstance(
            item, str
        ) else parts.append(item)
    if not pairs:
        return tuple(_convert(part, element) for part in parts)
    found: list[tuple[str, str]] = []
    for part in parts:
        name, equals, value = str(part).partition("=")
        if not equals or not name.strip():
            raise ValueError(f"'{part}' is not name=value")
        found.append((name.strip(), value.strip()))
    return tuple(found)


def _to_bool(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"'{raw}' is neither true nor false")


def _to_number(raw: object, *, whole: bool) -> int | float:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError(f"expected a number, not {_yaml_kind(raw)}")
    try:
        number = float(raw)
        if whole:
            whole_number = int(raw)
            if whole_number != number:
                raise ValueError
            return whole_number
    except (ValueError, OverflowError):
        raise ValueError(f"'{raw}' is not a {'whole ' if whole else ''}number") from None
    if not math.isfinite(number):
        raise ValueError(f"'{raw}' is not a finite number")
    return number


def _check_bounds(value: object, about: _About) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if about.minimum is not None and number < about.minimum:
            raise ValueError(f"{number:g} is too small; the least is {about.minimum:g}")
        if about.maximum is not None and number > about.maximum:
            raise ValueError(f"{number:g} is too large; the most is {about.maximum:g}")


def _yaml_kind(value: object) -> str:
    if value is None or isinstance(value, types.NoneType):
        return "nothing"
    return {dict: "a mapping", list: "a list", bool: "a truth value"}.get(type(value), f"a {type(value).__name__}")
