"""The differential run: batches of requests through one node to several origins, and the views of all compared."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.hostile_requests import CHANGES, WHOLE, Plain, damaged
from tests.support.origins import OriginRig
from tests.support.patience import PATIENCE_S

T = TypeVar("T")
BATCH = 12
BOOKS_LOOKS = 20
BOOKS_PAUSE_S = 0.1


class LoopThread:
    """An event loop in a thread, for hypothesis' synchronous tests."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Run to the end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def close(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def run_differential(folder: Path, names: Sequence[str], *, examples: int) -> dict[str, dict[str, int]]:
    """Run `examples` batches against each origin; raise AssertionError on the first difference, return counts."""
    thread = LoopThread()
    try:
        rig = thread.run(OriginRig(folder, names).__aenter__())
        try:
            return _run(thread, rig, names, examples)
        finally:
            thread.run(rig.__aexit__(None, None, None))
    finally:
        thread.close()


def _run(thread: LoopThread, rig: OriginRig, names: Sequence[str], examples: int) -> dict[str, dict[str, int]]:
    counter = iter(range(1 << 60))
    own: dict[str, int] = dict.fromkeys(names, 0)

    @settings(
        max_examples=examples, deadline=None, database=None, print_blob=True, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )  # fmt: skip
    @given(st.lists(st.tuples(WHOLE, st.one_of(st.none(), CHANGES)), min_size=1, max_size=BATCH))
    def batch(plans: list[tuple[Plain, list[tuple[float, str, bytes]] | None]]) -> None:
        requests: list[bytes] = []
        expected: list[tuple[str, str, Plain] | None] = []
        for name in names:
            host = f"{name}.test"
            for plain, changes in plans:
                token = f"t{next(counter):x}"
                octets = plain.octets(host, token)
                expected.append((name, token, plain) if changes is None else None)
                requests.append(damaged(octets, changes) if changes is not None else octets)
            token = f"t{next(counter):x}"
            probe = Plain("GET", "/probe", "", ("Connection: close",), b"", None, False)
            requests.append(probe.octets(host, token))
            expected.append((name, token, probe))
        answers = thread.run(rig.send(requests))
        for request, expect, answer in zip(requests, expected, answers, strict=True):
            assert b"HTTP/1.1 500" not in answer[:12], (request[:600], answer[:600])
            if expect is not None:
                _check(rig, expect, request, answer)
        for name in names:
            own[name] += sum(1 for answer in answers if not answer.startswith(b"HTTP/1.1 200"))
            faults = rig.compare(name)
            for _ in range(BOOKS_LOOKS):
                # Some servers write their books after the answer is out.
                if not faults:
                    break
                time.sleep(BOOKS_PAUSE_S)
                faults = rig.compare(name)
            assert not faults, faults[:5]

    batch()
    return {
        name: {
            "sent": len(origin.tap.sent), "accepted": len(origin.tap.accepted),
            "refused by it": len(origin.tap.refused),
            "got": len(origin.entries),
        }
        for name, origin in rig.origins.items()
    }  # fmt: skip


def _check(rig: OriginRig, expect: tuple[str, str, Plain], request: bytes, answer: bytes) -> None:
    """A whole request was seen exactly once, with its own body, and its answer is its own."""
    name, token, plain = expect
    host = f"{name}.test"
    origin = rig.origins[name]
    mark = f"/{token}".encode()
    # The token ends the path, so that no token is the beginning of another.
    sent = [seen for seen in origin.tap.sent if seen.target.partition(b"?")[0].endswith(mark)]
    assert len(sent) == 1, (request[:600], answer[:600], sent)
    assert (sent[0].method, sent[0].sha256) == (plain.method, plain.sha256(host)), (request[:600], sent)
    final = answer.rpartition(b"HTTP/1.1 100 Continue\r\n\r\n")[2]
    if final.startswith(b"HTTP/1.1 200") and plain.method != "HEAD" and name != "nginx":
        echoed = json.loads(final.partition(b"\r\n\r\n")[2])
        assert echoed["sha256"] == plain.sha256(host), "another request's answer"
        assert token in echoed.get("target", echoed.get("path", "")), "another request's answer"
