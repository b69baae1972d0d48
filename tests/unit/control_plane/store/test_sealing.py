"""What is sealed comes back in its own place with its own key, and nowhere else, whatever was done to it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody
from control_plane.store.keyring import Keyring
from control_plane.store.sealing import SEALED, SECRETS, Codec, NotOpened, unwrap_index_key

OLD = {"old": b"o" * 32}
NEW = {"new": b"n" * 32}
CODEC = Codec(Keyring(OLD, "test"), b"i" * 32)
PLACE = ("certificates", "1", "key")

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def envelope(value: object) -> EntityBody:
    sealed = CODEC.seal(PLACE, value)  # type: ignore[arg-type]  # any JSON
    assert list(sealed) == [SEALED]
    return sealed


@given(values)
def test_a_value_comes_back(value: object) -> None:
    assert CODEC.open(PLACE, json.loads(json.dumps(envelope(value)))) == value


def test_equal_values_do_not_look_equal() -> None:
    assert len({str(envelope("same")) for _ in range(100)}) == 100


@given(st.text(min_size=1), st.integers(min_value=0), st.integers(1, 255))
def test_one_changed_byte_is_seen(value: str, at: int, change: int) -> None:
    name, _, text = str(envelope(value)[SEALED]).partition(":")
    raw = bytearray(base64.b64decode(text))
    raw[at % len(raw)] ^= change
    with pytest.raises(NotOpened):
        CODEC.open(PLACE, {SEALED: f"{name}:{base64.b64encode(raw).decode()}"})


@given(st.tuples(*[st.text(max_size=8)] * 3))
def test_it_opens_in_its_own_place_only(place: tuple[str, str, str]) -> None:
    sealed = envelope("secret")
    if place == PLACE:
        return
    with pytest.raises(NotOpened):
        CODEC.open(place, sealed)


def test_parts_of_a_place_do_not_run_together() -> None:
    with pytest.raises(NotOpened):
        CODEC.open(("certificates", "1key"), CODEC.seal(("certificates", "1", "key"), "x"))


@pytest.mark.parametrize("text", ["", "old", "old:", "old:####", "old:AAAA", "old:" + "A" * 36, "old:" + "A" * 400])
def test_what_is_no_sealed_value_is_refused(text: str) -> None:
    with pytest.raises(NotOpened):
        CODEC.open(PLACE, {SEALED: text})


def test_another_key_of_the_same_name_does_not_open_it() -> None:
    other = Codec(Keyring({"old": b"x" * 32}, "test"), b"i" * 32)
    with pytest.raises(NotOpened, match="another key called 'old'"):
        other.open(PLACE, envelope("secret"))
    with pytest.raises(NotOpened, match="'old', which is not in this control plane's keyring"):
        Codec(Keyring(NEW, "test"), b"i" * 32).open(PLACE, envelope("secret"))


def test_old_keys_open_and_the_first_one_seals() -> None:
    both = Codec(Keyring({**NEW, **OLD}, "test"), b"i" * 32)
    assert both.open(PLACE, envelope("secret")) == "secret"
    assert both.sealed_by(both.seal(PLACE, "x")) == "new"


def test_the_key_of_the_hashes_travels_sealed() -> None:
    text = CODEC.wrapped_index_key()
    assert base64.b64encode(b"i" * 32).decode() not in text
    assert unwrap_index_key(Keyring(OLD, "test"), "old", text) == b"i" * 32
    with pytest.raises(NotOpened):
        unwrap_index_key(Keyring({"old": b"x" * 32}, "test"), "old", text)


@pytest.mark.parametrize("collection", sorted(STORED))
def test_bodies_come_back_and_secrets_do_not_show(collection: str) -> None:
    schema = STORED[collection]
    body: EntityBody = {name: f"planted-{name}" for name in schema.fields}
    body |= {"id": "1", "ttl": None}
    text = CODEC.encode(collection, body)
    for name in schema.fields:
        assert (f"planted-{name}" in text) is (name not in (*schema.secrets, "id", "ttl")), name
    assert CODEC.decode(collection, text) == body


def test_an_unset_secret_stays_unset() -> None:
    body: EntityBody = {"id": "1", "key": "k", "key_alt": None}
    assert json.loads(CODEC.encode("certificates", body))["key_alt"] is None


def test_collections_without_secrets_are_plain_json() -> None:
    body: EntityBody = {"id": "1", "config": {SEALED: "old:AAAA"}}
    assert CODEC.decode("plugins", CODEC.encode("plugins", body)) == body, "no client can make it look sealed"


def test_a_secret_that_looks_sealed_is_a_text_like_any_other() -> None:
    body: EntityBody = {"id": "1", "key": '{"$sealed":"old:AAAA"}'}
    assert CODEC.decode("keyauth_credentials", CODEC.encode("keyauth_credentials", body)) == body


def test_unique_secrets_are_hashed_with_the_database_s_own_key() -> None:
    def hashed(codec: Codec, value: str) -> str:
        return codec.key_value("keyauth_credentials", ("key",), [value])

    assert hashed(CODEC, "s3cret") == hashed(Codec(Keyring(NEW, "test"), b"i" * 32), "s3cret")
    assert hashed(CODEC, "s3cret") != hashed(Codec(Keyring(OLD, "test"), b"j" * 32), "s3cret")
    assert hashed(CODEC, "s3cret") != hashed(CODEC, "s3creu")
    assert "s3cret" not in hashed(CODEC, "s3cret")
    assert CODEC.key_value("services", ("name",), ["shop"]) == '["shop"]'


def test_every_secret_of_the_schemas_is_known() -> None:
    assert {name: set(fields) for name, fields in SECRETS.items()} == {
        "certificates": {"key", "key_alt"},
        "keyauth_credentials": {"key"},
        "basicauth_credentials": {"password"},
        "hmacauth_credentials": {"secret"},
        "jwt_secrets": {"secret"},
        "oauth2_credentials": {"client_secret"},
    }
