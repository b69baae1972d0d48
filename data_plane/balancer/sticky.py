"""Sticky sessions: a client goes on with the endpoint that its cookie names, for as long as there is that endpoint.

The cookie's value is a keyed hash of the endpoint's key. Every worker of every node makes the same one, before and
after a restart, and nothing is stored anywhere; a client can neither read an address from it nor make one up. The
holder of a cookie is served even at weight 0, which is how a target is drained. An endpoint that is down, that failed
this request before, or that is gone means a new choice, and a new cookie.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Collection, Iterable, Sequence

from data_plane.balancer.endpoint import Endpoint
from data_plane.balancer.policy import STEP, Steps, let_go
from data_plane.balancer.round_robin import RoundRobin

_VALUE_BYTES = 18


class StickySessions:
    """The policy; `key` of a pick is the cookie's value. New clients take turns."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._turns = RoundRobin(rng)
        self._secret = b""
        self._values: dict[Endpoint, bytes] = {}
        self._holders: dict[bytes, Endpoint] = {}

    def know(self, endpoints: Iterable[Endpoint], secret: bytes) -> Steps:
        """Take over all endpoints that a cookie may name, those of weight 0 too; `secret` is common to all nodes."""
        old = self._values
        before = old if secret == self._secret else {}
        values: dict[Endpoint, bytes] = {}
        holders: dict[bytes, Endpoint] = {}
        for number, endpoint in enumerate(endpoints):
            values[endpoint] = value = before.get(endpoint) or _value(secret, endpoint.key)
            holders[value] = endpoint
            if number % STEP == STEP - 1:
                yield
        self._secret = secret
        old_holders = self._holders
        self._values, self._holders = values, holders
        yield from let_go(old, old_holders)

    def value_of(self, endpoint: Endpoint) -> bytes:
        """The cookie's value for an endpoint."""
        return self._values.get(endpoint) or _value(self._secret, endpoint.key)

    def holder(self, excluded: Collection[Endpoint], key: bytes) -> Endpoint | None:
        """The endpoint a cookie names, if it may be used."""
        endpoint = self._holders.get(key)
        if endpoint is None or not endpoint.available or endpoint in excluded:
            return None
        return endpoint

    def reconcile(self, endpoints: Sequence[Endpoint]) -> None:
        self._turns.reconcile(endpoints)

    def reconcile_steps(self, endpoints: Sequence[Endpoint]) -> Steps:
        return self._turns.reconcile_steps(endpoints)

    def availability_changed(self, endpoint: Endpoint) -> None:
        self._turns.availability_changed(endpoint)

    def pick(self, excluded: Collection[Endpoint], key: bytes) -> Endpoint | None:
        return self.holder(excluded, key) or self._turns.pick(excluded, b"")


def _value(secret: bytes, key: str) -> bytes:
    mac = hashlib.blake2b(key.encode(), key=secret[: hashlib.blake2b.MAX_KEY_SIZE], digest_size=_VALUE_BYTES)
    return base64.urlsafe_b64encode(mac.digest())
