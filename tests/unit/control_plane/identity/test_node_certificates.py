"""Who gets a certificate, over a real store, with clocks of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control_plane.fleet.gate import EnrolledGate, ServerPair
from control_plane.identity import node_ca
from control_plane.identity.node_certificates import (
    ENROLMENTS_BURST,
    NodeCertificates,
)
from control_plane.identity.refusals import NotLetIn, Refusal
from control_plane.store.contract import Origin, Store
from pointsman.rules.join_token import JoinToken
from pointsman.rules.node_names import name_of
from tests.support.fresh_store import fresh_sqlite

ROOT = Origin(author="root", source="identity")
NODE = "4ef3b2c4-9d5c-4ce8-9bb1-7a1c5ad7eb0f"
OTHER = "0f0e0d0c-0b0a-4908-8706-050403020100"


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def request(key: ec.EllipticCurvePrivateKey | None = None, *, asks_for: str = "") -> bytes:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, asks_for)] if asks_for else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if asks_for:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(asks_for)]), critical=False)
    return builder.sign(key or KEY, hashes.SHA256()).public_bytes(Encoding.DER)


KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await fresh_sqlite(tmp_path / "store.db")
    yield store
    await store.close()


async def made(store: Store, clock: Clock) -> NodeCertificates:
    authority = await node_ca.load_or_make(store, now=clock.now)
    return NodeCertificates(store, authority, life_s=3600, clock=clock, wall=clock)


@pytest.fixture
async def nodes(store: Store, clock: Clock) -> NodeCertificates:
    return await made(store, clock)


async def token(nodes: NodeCertificates, *, uses: int = 1, ttl_s: float = 60.0) -> str:
    made, _ = await nodes.create_token(ttl_s=ttl_s, uses=uses, labels={"zone": "a"}, origin=ROOT)
    return made.text


async def refusal(nodes: NodeCertificates, text: str, *, node: str = NODE, der: bytes | None = None) -> Refusal:
    with pytest.raises(NotLetIn) as caught:
        await nodes.enrol(text, der or request(), node_id=node, address="10.0.0.1")
    assert nodes.refusals.counts[caught.value.refusal] >= 1
    return caught.value.refusal


async def test_a_certificate_names_the_node_and_nothing_that_was_asked_for(nodes: NodeCertificates) -> None:
    der = request(asks_for="admin.example.org")
    granted = await nodes.enrol(await token(nodes), der, node_id=NODE, address="10.0.0.1")
    certificate = x509.load_pem_x509_certificate(granted.chain)
    assert name_of(certificate) == f"pointsman://{nodes.cluster}/node/{NODE}"
    assert "admin" not in certificate.subject.rfc4514_string()
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(granted.trusted))


async def test_tokens_that_do_not_let_in(nodes: NodeCertificates, store: Store, clock: Clock) -> None:
    good = await token(nodes)
    parts = JoinToken.parse(good)
    guessed = JoinToken(parts.id, parts.fingerprint, "x" * 43).text
    foreign = JoinToken(parts.id, "x" * 43, parts.secret).text
    assert await refusal(nodes, "pmj_no") is Refusal.UNKNOWN_TOKEN
    assert await refusal(nodes, guessed) is Refusal.UNKNOWN_TOKEN
    assert await refusal(nodes, foreign) is Refusal.WRONG_CLUSTER
    assert await refusal(nodes, good, node="no-uuid") is Refusal.BAD_REQUEST
    assert await refusal(nodes, good, der=b"no request") is Refusal.BAD_REQUEST
    await nodes.enrol(good, request(), node_id=NODE, address="10.0.0.1")
    assert await refusal(nodes, good, node=OTHER) is Refusal.TOKEN_USED_UP
    late = await token(nodes, ttl_s=10)
    clock.now += 10
    assert await refusal(nodes, late, node=OTHER) is Refusal.TOKEN_EXPIRED
    ended = await token(nodes)
    assert await nodes.revoke_token(JoinToken.parse(ended).id, origin=ROOT)
    assert await refusal(nodes, ended, node=OTHER) is Refusal.TOKEN_REVOKED
    kept = str(await store.read(lambda tx: tx.identities.each("join-token")))
    assert parts.secret not in kept


async def test_a_lost_answer_is_given_again_and_counted_once(nodes: NodeCertificates) -> None:
    text = await token(nodes)
    for _ in range(2):
        await nodes.enrol(text, request(), node_id=NODE, address="10.0.0.1")
    (record,) = await nodes.tokens()
    assert record.used_by == (NODE,)


async def test_a_token_takes_no_other_nodes_place(nodes: NodeCertificates) -> None:
    text = await token(nodes, uses=5)
    await nodes.enrol(text, request(), node_id=NODE, address="10.0.0.1")
    thief = request(ec.generate_private_key(ec.SECP256R1()))
    assert await refusal(nodes, text, der=thief) is Refusal.ID_TAKEN


async def test_a_revoked_node_gets_nothing_here_and_elsewhere_until_it_is_approved(
    nodes: NodeCertificates, store: Store, clock: Clock
) -> None:
    text = await token(nodes)
    granted = await nodes.enrol(text, request(), node_id=NODE, address="10.0.0.1")
    elsewhere = await made(store, clock)
    await elsewhere.refresh()
    gate = EnrolledGate(elsewhere, (), wall=clock)
    caller = gate.identify(x509.load_pem_x509_certificate(granted.chain))
    gate.still(caller)

    assert await nodes.revoke(NODE, origin=ROOT) is not None
    await elsewhere.refresh()
    with pytest.raises(NotLetIn, match="was revoked"):
        gate.still(caller)
    with pytest.raises(NotLetIn, match="was revoked"):
        await elsewhere.renew(NODE, request())
    assert await refusal(nodes, text) is Refusal.NODE_REVOKED

    assert await nodes.approve(NODE, origin=ROOT) is not None
    await nodes.renew(NODE, request())
    assert await nodes.revoke(OTHER, origin=ROOT) is None


async def test_a_stream_ends_with_the_last_certificate_of_its_node(nodes: NodeCertificates, clock: Clock) -> None:
    granted = await nodes.enrol(await token(nodes), request(), node_id=NODE, address="10.0.0.1")
    gate = EnrolledGate(nodes, (), wall=clock)
    caller = gate.identify(x509.load_pem_x509_certificate(granted.chain))
    clock.now += 3000
    await nodes.renew(NODE, request())
    clock.now += 3000  # the first certificate is over, the second is not
    gate.still(caller)
    clock.now += 3000
    with pytest.raises(NotLetIn, match="has expired"):
        gate.still(caller)


async def test_enrolments_are_limited_by_address(nodes: NodeCertificates) -> None:
    for _ in range(ENROLMENTS_BURST):
        await refusal(nodes, "pmj_no")
    assert await refusal(nodes, await token(nodes)) is Refusal.TOO_MANY


async def test_control_planes_over_one_store_share_the_authority(store: Store, clock: Clock) -> None:
    first, second = await made(store, clock), await made(store, clock)
    assert first.trusted == second.trusted


async def test_a_listener_is_given_a_certificate_only_when_it_is_another_one(store: Store, clock: Clock) -> None:
    """gRPC does not survive being given the same one before each of many handshakes at once."""
    nodes = await made(store, clock)
    pair = ServerPair(lambda: nodes.server_pair(()), lambda: nodes.authorities, wall=clock)
    link, enrolment = pair.fetcher(), pair.fetcher()
    assert [link(), link(), enrolment()] == [None, None, None], "they begin with it"
    clock.now += node_ca.SERVER_LIFE_S * 0.7
    assert link() is not None
    assert link() is None
    assert enrolment() is not None, "each is told by itself"
    assert enrolment() is None
