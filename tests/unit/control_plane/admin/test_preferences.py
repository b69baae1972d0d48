"""`Prefer: wait=SECONDS`, as RFC 7240 writes preferences."""

from __future__ import annotations

import pytest

from control_plane.admin.preferences import wait_seconds


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("wait=10", 10.0),
        ("Wait = 10", 10.0),
        ("respond-async, wait=10", 10.0),
        ('return=minimal; foo="a, b", wait="2.5"; x=y', 2.5),
        ("wait=10, wait=20", 10.0),
        ("wait=0", 0.0),
        ("wait=1000", 60.0),
        ("wait", None),
        ("wait=", None),
        ("wait=-1", None),
        ("wait=nan", None),
        ("wait=soon", None),
        ("waiting=10", None),
        ("@", None),
        (", wait=10", None),
    ],
)
def test_wait(header: str | None, expected: float | None) -> None:
    assert wait_seconds(header, wait_s_max=60.0) == expected
