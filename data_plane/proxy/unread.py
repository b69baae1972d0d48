"""Proof that a request never reached the server it was written to, for requests that must not be served twice.

A server closes an idle connection, or dies, and in that instant a request is written to it. What the kernel knows tells
the difference between that and a server that took the request: every octet a live socket takes in is acknowledged, and
the end of its stream carries the acknowledgement of all it took in before. So when the stream has ended and not one
octet of the request is acknowledged, the server had shut its side before the request came, and nobody can answer it
there any more.

A reset without an end of stream proves nothing. It also comes from a server that read the request and broke off, and
what it acknowledges is not looked at by our kernel. Nor is anything proved once a segment was sent again: the first one
may have arrived, and only its acknowledgement been lost.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct

# Of Linux' `struct tcp_info`, since 4.19; older kernels give less, and then nothing is proved.
_INFO_BYTES = 216
_TOTAL_RETRANS_AT = 100
_BYTES_ACKED_AT = 120
_BYTES_SENT_AT = 200


def ended_before(transport: asyncio.Transport, request_bytes: int) -> bool:
    """Tell whether the stream that has just ended did so before any of the `request_bytes` written last came there.

    To be asked before the transport is closed. False = it is not known.
    """
    held = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_INFO", None)
    if held is None or option is None:
        return False
    try:
        # A second descriptor: the transport's own belongs to the loop.
        with socket.socket(fileno=os.dup(held.fileno())) as same:
            info = same.getsockopt(socket.IPPROTO_TCP, option, _INFO_BYTES)
    except OSError:
        return False
    if len(info) < _INFO_BYTES:
        return False
    sent_again: int = struct.unpack_from("=I", info, _TOTAL_RETRANS_AT)[0]
    acknowledged: int = struct.unpack_from("=Q", info, _BYTES_ACKED_AT)[0]
    sent: int = struct.unpack_from("=Q", info, _BYTES_SENT_AT)[0]
    # The side that connects counts its SYN among the acknowledged. Acknowledgements come in order, so if as much as the
    # whole request is outstanding, none of it is among the rest.
    outstanding = sent - (acknowledged - 1)
    return sent_again == 0 and 0 < request_bytes <= outstanding
