"""Every shell command that a document shows works as written.

Method: `tests/support/documents.py` runs the `sh` blocks of each document in order; what stands in a `text` block right
behind one must be printed by it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import documents

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if documents.blocks_of(path.read_text())
)


def test_the_main_documents_have_commands_to_run() -> None:
    assert {"README.md", "tutorial.md", "admin-api.md"} <= {path.name for path in DOCUMENTS}


@pytest.mark.timeout(documents.ALL_COMMANDS_S + 60)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_work_as_shown(document: Path, tmp_path: Path) -> None:
    assert documents.run(document, tmp_path) == []


def test_a_command_that_fails_and_an_output_that_is_not_there_are_found(tmp_path: Path) -> None:
    failing = tmp_path / "failing.md"
    failing.write_text("```sh\ntrue\n```\n\n```sh\nfalse\n```\n")
    (tmp_path / "one").mkdir()
    (problem,) = documents.run(failing, tmp_path / "one")
    assert problem.startswith("the commands from line 5 ended with 1")
    silent = tmp_path / "silent.md"
    silent.write_text("```sh\necho green\n```\n\n```text\nblue\n```\n")
    (tmp_path / "two").mkdir()
    (problem,) = documents.run(silent, tmp_path / "two")
    assert problem.startswith("the commands from line 1 did not print 'blue'")
