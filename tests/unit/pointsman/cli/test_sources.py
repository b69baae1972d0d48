"""Files of `-f`: several become one stream, lines are traced back, and the environment is opened by a crack only."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from pointsman.cli.errors import CliError
from pointsman.cli.sources import read_sources


def test_one_file_travels_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("services: []\n")
    joined = read_sources([str(path)], {})
    assert joined.text == "services: []\n"
    assert joined.content_type == "application/yaml"
    assert joined.place(1) == f"{path}:1"


def test_json_is_told_by_name_or_first_brace(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text('  {"services": []}')
    assert read_sources([str(path)], {}).content_type == "application/json"


def test_lines_of_joined_files_are_traced_back(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("services:\n- name: a\n")
    two.write_text("upstreams:\n- name: b\n")
    joined = read_sources([str(one), str(two)], {})
    line = joined.text.splitlines().index("- name: b") + 1
    assert joined.place(line) == f"{two}:2"
    assert joined.place(2) == f"{one}:2"


def test_a_directory_gives_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "c.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    joined = read_sources([str(tmp_path)], {})
    assert [Path(source.name).name for source in joined.sources] == ["a.yaml", "b.yml", "c.json"]


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"services: []")))
    assert read_sources(["-"], {}).text == "services: []"


def test_deck_variables_are_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text('services:\n- host: ${{ env "DECK_HOST" }}\n')
    assert "host: blue" in read_sources([str(path)], {"DECK_HOST": "blue"}).text


@pytest.mark.parametrize("variable", ["DECK_MISSING", "AWS_SECRET_ACCESS_KEY"])
def test_other_variables_are_refused_with_their_place(tmp_path: Path, variable: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f'services:\n- host: ${{{{ env "{variable}" }}}}\n')
    with pytest.raises(CliError) as caught:
        read_sources([str(path)], {"AWS_SECRET_ACCESS_KEY": "secret"})
    assert caught.value.faults[0].where == f"{path}:2"
    assert "secret" not in str(caught.value)


def test_a_missing_file_and_one_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="No such file"):
        read_sources([str(tmp_path / "absent.yaml")], {})
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: b\nname: caf\xe9\n")
    with pytest.raises(CliError, match="UTF-8") as caught:
        read_sources([str(path)], {})
    assert caught.value.faults[0].where == f"{path}:2"
