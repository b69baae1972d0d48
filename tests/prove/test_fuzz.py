"""Coverage-guided fuzzing of the parsers for a bounded time each, POINTSMAN_FUZZ_S. Prints its figures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.origins import Unavailable, install

ROOT = Path(__file__).resolve().parents[2]
SECONDS = int(os.environ.get("POINTSMAN_FUZZ_S", "60"))
SEEDS = {
    "head": [
        b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 3",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked",
    ],
    "chunks": [b"\x053\r\nabc\r\n0\r\n\r\n", b'\x013;x="a"\r\nabc\r\n0\r\nX-T: 1\r\n\r\n'],
    "paths": [b"a/%2e%2e/b", b"%41//./%2f"],
    "host": [b"example.test:80", b"[::1]:80"],
}


@pytest.mark.prove
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("target", SEEDS)
def test_fuzzing_finds_nothing(target: str, tmp_path: Path) -> None:
    try:
        install()
    except Unavailable as missing:
        pytest.skip(f"atheris is not there: {missing}")
    corpus = ROOT / ".bench" / "fuzz" / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]):
        (corpus / f"seed-{number}").write_bytes(seed)
    done = subprocess.run(
        [sys.executable, "-m", "tests.prove.fuzz_targets", target, f"-max_total_time={SECONDS}", "-max_len=2048",
         f"-artifact_prefix={tmp_path}/", "-print_final_stats=1", str(corpus)],
        cwd=ROOT, capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS + 240,
    )  # fmt: skip
    if "No module named 'atheris'" in done.stderr:
        pytest.skip("atheris has no build for this Python")
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert executed is not None
    print(f"\n{target}: {executed[1]} inputs in {SECONDS} s")
    assert int(executed[1]) > 1000
