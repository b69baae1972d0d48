"""Programs of other people that tests run: skipped when missing, installed in CI where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def in_ci() -> bool:
    """Whether this run is the one that must prove everything: there, what is missing is a failure."""
    return bool(os.environ.get("CI"))


def need_program(name: str, package: str) -> str:
    """Return the program's path; in CI it is installed when it is missing, elsewhere the test is skipped."""
    found = shutil.which(name)
    if found is None and in_ci():
        _install(package)
        found = shutil.which(name)
        assert found is not None, f"{name} could not be installed (Debian package {package}), and CI skips nothing"
    if found is None:
        pytest.skip(f"the program {name!r} is not installed (Debian package {package})")
    return found


def _install(package: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    for arguments in (["update", "-q"], ["install", "-y", "-q", package]):
        subprocess.run(["apt-get", *arguments], check=False, capture_output=True)
