"""Calls to the Admin API without a socket."""

from __future__ import annotations

from collections.abc import Mapping

from multidict import CIMultiDict

from control_plane.admin.limits import Limits
from control_plane.admin.messages import Call, Refused


def call(
    method: str,
    target: str,
    body: bytes = b"",
    *,
    content_type: str | None = None,
    headers: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Call:
    """A request as the server would hand it over."""

    async def read(bytes_max: int) -> bytes:
        if len(body) > bytes_max:
            raise Refused(413, "too large")
        return body

    return Call(
        method,
        target,
        headers=CIMultiDict({"Host": "localhost", **(headers or {})}),
        content_types=() if content_type is None else (content_type,),
        has_body=bool(body),
        read_body=read,
        remote="127.0.0.1",
        limits=limits or Limits(),
    )
