"""The committed vectors of hostile requests and broken answers, as a whole: what fails is printed by the runner.

The files named `-more` are ours: the same rules in other positions, cases, repeats and cuts, each with its reason.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import malformed, upstream_malformed

VECTORS = Path(__file__).parent / "vectors"

# What meets an alternative and not the first choice, each with the reason.
STRICT_ONLY = {
    "pa-overlong": "a path that is not UTF-8 matches no route, as in Kong",
    "pa-nul": "an escaped NUL is 400, as in Kong",
    "tm-silent": "a connection that never said a word is closed without one: a 408 would be taken for a later answer",
}


def test_every_hostile_request_is_handled(capsys: pytest.CaptureFixture[str]) -> None:
    status = malformed.main([str(VECTORS / "http-malformed.json")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "passed 243 of 243", "\n".join(lines)
    assert {line.split(":")[0].removeprefix("strict-only ") for line in lines[:-2]} <= STRICT_ONLY.keys()
    assert status == 0


def test_every_broken_answer_is_handled(capsys: pytest.CaptureFixture[str]) -> None:
    status = upstream_malformed.main([str(VECTORS / "http-upstream-malformed.json")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "passed 39 of 39", "\n".join(lines)
    assert status == 0


def test_every_further_request_meets_its_first_choice(capsys: pytest.CaptureFixture[str]) -> None:
    status = malformed.main([str(VECTORS / "http-malformed-more.json")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["strict: 415 of 415", "passed 415 of 415"]
    assert status == 0


def test_every_further_answer_is_handled(capsys: pytest.CaptureFixture[str]) -> None:
    status = upstream_malformed.main([str(VECTORS / "http-upstream-malformed-more.json")])
    assert capsys.readouterr().out.splitlines() == ["passed 121 of 121"]
    assert status == 0


def test_a_wrong_expectation_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(malformed, "SILENCE_S", 1.0)
    file = tmp_path / "one.json"
    file.write_text(
        '{"vectors": [{"id": "x", "raw": "GET /v HTTP/1.1\\r\\nHost: gw.test\\r\\n\\r\\n", "expect":'
        ' {"class": "reject-400", "connection_after": "close", "upstream_requests": 0}}]}'
    )
    assert malformed.main([str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("FAIL x: not reject-400: got [200]")
    assert lines[-2:] == ["strict: 0 of 1", "passed 0 of 1"]
