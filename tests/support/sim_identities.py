"""Certificates for a thousand simulated nodes, written into a control plane's database before it starts.

Enrolling them one by one would measure the limit on enrolments. What is written is what enrolling writes, by the same
code: the cluster's CA, a record and a certificate of each node.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from control_plane.identity import node_ca, node_records
from control_plane.identity.node_records import NodeRecord
from control_plane.store.contract import Origin, Transaction
from control_plane.store.opening import open_store
from data_plane.node.fleet_access import Options, joined_channel
from pointsman.rules.node_names import key_digest

LIFE_S = 86_400.0


@dataclass(frozen=True, slots=True)
class SimIdentity:
    """A node's id, and what it dials with; PEM. Without `key` it dials in the clear."""

    node_id: str
    key: bytes = b""
    chain: bytes = b""
    trusted: bytes = b""

    def channel(self, address: str, options: Options) -> grpc.aio.Channel:
        """A channel of this node's."""
        if not self.key:
            return grpc.aio.insecure_channel(address, options=options)
        return joined_channel(address, options, trusted=self.trusted, key=self.key, chain=self.chain)


def without_certificates(count: int) -> list[SimIdentity]:
    """Ids alone."""
    return [SimIdentity(str(uuid.uuid4())) for _ in range(count)]


async def join_all(database: str, count: int) -> Sequence[SimIdentity]:
    """Nodes that have joined the cluster of a database, which nobody has open."""
    store = await open_store(database)
    try:
        now = time.time()
        authorities = await node_ca.load_or_make(store, now=now)
        made: list[SimIdentity] = []
        records: list[NodeRecord] = []
        for _ in range(count):
            key = ec.generate_private_key(ec.SECP256R1())
            builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
            request = builder.sign(key, hashes.SHA256())
            node_id = str(uuid.uuid4())
            certificate = authorities.issuing.issue_node(request, node_id=node_id, now=now, life_s=LIFE_S)
            key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            chain = certificate.public_bytes(Encoding.PEM)
            made.append(SimIdentity(node_id, key_pem, chain, authorities.trusted))
            records.append(
                NodeRecord(
                    node_id,
                    key_digest(request),
                    now,
                    "simulated",
                    now + LIFE_S,
                    trusts=authorities.fingerprints,
                    issuer=authorities.issuing.fingerprint,
                )
            )

        def work(tx: Transaction) -> None:
            for record in records:
                node_records.put(tx, record)

        await store.write(work, Origin(author="simulator", source="identity", action="join"))
        return made
    finally:
        await store.close()
