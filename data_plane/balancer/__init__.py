"""Upstream and request to endpoint: who gets the next attempt. Pure: no I/O, no clock or rng but what is handed in.

A balancer is a live object that outlives configurations. The worker reconciles it with a new config in place; the proxy
asks `pick`, and counts attempts with `take` and `release`.
"""

from data_plane.balancer.direct import DirectHost
from data_plane.balancer.endpoint import Endpoint, NoEndpoint, Reason
from data_plane.balancer.hash_input import HashFacts, HashInput, hash_input
from data_plane.balancer.upstream import Upstream

__all__ = ["DirectHost", "Endpoint", "HashFacts", "HashInput", "NoEndpoint", "Reason", "Upstream", "hash_input"]
