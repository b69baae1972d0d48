"""Names in the certificates of nodes and control planes, which both planes must read alike.

A node's certificate names it in one URI (or, lacking that, one DNS name) of its subject alternative names; the subject
is never looked at. A UUID at the name's end is the node id; from any other name it is derived, so that certificates of
an organisation's own CA work as they are.
"""

from __future__ import annotations

import hashlib
import uuid

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SERVER_NAME = "control-plane.pointsman.internal"
"""In the server certificate of every fleet link. A cluster's CA signs it for control planes alone, so it proves as much
as a host name would, wherever the node had to dial: through a load balancer, an address, or another name."""


class BadName(ValueError):
    """The certificate names no node, or several."""


def node_uri(cluster: str, node_id: str) -> str:
    """The name that a cluster's CA puts into a node's certificate."""
    return f"pointsman://{cluster}/node/{node_id}"


def name_of(certificate: x509.Certificate) -> str:
    """The one name in a node's certificate. Raises BadName."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise BadName("the certificate has no subject alternative name, which is where a node's name stands") from None
    for kind in (x509.UniformResourceIdentifier, x509.DNSName):
        found = names.get_values_for_type(kind)
        if len(found) > 1:
            raise BadName(f"the certificate has {len(found)} names, and a node has one")
        if found:
            return str(found[0])
    raise BadName("the certificate names no URI and no DNS name, one of which is a node's name")


def node_id_of(name: str) -> str:
    """The node id that a certificate's name stands for."""
    last = name.rpartition("/")[2]
    try:
        return str(uuid.UUID(last))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def key_digest(certificate: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """SHA-256 of the public key, hex: the same for each certificate of one key."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()
