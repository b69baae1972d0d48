"""Which nodes belong to the cluster: joining with a token, renewing, revoking.

A node id belongs to the key it joined with, for good: a token lets new nodes in, and none take another's place. What
is known of nodes is read from the store again every second, so that a revocation by another control plane over the
same database ends a node's stream here within two.
"""

from __future__ import annotations

import dataclasses
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from control_plane.identity import ca_rotation, join_tokens, node_ca, node_records
from control_plane.identity.ca_rotation import Missing, State
from control_plane.identity.join_tokens import JoinTokenRecord
from control_plane.identity.node_ca import Authorities, BadRequest, Pair
from control_plane.identity.node_records import NodeRecord
from control_plane.identity.rates import Rate
from control_plane.identity.refusals import NotLetIn, Refusal, Refusals
from control_plane.store.contract import AuditEntry, Origin, Store, StoreError, Transaction
from pointsman.rules.join_token import JoinToken
from pointsman.rules.node_names import key_digest

log = logging.getLogger(__name__)

TOKENS_KIND = "join-token"
LIFE_S_MIN, LIFE_S_MAX = 1.0, 30 * 86_400.0
TOKENS_MAX = 10_000
ENROLMENTS_PER_S, ENROLMENTS_BURST = 1.0, 20
"""By address; a rack of nodes behind one may start at once."""


_ITSELF = Origin(author="control plane", source="identity", action="node CA")
_MAKE_ONE = "make one: pointsman join-token create"


@dataclass(frozen=True, slots=True)
class Granted:
    """What a node gets: its chain and whom to trust, PEM, and how long it is good from now."""

    chain: bytes
    trusted: bytes
    life_s: float


class NodeCertificates:
    """The nodes of one cluster, as one control plane sees them."""

    def __init__(
        self,
        store: Store,
        authorities: Authorities,
        *,
        life_s: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._authorities = authorities
        self._life_s = life_s
        self._wall = wall
        self._nodes: Mapping[str, NodeRecord] = {}
        self._said: dict[str, tuple[frozenset[str], str]] = {}
        self._rate = Rate(ENROLMENTS_PER_S, burst=ENROLMENTS_BURST, clock=clock)
        self.refusals = Refusals(wall=wall)

    @property
    def cluster(self) -> str:
        """The cluster's id, part of each node's name."""
        return self._authorities.issuing.cluster

    @property
    def trusted(self) -> bytes:
        """The authorities' certificates, PEM."""
        return self._authorities.trusted

    @property
    def authorities(self) -> Authorities:
        """Who signs and who is trusted, to within a second."""
        return self._authorities

    def server_pair(self, names: Sequence[str]) -> Pair:
        """A new certificate for a fleet link."""
        return self._authorities.issuing.issue_server(names, now=self._wall())

    def node(self, node_id: str) -> NodeRecord | None:
        """What is known of a node, to within a second."""
        return self._nodes.get(node_id)

    async def refresh(self) -> None:
        """Keeps what nodes said, takes a rotation of the CA further, and reads all again. Raises StoreError."""
        said, self._said = self._said, {}
        if said or ca_rotation.due(self._authorities, self._nodes.values(), now=self._wall()):
            try:
                await self._store.write(lambda tx: self._keep(tx, said), _ITSELF)
            except StoreError:
                self._said = {**said, **self._said}
                raise

        def look(tx: Transaction) -> tuple[Mapping[str, NodeRecord], Authorities]:
            return node_records.each(tx), node_ca.load(tx, known=self._authorities)

        self._nodes, self._authorities = await self._store.read(look)

    def heard(self, node_id: str, *, trusts: frozenset[str], issuer: str) -> None:
        """A node said which authorities it trusts, and by which one its certificate is. Kept by the next refresh."""
        record = self._nodes.get(node_id)
        if record is not None and (record.trusts, record.issuer) != (trusts, issuer):
            self._said[node_id] = (trusts, issuer)

    def settled(self, node_id: str) -> bool:
        """Whether a node trusts and shows what it should by now."""
        record = self._nodes.get(node_id)
        return record is None or ca_rotation.settled(self._authorities, record)

    @property
    def renewing(self) -> bool:
        """Whether nodes with a certificate of the former authority should renew it."""
        return ca_rotation.state_of(self._authorities) is State.RETIRING

    def _keep(self, tx: Transaction, said: Mapping[str, tuple[frozenset[str], str]]) -> None:
        for node_id, (trusts, issuer) in said.items():
            record = node_records.get(tx, node_id)
            if record is not None:
                node_records.put(tx, dataclasses.replace(record, trusts=trusts, issuer=issuer))
        state = ca_rotation.advance(tx, now=self._wall(), origin=_ITSELF)
        if state is not None:
            log.warning("the rotation of the node CA goes on: it is %s", state.value)

    async def rotate_ca(self, *, origin: Origin) -> None:
        """Begins a rotation of the CA. Raises NotNow."""
        await self._store.write(lambda tx: ca_rotation.begin(tx, now=self._wall(), origin=origin), origin)
        await self.refresh()

    async def hurry_ca(self, *, origin: Origin) -> None:
        """Takes the rotation's next step without the nodes that are missing. Raises NotNow."""
        await self._store.write(lambda tx: ca_rotation.advance(tx, now=self._wall(), origin=origin, hurry=True), origin)
        await self.refresh()

    async def ca_missing(self) -> Sequence[Missing]:
        """The nodes that a rotation's next step waits for, as of now."""
        await self.refresh()
        return ca_rotation.missing(self._authorities, self._nodes.values(), now=self._wall())

    async def enrol(self, text: str, request_der: bytes, *, node_id: str, address: str, hostname: str = "") -> Granted:
        """Lets a node in by a token. Raises NotLetIn, and StoreError.

        The same node with the same key and token is answered again without being counted again: it may never have
        got the first answer.
        """
        try:
            return await self._enrol(text, request_der, node_id, address)
        except NotLetIn as refused:
            what = f"enrolment of {node_id[:64]!r} from {address}"
            self.refusals.note(refused, what, node_id=node_id, address=address, hostname=hostname)
            raise

    async def renew(self, node_id: str, request_der: bytes) -> Granted:
        """A new certificate for a node whose present one was checked. Raises NotLetIn, and StoreError."""
        try:
            request = _read(request_der)
            now = self._wall()

            def work(tx: Transaction) -> NodeRecord:
                record = self.checked(node_records.get(tx, node_id), node_id, key_digest(request))
                renewed = dataclasses.replace(record, expires_at=now + self._life_s)
                node_records.put(tx, renewed)
                return renewed

            record = (await self._store.write(work, Origin(author=node_id, source="identity", action="renew"))).result
        except NotLetIn as refused:
            self.refusals.note(refused, f"renewal of node {node_id}", node_id=node_id)
            raise
        return self._granted(record, request, now)

    def checked(self, record: NodeRecord | None, node_id: str, key: str) -> NodeRecord:
        """The record of a node that shows a certificate of this key. Raises NotLetIn."""
        if record is None:
            message = f"no node {node_id} has joined this cluster; give it a join token"
            raise NotLetIn(Refusal.UNKNOWN_NODE, message)
        if record.revoked_at is not None:
            message = f"node {node_id} was revoked; `pointsman node approve {node_id}` lets it in again"
            raise NotLetIn(Refusal.NODE_REVOKED, message)
        if record.key != key:
            raise NotLetIn(Refusal.ID_TAKEN, f"node {node_id} has another key; each node needs a state_dir of its own")
        return record

    async def create_token(
        self, *, ttl_s: float, uses: int, labels: Mapping[str, str], origin: Origin
    ) -> tuple[JoinToken, JoinTokenRecord]:
        """Makes a join token. Raises ValueError when there are too many."""
        now = self._wall()
        token, record = join_tokens.make(
            fingerprint=self._authorities.issuing.fingerprint,
            now=now,
            created_by=origin.author,
            ttl_s=ttl_s,
            uses=uses,
            labels=labels,
        )

        def work(tx: Transaction) -> None:
            known = _tokens(tx)
            for old in known:
                if now - old.expires_at > join_tokens.KEPT_S:
                    tx.identities.delete(TOKENS_KIND, old.id)
            if len(known) >= TOKENS_MAX:
                raise ValueError(f"there are {TOKENS_MAX} join tokens already; let some nodes share one by its uses")
            tx.identities.put(TOKENS_KIND, record.id, record.to_json())
            tx.records.append_audit([AuditEntry(now, origin, "done", None, {"join_token": record.id, "uses": uses})])

        await self._store.write(work, origin)
        return token, record

    async def tokens(self) -> Sequence[JoinTokenRecord]:
        """All join tokens, by the time of their making."""
        return sorted(await self._store.read(_tokens), key=lambda record: (record.created_at, record.id))

    async def revoke_token(self, token_id: str, *, origin: Origin) -> bool:
        """Ends a token; whether there is one. Nodes that joined with it stay."""
        now = self._wall()

        def work(tx: Transaction) -> bool:
            body = tx.identities.get(TOKENS_KIND, token_id)
            if body is None:
                return False
            record = JoinTokenRecord.from_json(body)
            if record.revoked_at is None:
                ended = dataclasses.replace(record, revoked_at=now)
                tx.identities.put(TOKENS_KIND, token_id, ended.to_json())
                tx.records.append_audit([AuditEntry(now, origin, "done", None, {"join_token": token_id})])
            return True

        return (await self._store.write(work, origin)).result

    async def revoke(self, node_id: str, *, origin: Origin) -> NodeRecord | None:
        """Shuts a node out; None when none such has joined."""
        return await self._mark(node_id, self._wall(), origin)

    async def approve(self, node_id: str, *, origin: Origin) -> NodeRecord | None:
        """Lets a revoked node in again; None when none such has joined."""
        return await self._mark(node_id, None, origin)

    async def _mark(self, node_id: str, revoked_at: float | None, origin: Origin) -> NodeRecord | None:
        now = self._wall()

        def work(tx: Transaction) -> NodeRecord | None:
            record = node_records.get(tx, node_id)
            if record is None or (record.revoked_at is None) == (revoked_at is None):
                return record
            marked = dataclasses.replace(record, revoked_at=revoked_at)
            node_records.put(tx, marked)
            tx.records.append_audit([AuditEntry(now, origin, "done", None, {"node": node_id})])
            return marked

        marked = (await self._store.write(work, origin)).result
        await self.refresh()
        return marked

    async def _enrol(self, text: str, request_der: bytes, node_id: str, address: str) -> Granted:
        if self._rate.take(address) > 0:
            raise NotLetIn(Refusal.TOO_MANY, "too many enrolments from this address; the node tries again by itself")
        try:
            token = JoinToken.parse(text)
        except ValueError as error:
            raise NotLetIn(Refusal.UNKNOWN_TOKEN, str(error)) from None
        authorities = self._authorities
        if token.fingerprint != authorities.issuing.fingerprint:
            if token.fingerprint in authorities.fingerprints:
                message = f"the join token is of another CA than the one that signs now, which was rotated; {_MAKE_ONE}"
                raise NotLetIn(Refusal.TOKEN_REVOKED, message)
            raise NotLetIn(Refusal.WRONG_CLUSTER, "the join token was made by another cluster")
        try:
            node_id = str(uuid.UUID(node_id))
        except ValueError:
            raise NotLetIn(Refusal.BAD_REQUEST, "the node id is no UUID") from None
        request = _read(request_der)
        key, now = key_digest(request), self._wall()

        def work(tx: Transaction) -> NodeRecord:
            body = tx.identities.get(TOKENS_KIND, token.id)
            record = None if body is None else JoinTokenRecord.from_json(body)
            if record is None or not join_tokens.matches(record, token):
                raise NotLetIn(
                    Refusal.UNKNOWN_TOKEN, "the join token is not known; make one: pointsman join-token create"
                )
            known = node_records.get(tx, node_id)
            if known is not None:
                self.checked(known, node_id, key)
            state = record.state(now)
            again = node_id in record.used_by and known is not None
            if state != "good" and not (state == "used up" and again):
                refusal = {
                    "revoked": Refusal.TOKEN_REVOKED,
                    "expired": Refusal.TOKEN_EXPIRED,
                    "used up": Refusal.TOKEN_USED_UP,
                }[state]
                words = "was revoked" if state == "revoked" else "has expired" if state == "expired" else "is used up"
                raise NotLetIn(refusal, f"the join token {token.id} {words}; {_MAKE_ONE}")
            if not again:
                used = dataclasses.replace(record, used_by=(*record.used_by, node_id))
                tx.identities.put(TOKENS_KIND, used.id, used.to_json())
            joined_at = now if known is None else known.joined_at
            joined = NodeRecord(
                node_id,
                key,
                joined_at,
                token.id,
                now + self._life_s,
                record.labels,
                trusts=authorities.fingerprints,
                issuer=authorities.issuing.fingerprint,
            )
            node_records.put(tx, joined)
            origin = Origin(author=f"join token {token.id}", source="identity", action="join")
            tx.records.append_audit([AuditEntry(now, origin, "done", None, {"node": node_id, "address": address})])
            return joined

        written = await self._store.write(work, Origin(author="join token", source="identity", action="join"))
        log.info("node %s joined from %s with the token %s", node_id, address, token.id)
        return self._granted(written.result, request, now)

    def _granted(self, record: NodeRecord, request: x509.CertificateSigningRequest, now: float) -> Granted:
        self._nodes = {**self._nodes, record.id: record}
        certificate = self._authorities.issuing.issue_node(request, node_id=record.id, now=now, life_s=self._life_s)
        return Granted(certificate.public_bytes(Encoding.PEM), self._authorities.trusted, self._life_s)


def _read(request_der: bytes) -> x509.CertificateSigningRequest:
    try:
        return node_ca.read_request(request_der)
    except BadRequest as error:
        raise NotLetIn(Refusal.BAD_REQUEST, str(error)) from None


def _tokens(tx: Transaction) -> Sequence[JoinTokenRecord]:
    return [JoinTokenRecord.from_json(body) for body in tx.identities.each(TOKENS_KIND)]
