"""What a balancing policy is: the one seam between an upstream, which knows who may be picked, and how to choose.

A policy holds only what its choice needs (positions, a ring); availability, weights and counts are the endpoint's.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import Any, Protocol

from data_plane.balancer.endpoint import Endpoint

Steps = Generator[None, None, None]
"""Work in steps that each take well below a millisecond; what it changes is there when it has ended, and not before."""

STEP = 64
"""Endpoints looked at in one step."""


def at_once(steps: Steps) -> None:
    """Do all of it now."""
    for _ in steps:
        pass


def let_go(*collections: list[Any] | dict[Any, Any]) -> Steps:
    """Empty them in steps: to free ten thousand entries at once takes milliseconds."""
    for collection in collections:
        if isinstance(collection, list):
            while collection:
                del collection[-STEP:]
                yield
        else:
            while collection:
                for _ in range(min(STEP, len(collection))):
                    collection.popitem()
                yield


class Policy(Protocol):
    """Chooses among the endpoints it was last reconciled with: of positive weight, in an order all workers share."""

    def reconcile(self, endpoints: Sequence[Endpoint]) -> None:
        """Take over a new set or new weights, keeping the state of those that stay."""
        ...

    def reconcile_steps(self, endpoints: Sequence[Endpoint]) -> Steps:
        """The same between requests: picks, verdicts and counts go on meanwhile, by what there was before."""
        ...

    def availability_changed(self, endpoint: Endpoint) -> None:
        """An endpoint of the set went down or came back; its `available` already says so."""
        ...

    def pick(self, excluded: Collection[Endpoint], key: bytes) -> Endpoint | None:
        """Choose an available endpoint that is not excluded, None when there is none.

        `key` is the hash input of the request, for policies that hash.
        """
        ...
