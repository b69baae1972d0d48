"""Which certificate a hello's name gets, and how contexts are kept."""

from __future__ import annotations

import pytest

from data_plane.model import CertificateConfig
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tls import BadTlsSetting, ServerContexts, ServerNames, server_context
from pointsman.rules.pems import UnusablePem
from tests.support.tls import issued


def names(*entries: str) -> ServerNames:
    return ServerNames({entry: CertificateConfig(entry, "", "") for entry in entries}, ServerContexts(ProxySettings()))


@pytest.mark.parametrize(
    ("name", "entries", "expected"),
    [
        ("a.b.com", ("a.b.com", "*.b.com", "a.b.*", "*"), "a.b.com"),
        ("a.b.com", ("*.b.com", "a.b.*", "*"), "*.b.com"),
        ("a.b.com", ("a.b.*", "*"), "a.b.*"),
        ("a.b.com", ("*",), "*"),
        ("a.b.com", (), None),
        ("a.b.com", ("b.com", "*.com", "*.a.b.com", "b.*", "a.*"), None),
        ("x.a.b.com", ("*.b.com",), None),
        ("x.a.b.com", ("*.a.b.com",), "*.a.b.com"),
        ("b.com", ("*.com",), None),
        ("b.com", ("b.*",), "b.*"),
        ("localhost", ("localhost.*", "*.localhost"), None),
        ("localhost", ("*",), "*"),
    ],
)
def test_the_order_of_spec_proxy_9_1(name: str, entries: tuple[str, ...], expected: str | None) -> None:
    found = names(*entries).certificate(name)

    assert (found.id if found is not None else None) == expected


def test_contexts_are_kept_while_the_certificate_stays_as_it_is() -> None:
    contexts = ServerContexts(ProxySettings(), contexts_max=2)
    first = CertificateConfig("c", *issued("a.test").pair)
    rotated = CertificateConfig("c", *issued("a.test", serial=1).pair)

    made = contexts.of(first)
    assert contexts.of(CertificateConfig("c", *issued("a.test").pair)) is made
    assert contexts.of(rotated) is not made
    again = contexts.of(rotated)
    for other in ("d", "e"):
        contexts.of(CertificateConfig(other, *issued("a.test").pair))
    assert contexts.of(rotated) is not again  # made anew: more were wanted since than are kept


def test_a_pair_that_does_not_fit_is_refused_without_a_word_of_it() -> None:
    with pytest.raises(UnusablePem, match="does not match the key") as error:
        ServerContexts(ProxySettings()).of(CertificateConfig("c", issued("a.test").cert, issued("b.test").key))
    assert "BEGIN" not in str(error.value)


def test_a_key_is_in_no_representation() -> None:
    certificate = CertificateConfig("c", *issued("a.test").pair, *issued("a.test", ecdsa=False).pair)
    assert "PRIVATE KEY" not in repr(certificate)
    assert issued("a.test").key.splitlines()[1] not in repr(certificate)


@pytest.mark.parametrize(
    "settings", [ProxySettings(ssl_protocols="TLSv1"), ProxySettings(ssl_protocols=""), ProxySettings(ssl_ciphers="x")]
)
def test_settings_that_can_t_be_had_are_told(settings: ProxySettings) -> None:
    with pytest.raises(BadTlsSetting, match="ssl_"):
        server_context(settings)
