"""Programs of other people that tests run: skipped when missing, installed in CI where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def need_program(name: str, package: str) -> str:
    """Return the program's path; in CI as root it is installed when missing, elsewhere the test is skipped."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI") and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", package], check=False, capture_output=True)
        found = shutil.which(name)
        assert found is not None, f"{name} could not be installed, and CI skips nothing"
    if found is None:
        pytest.skip(f"the program {name!r} is not installed (package {package})")
    return found
