from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from data_plane.node.identity import Identity, IdentityError


def test_an_id_is_made_once_and_kept(tmp_path: Path) -> None:
    first = Identity(tmp_path / "state")
    uuid.UUID(first.node_id)
    first.close()
    again = Identity(tmp_path / "state")
    assert again.node_id == first.node_id
    again.close()


def test_a_state_directory_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    first = Identity(tmp_path)
    with pytest.raises(IdentityError, match="another node"):
        Identity(tmp_path)
    first.close()
    Identity(tmp_path).close()


def test_a_file_that_holds_no_id_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "node_id").write_text("who knows")
    with pytest.raises(IdentityError, match="remove it"):
        Identity(tmp_path)
    assert (tmp_path / "node_id").read_text() == "who knows"
    (tmp_path / "node_id").unlink()
    Identity(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError, match="--state-dir"):
        Identity(tmp_path / "file" / "state")
