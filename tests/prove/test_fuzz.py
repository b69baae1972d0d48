"""Coverage-guided fuzzing of the parsers: briefly with every test run, and in `make prove` for POINTSMAN_FUZZ_S each.

The long form prints its figures. It goes on from the inputs that earlier runs found interesting (.bench/fuzz), merged
down to those that add coverage, so that the folder stays small.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = int(os.environ.get("POINTSMAN_FUZZ_S", "60"))
SHORT_RUNS = 20_000
CORPUS_FILES_MAX = 500
SEEDS = {
    "head": [
        b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 3",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked",
    ],
    "chunks": [b"\x053\r\nabc\r\n0\r\n\r\n", b'\x013;x="a"\r\nabc\r\n0\r\nX-T: 1\r\n\r\n'],
    "paths": [b"a/%2e%2e/b", b"%41//./%2f"],
    "host": [b"example.test:80", b"[::1]:80"],
    "proxy-header": [
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4000 443\r\nGET",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x0f\xa0\x01\xbb",
    ],
}


def fuzz(target: str, artifacts: Path, *options: str, limit_s: float) -> int:
    """Run atheris and return how many inputs it tried; a finding fails with what atheris says about it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.prove.fuzz_targets", target, "-max_len=2048",
         f"-artifact_prefix={artifacts}/", "-print_final_stats=1", *options],
        cwd=ROOT, capture_output=True, text=True, errors="replace", check=False, timeout=limit_s,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    executed = re.search(r"number_of_executed_units: *(\d+)", done.stderr)
    return int(executed[1]) if executed is not None else 0


def sow(target: str, corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]):
        (corpus / f"seed-{number}").write_bytes(seed)


@pytest.mark.parametrize("target", SEEDS)
def test_a_short_fuzzing_finds_nothing(target: str, tmp_path: Path) -> None:
    sow(target, tmp_path / "corpus")
    assert fuzz(target, tmp_path, f"-runs={SHORT_RUNS}", str(tmp_path / "corpus"), limit_s=100) >= SHORT_RUNS


@pytest.mark.prove
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("target", SEEDS)
def test_fuzzing_finds_nothing(target: str, tmp_path: Path) -> None:
    corpus = ROOT / ".bench" / "fuzz" / target
    sow(target, corpus)
    executed = fuzz(target, tmp_path, f"-max_total_time={SECONDS}", str(corpus), limit_s=SECONDS + 240)
    kept = len(list(corpus.iterdir()))
    if kept > CORPUS_FILES_MAX:
        merged = tmp_path / "merged"
        merged.mkdir()
        fuzz(target, tmp_path, "-merge=1", str(merged), str(corpus), limit_s=240)
        for each in corpus.iterdir():
            each.unlink()
        for each in merged.iterdir():
            each.rename(corpus / each.name)
    print(f"\n{target}: {executed} inputs in {SECONDS} s, {kept} kept")
    assert executed > 1000
