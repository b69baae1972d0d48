"""The Containerfile's steps without a container: a wheel of the checkout in a fresh environment with the locked
dependencies, and both commands from there.

Needs a package index, as building the image does.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path, folder: Path) -> str:
    """Runs a program that must succeed, with nothing of this checkout on its path."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    ended = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"{arguments}:\n{ended.stdout[-2000:]}{ended.stderr[-3000:]}"
    return ended.stdout


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_a_wheel_with_the_locked_dependencies_runs_both_planes(tmp_path: Path) -> None:
    steps = (ROOT / "deploy" / "Containerfile").read_text()
    assert "--require-hashes -r requirements.lock" in steps
    assert "--no-deps ." in steps

    source = tmp_path / "source"
    run("git", "clone", "-q", ROOT, source, folder=tmp_path)
    image = tmp_path / "image"
    run(sys.executable, "-m", "venv", image, folder=tmp_path)
    pip = image / "bin" / "pip"
    run(pip, "install", "-q", "--require-hashes", "-r", source / "requirements.lock", folder=tmp_path)
    run(pip, "wheel", "-q", "--no-deps", "-w", tmp_path / "wheels", source, folder=tmp_path)
    (wheel,) = (tmp_path / "wheels").glob("pointsman-*.whl")
    packaged = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in packaged if name.startswith(("tests/", "benchmarks/"))]
    assert any(name.startswith("control_plane/store/migrations/versions/") for name in packaged)
    run(pip, "install", "-q", "--no-deps", wheel, folder=tmp_path)
    run(pip, "check", folder=tmp_path)

    pointsman = image / "bin" / "pointsman"
    assert "data-plane" in run(pointsman, "--help", folder=tmp_path)
    assert "--admin-listen" in run(pointsman, "control-plane", "--help", folder=tmp_path)
    assert "--proxy-listen" in run(pointsman, "data-plane", "--help", folder=tmp_path)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run(pointsman, "data-plane", "--version", folder=tmp_path))
