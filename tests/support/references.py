"""The parts of docs/ that are made from the program itself; a test checks that they are current.

    python -m tests.support.references

docs/reference/settings.md comes from the settings dataclasses; the lists of docs/compatibility.md between
`<!-- made from NAME -->` and `<!-- end -->` come from the conformance suites' lists of accepted differences.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from control_plane.settings import Settings
from data_plane.settings import NodeSettings
from pointsman.settings import Description, describe
from tests.conformance.router import BETTER

DOCS = Path(__file__).parents[2] / "docs"
CONFORMANCE = Path(__file__).parents[1] / "conformance"
SETTINGS_FILE = DOCS / "reference" / "settings.md"
COMPATIBILITY_FILE = DOCS / "compatibility.md"

_MADE = re.compile(r"(<!-- made from ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

SETTINGS_HEAD = """# Settings

<!-- Made by `python -m tests.support.references`. Do not edit. -->

Each setting is a flag, a variable and a name in a YAML file. A flag beats a variable, a variable beats the file, the
file beats the default. The file is named by `--config FILE` or `POINTSMAN_CONFIG`. Everything is read once, at start.
A value that can't be used stops the start, and the message names the setting and where its value came from.

```yaml
# /etc/pointsman/data-plane.yaml
control_plane: 10.0.0.5:8005
workers: 4
labels:
  zone: a
```

Several values of one setting are parted by commas in a variable, given by repeating the flag, or written as a list in
the file. Sizes are bytes, times are seconds. A name in brackets is the setting's name in Kong.

The command line has its own few: see [cli.md](../cli.md).
"""


def _section(title: str, command: str, settings: list[Description]) -> str:
    lines = [f"## {title}", "", f"`{command} --help` shows the same.", "", "| flag | variable | default | |"]
    lines.append("|---|---|---|---|")
    for item in settings:
        default = f"`{item.default}`" if item.default else ""
        text = item.help.replace("|", "\\|")
        lines.append(f"| `{item.flag}` | `{item.variable}` | {default} | {text} |")
    return "\n".join(lines) + "\n"


def settings_reference() -> str:
    """The whole of docs/reference/settings.md."""
    return "\n".join(
        [
            SETTINGS_HEAD,
            _section("Control plane", "pointsman control-plane", describe(Settings)),
            _section("Node", "pointsman data-plane", describe(NodeSettings)),
        ]
    )


def _reasons(file: Path) -> list[str]:
    """The reasons of a list, or of a mapping from vectors' ids, each once and in its order."""
    rows = yaml.safe_load(file.read_text()) or []
    found = rows.values() if isinstance(rows, dict) else rows
    return list(dict.fromkeys(" ".join(row["reason"].split()) for row in found))


def accepted_lists() -> Mapping[str, list[str]]:
    """The lists by the name of what they are made from."""
    lists = {file.name: _reasons(file) for file in sorted(CONFORMANCE.glob("accepted-*.yaml"))}
    return {**lists, "router.py": sorted(BETTER.values())}


def with_lists(text: str) -> str:
    """A document with its made lists renewed. Raises KeyError for a list that there is not."""
    lists = accepted_lists()

    def renew(found: re.Match[str]) -> str:
        items = "".join(f"- {item[0].upper()}{item[1:]}.\n" for item in lists[found[2]]) or "There are none.\n"
        return f"{found[1]}{items}{found[3]}"

    return _MADE.sub(renew, text)


def lists_in(text: str) -> set[str]:
    """The names of the lists that a document holds."""
    return {found[2] for found in _MADE.finditer(text)}


def main() -> None:
    SETTINGS_FILE.write_text(settings_reference())
    COMPATIBILITY_FILE.write_text(with_lists(COMPATIBILITY_FILE.read_text()))
    sys.stdout.write("docs/reference/settings.md and the lists of docs/compatibility.md are current\n")


if __name__ == "__main__":
    main()
