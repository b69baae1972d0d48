"""The Admin API's own TLS: one context for the listener's life, whose certificate can be read again."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdminTls:
    """A server context and the files it is made from. `reload` serves new handshakes; open connections go on."""

    context: ssl.SSLContext
    certificate: str
    key: str

    @classmethod
    def of(cls, certificate: str, key: str) -> AdminTls:
        """Reads the files. Raises OSError or ssl.SSLError for what can't be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        tls = cls(context, certificate, key)
        tls.reload()
        return tls

    def reload(self) -> None:
        """Reads the files again; raises as `of`, with the old certificate still in use."""
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trial.load_cert_chain(self.certificate, self.key)
        self.context.load_cert_chain(self.certificate, self.key)
