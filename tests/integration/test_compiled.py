"""The suite runs the compiled build of the hot path where there is one; here the sources run a part of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import data_plane
from data_plane import compiled

ROOT = Path(data_plane.__file__).parent.parent
SHORT = (
    "tests/unit/data_plane/proxy",
    "tests/integration/test_proxy_panics.py",
)

WHICH = "import data_plane; from data_plane.proxy import client; print(data_plane.BUILD); print(client.__file__)"


def run_plain(*arguments: str) -> str:
    """Run Python with the switch that asks for the sources; returns what it prints."""
    environment = {**os.environ, compiled.SWITCH: "0"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ci_runs_the_compiled_build() -> None:
    if "CI" not in os.environ and data_plane.BUILD != compiled.COMPILED:
        pytest.skip("this checkout is not compiled: `make setup` does that")
    assert data_plane.BUILD == compiled.COMPILED


def test_the_switch_takes_the_sources() -> None:
    build, file = run_plain("-c", WHICH).split()
    assert build == compiled.PLAIN
    assert file.endswith("client.py")


def test_the_sources_alone_pass_a_part_of_the_suite() -> None:
    said = run_plain("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *SHORT)
    assert " passed" in said


def test_each_module_with_c_fields_is_compiled() -> None:
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.joinpath("data_plane").rglob("*.pxd")
    }
    assert found == set(compiled.MODULES)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sources, as a compiler has left it."""
    for module in compiled.MODULES:
        for source in (compiled.source_of(ROOT, module), compiled.source_of(ROOT, module).with_suffix(".pxd")):
            copied = tmp_path / source.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(source.read_bytes())
    (tmp_path / "data_plane" / compiled.STAMP).write_text(compiled.stamp_of(tmp_path))
    monkeypatch.setattr(compiled, "_HERE", tmp_path / "data_plane")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delenv(compiled.SWITCH, raising=False)
    return tmp_path


def test_products_of_the_sources_that_are_there_run(checkout: Path) -> None:
    assert compiled.choose() == compiled.COMPILED


def test_products_of_other_sources_do_not_run(checkout: Path) -> None:
    with compiled.source_of(checkout, "data_plane.proxy.head").open("a") as source:
        source.write("\n")
    assert compiled.choose() == compiled.STALE


def test_products_for_another_interpreter_do_not_run(checkout: Path) -> None:
    (checkout / "data_plane" / compiled.STAMP).write_text(".cpython-399-other.so 00\n")
    assert compiled.choose() == compiled.PLAIN
