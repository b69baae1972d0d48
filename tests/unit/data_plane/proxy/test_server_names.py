"""Which certificate a hello's name gets, and how contexts are kept."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from data_plane.model import CertificateConfig
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tls import BadTlsSetting, ServerContexts, ServerNames, server_context
from pointsman.rules.pems import UnusablePem
from tests.support.tls import client_context, issued

# The group ffdhe2048 of RFC 7919.
DH_PARAMETERS = """-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


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


def shaken(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """The cipher that both agree on, without a socket; raises ssl.SSLError when there is none."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    cipher = theirs.cipher()
    assert cipher is not None
    return cipher[0]


def test_ciphers_with_dhe_are_agreed_on_where_there_are_parameters(tmp_path: Path) -> None:
    file = tmp_path / "dh.pem"
    file.write_text(DH_PARAMETERS)
    client = client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("DHE-RSA-AES128-GCM-SHA256")
    certificate = CertificateConfig("c", *issued("a.test", ecdsa=False).pair)
    with_parameters = ServerContexts(ProxySettings(ssl_dhparam=str(file))).of(certificate)
    assert shaken(with_parameters, client, "a.test") == "DHE-RSA-AES128-GCM-SHA256"
    with pytest.raises(ssl.SSLError):
        shaken(ServerContexts(ProxySettings()).of(certificate), client, "a.test")
