"""The documents against the program: made parts are current, links and files exist, examples are the real ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from control_plane.settings import Settings
from data_plane.settings import NodeSettings
from pointsman.settings import load
from tests.support import references

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RENEW = "run `python -m tests.support.references` and commit the result"

YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ANCHOR = re.compile(r"[^a-z0-9 -]")
TEST_FILE = re.compile(r"`(tests/[\w/.-]+)(?:::(\w+))?`")
TABLE_ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)


def test_the_settings_reference_is_current() -> None:
    assert references.SETTINGS_FILE.read_text() == references.settings_reference(), RENEW


def test_the_accepted_differences_are_current_and_all_there() -> None:
    text = references.COMPATIBILITY_FILE.read_text()
    assert references.lists_in(text) == set(references.accepted_lists()), "a list of differences is not shown"
    assert text == references.with_lists(text), RENEW


def test_the_readme_shows_the_examples_as_they_are() -> None:
    shown = YAML_BLOCK.findall((ROOT / "README.md").read_text())
    assert shown == [(ROOT / "examples" / name).read_text() for name in ("blue-green.yaml", "to-green.yaml")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_named_tests_exist(document: Path) -> None:
    text = document.read_text()
    for target in LINK.findall(text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), f"{target} is not there"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {ANCHOR.sub("", heading.lower()).replace(" ", "-") for heading in headings}, target
    for path_name, test in TEST_FILE.findall(text):
        assert (ROOT / path_name).exists(), f"{path_name} is named and not there"
        if test:
            found = re.search(rf"^(async )?def {test}\(", (ROOT / path_name).read_text(), re.MULTILINE)
            assert found, f"{path_name} has no {test}"


def test_every_line_of_the_compatibility_table_is_backed_by_a_test() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    rows = [row for row in TABLE_ROW.findall(text) if not set(row) <= set("-|") and "shown by" not in row]
    assert len(rows) > 40
    for row in rows:
        feature, verdict, shown_by = (cell.strip() for cell in re.split(r"(?<!\\)\|", row))
        if verdict == "no":
            continue  # what is not there can't be shown
        known = ("same", "better", "different", "not there", "yes", "partly")
        assert verdict.startswith(known), f"{feature}: {verdict}"
        assert TEST_FILE.search(shown_by), f"{feature} names no test"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_settings_files_shown_are_understood(document: Path, tmp_path: Path) -> None:
    for block in YAML_BLOCK.findall(document.read_text()):
        first = block.partition("\n")[0]
        if not first.startswith("# /etc/pointsman/"):
            yaml.safe_load(block)
            continue
        file = tmp_path / "settings.yaml"
        file.write_text(block)
        arguments = ["--config", str(file)]
        if first.endswith("control-plane.yaml"):
            load(Settings, arguments, {}, program="pointsman control-plane").check()
        else:
            load(NodeSettings, arguments, {}, program="pointsman data-plane").listens()


def test_every_make_target_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"`make ([a-z-]+)", document.read_text()))
        assert named <= targets, document.name
