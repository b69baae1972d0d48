"""PEM texts into an SSL context: the one way in which a key reaches OpenSSL, on both planes.

OpenSSL's loader takes file names only. A key goes through an anonymous memory file, so that it never lies on a disk,
not even for a moment. What OpenSSL says is turned into words of ours, which never quote what was given.
"""

from __future__ import annotations

import os
import ssl

_WHY = {
    "KEY_VALUES_MISMATCH": "the certificate does not match the key",
    "EE_KEY_TOO_SMALL": "the certificate's key is too short to be safe",
    "CA_MD_TOO_WEAK": "the certificate is signed with a hash that is no longer safe",
    "NO_START_LINE": "there is no PEM block of the right kind in it",
}


class UnusablePem(ValueError):
    """OpenSSL does not take the text; the message says why and quotes nothing of it."""


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Give the context a certificate (its chain after it) with its private key; raises UnusablePem.

    Called twice with keys of different types, a server context offers either by what the client understands.
    """
    descriptor = os.memfd_create("pair", os.MFD_CLOEXEC)
    try:
        _write_all(descriptor, f"{key.strip()}\n{certificate.strip()}\n".encode())
        # Without a password of ours OpenSSL would ask for one on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=b"")
    except (ssl.SSLError, ValueError) as error:
        raise UnusablePem(_reason(error)) from None
    finally:
        os.close(descriptor)


def load_authorities(context: ssl.SSLContext, certificates: str) -> None:
    """Add the certificates of a PEM text to what the context trusts; raises UnusablePem."""
    try:
        context.load_verify_locations(cadata=certificates)
    except (ssl.SSLError, ValueError) as error:
        raise UnusablePem(_reason(error)) from None


def _reason(error: ssl.SSLError | ValueError) -> str:
    name = error.reason if isinstance(error, ssl.SSLError) else ""
    return _WHY.get(name or "", f"OpenSSL can't use it ({name or 'unreadable'})")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
