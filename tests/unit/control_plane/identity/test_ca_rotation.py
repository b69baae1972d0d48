"""Changing the CA: every step with nodes that follow, that are away, and that are told to hurry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from control_plane.fleet.gate import EnrolledGate, Trust
from control_plane.identity import ca_rotation, node_ca
from control_plane.identity.ca_rotation import STEP_S_MIN, NotNow, State
from control_plane.identity.node_certificates import Granted, NodeCertificates
from control_plane.identity.refusals import NotLetIn, Refusal
from control_plane.store.contract import Store
from control_plane.store.sqlite import open_sqlite
from pointsman.rules.join_token import fingerprint_of
from tests.unit.control_plane.identity.test_node_certificates import NODE, OTHER, ROOT, Clock, made, request, token


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_sqlite(tmp_path / "store.db")
    yield store
    await store.close()


def fingerprints(granted: Granted) -> tuple[frozenset[str], str]:
    """What a node would say that took this: whom it trusts, and who signed its certificate."""
    leaf = x509.load_pem_x509_certificate(granted.chain)
    authorities = x509.load_pem_x509_certificates(granted.trusted)
    (issuer,) = [each for each in authorities if each.subject == leaf.issuer]
    leaf.verify_directly_issued_by(issuer)
    names = {each.subject: fingerprint_of(each.public_bytes(Encoding.DER)) for each in authorities}
    return frozenset(names.values()), names[issuer.subject]


def says(nodes: NodeCertificates, granted: Granted, node: str = NODE) -> None:
    trusts, issuer = fingerprints(granted)
    nodes.heard(node, trusts=trusts, issuer=issuer)


def state(nodes: NodeCertificates) -> State:
    return ca_rotation.state_of(nodes.authorities)


async def step(nodes: NodeCertificates, clock: Clock) -> State:
    await nodes.refresh()
    clock.now += STEP_S_MIN
    await nodes.refresh()
    return state(nodes)


async def test_nodes_follow_a_rotation_on_two_control_planes(store: Store, clock: Clock) -> None:
    here, there = await made(store, clock), await made(store, clock)
    first = await here.enrol(await token(here), request(), node_id=NODE, address="10.0.0.1")
    gate = EnrolledGate(there, (), wall=clock)
    await there.refresh()
    assert gate.settled(NODE)

    await here.rotate_ca(origin=ROOT)
    with pytest.raises(NotNow, match="introducing"):
        await here.rotate_ca(origin=ROOT)
    assert await step(here, clock) is State.INTRODUCING, "the node has not said that it knows the new one"
    assert [each.node_id for each in await here.ca_missing()] == [NODE]
    await there.refresh()
    assert not gate.settled(NODE)
    told = gate.trust()
    assert told == Trust(here.trusted, renew=False)
    assert len(x509.load_pem_x509_certificates(told.trusted)) == 2

    says(there, Granted(first.chain, told.trusted, first.life_s))  # over the other one
    assert await step(there, clock) is State.RETIRING
    await here.refresh()
    assert gate.trust() == Trust(here.trusted, renew=True)
    assert not here.settled(NODE)
    assert await step(here, clock) is State.RETIRING, "the node shows what the former one signed"

    second = await here.renew(NODE, request())
    assert fingerprints(second)[1] == here.authorities.issuing.fingerprint != fingerprints(first)[1]
    says(here, second)
    assert await step(here, clock) is State.SETTLED
    await there.refresh()
    assert there.trusted == here.trusted
    assert len(x509.load_pem_x509_certificates(here.trusted)) == 1
    assert not here.authorities.issuing.signed(x509.load_pem_x509_certificate(first.chain))


async def test_a_node_that_is_away_holds_it_up_until_its_certificate_ends(store: Store, clock: Clock) -> None:
    nodes = await made(store, clock)
    await nodes.enrol(await token(nodes), request(), node_id=NODE, address="10.0.0.1")
    await nodes.rotate_ca(origin=ROOT)
    assert await step(nodes, clock) is State.INTRODUCING
    clock.now += 3600
    await nodes.refresh()
    assert state(nodes) is State.RETIRING
    assert await step(nodes, clock) is State.SETTLED


async def test_an_operator_can_hurry(store: Store, clock: Clock) -> None:
    nodes = await made(store, clock)
    with pytest.raises(NotNow, match="no rotation"):
        await nodes.hurry_ca(origin=ROOT)
    await nodes.enrol(await token(nodes), request(), node_id=NODE, address="10.0.0.1")
    await nodes.rotate_ca(origin=ROOT)
    old, seen = await token(nodes), [state(nodes)]
    for _ in range(2):
        await nodes.hurry_ca(origin=ROOT)
        seen.append(state(nodes))
        with pytest.raises(NotLetIn) as caught:
            await nodes.enrol(old, request(), node_id=OTHER, address="10.0.0.1")
        known = caught.value.refusal
        assert known is (Refusal.TOKEN_REVOKED if seen[-1] is State.RETIRING else Refusal.WRONG_CLUSTER)
    assert seen == [State.INTRODUCING, State.RETIRING, State.SETTLED]
    await nodes.enrol(await token(nodes), request(), node_id=OTHER, address="10.0.0.1")


async def test_what_a_node_says_of_its_trust_is_kept(store: Store, clock: Clock) -> None:
    nodes = await made(store, clock)
    granted = await nodes.enrol(await token(nodes), request(), node_id=NODE, address="10.0.0.1")
    nodes.heard(NODE, trusts=frozenset(), issuer="")
    await nodes.refresh()
    record = nodes.node(NODE)
    assert record is not None
    assert (record.trusts, record.issuer) == (frozenset(), "")
    says(nodes, granted)
    await nodes.refresh()
    record = nodes.node(NODE)
    assert record is not None
    assert record.issuer == nodes.authorities.issuing.fingerprint


async def test_authorities_survive_a_restart(store: Store, clock: Clock) -> None:
    nodes = await made(store, clock)
    await nodes.rotate_ca(origin=ROOT)
    again = await node_ca.load_or_make(store, now=clock.now)
    assert again.fingerprints == nodes.authorities.fingerprints
    assert again.issuing.fingerprint == nodes.authorities.issuing.fingerprint
