"""Keyring files: what can be read, what is refused in words, and that no message shows a key."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from control_plane.store.contract import StoreUnusable
from control_plane.store.keyring import add_key, new_line, parse, read_file

KEY = base64.b64encode(b"k" * 32).decode()


def test_the_first_line_is_the_active_key() -> None:
    ring = parse(f"# ours\n\n two:{KEY}\none: {KEY}\n", source="test")
    assert (ring.active, list(ring.keys), ring.keys["one"]) == ("two", ["two", "one"], b"k" * 32)
    assert list(parse(f"two:{KEY},one:{KEY}", source="test").keys) == ["two", "one"]
    assert "kkk" not in repr(ring)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no key"),
        ("# only words", "no key"),
        (KEY, "id"),
        (f"a b:{KEY}", "id"),
        (f"a_b:{KEY}", "id"),
        (f"a%:{KEY}", "id"),
        (f"{'a' * 65}:{KEY}", "id"),
        (f":{KEY}", "id"),
        ("a:", "32 bytes"),
        (f"a:{KEY[:-4]}", "32 bytes"),
        ("a:not base64!", "32 bytes"),
        (f"a:{KEY}\na:{KEY}", "twice"),
        ("\n".join(f"k{n}:{KEY}" for n in range(65)), "more than 64"),
    ],
)
def test_what_is_no_keyring(text: str, word: str) -> None:
    with pytest.raises(StoreUnusable, match=word) as caught:
        parse(text, source="the keyring x")
    assert KEY not in str(caught.value)
    assert "the keyring x" in str(caught.value)


def test_keys_are_added_behind_or_in_front(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "keyring"
    first = add_key(file, active=False)
    assert file.stat().st_mode & 0o777 == 0o600
    second, third = add_key(file, active=True), add_key(file, active=False)
    assert list(read_file(file).keys) == [second, first, third]
    assert len({new_line() for _ in range(10)}) == 10


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keyring"
    add_key(file, active=True)
    file.chmod(0o644)
    with pytest.raises(StoreUnusable, match="chmod 600"):
        read_file(file)
    with pytest.raises(StoreUnusable, match="cannot be read"):
        read_file(tmp_path / "absent")
    with pytest.raises(StoreUnusable, match="cannot be written"):
        add_key(tmp_path / "keyring" / "below a file", active=True)
