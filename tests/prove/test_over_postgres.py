"""The integration suite once more, with every control plane over a PostgreSQL database of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.postgres import SERVER_FOLDER, PostgresServer

ROOT = Path(__file__).parents[2]
SUITE = (
    "admin_access", "admin_process", "bad_input", "cli_completion", "cli_consumers", "commit_order", "events",
    "files_on_a_fleet", "fleet_deltas", "fleet_health", "fleet_link", "fleet_trace", "node_tls", "openapi_calls",
    "service_sides", "switch_ledger", "switches", "upstream_tls_entities", "webhooks",
)  # fmt: skip
"""Those whose control plane is a process; what SQLite alone has (its file, its keyring) is tested elsewhere."""


@pytest.mark.prove
@pytest.mark.timeout(7200)
def test_the_integration_suite_over_postgres(postgres: PostgresServer) -> None:
    files = [f"tests/integration/test_{name}.py" for name in SUITE]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "not prove", "-q", "-p", "no:cacheprovider", *files],
        env={**os.environ, SERVER_FOLDER: str(postgres.folder)},
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print("\n".join(done.stdout.splitlines()[-20:]))
    assert done.returncode == 0
