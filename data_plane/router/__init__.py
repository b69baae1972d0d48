"""Request to match: which route a request belongs to, and what follows from it for the upstream. Pure, no I/O.

The worker builds a `Router` beside the live one with `build_router`; the proxy asks `Router.match` and takes the
upstream's path, its Host and the protocol checks from the answer. Kong's `traditional_compatible` flavour with the
corrected priorities (`route_match_calculation = strict`), and `traditional` for those who migrate from it.
"""

from data_plane.flavours import TRADITIONAL, TRADITIONAL_COMPATIBLE
from data_plane.router.building import build_router, release_router
from data_plane.router.candidate import BadRoute
from data_plane.router.host import host_with_port, upstream_host
from data_plane.router.joining import upstream_path
from data_plane.router.protocols import ProtocolAnswer, protocol_answer, redirect_host
from data_plane.router.router import Match, Router

__all__ = [
    "TRADITIONAL",
    "TRADITIONAL_COMPATIBLE",
    "BadRoute",
    "Match",
    "ProtocolAnswer",
    "Router",
    "build_router",
    "host_with_port",
    "protocol_answer",
    "redirect_host",
    "release_router",
    "upstream_host",
    "upstream_path",
]
