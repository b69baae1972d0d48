"""The integration suite once more, with every control plane over a PostgreSQL database of its own.

    python -m tests.support.over_postgres [pytest's arguments]

Those files whose control plane is a process are run; what SQLite alone has (its file, its own keyring) and what runs
over both databases anyway is in `make test`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.postgres import SERVER_FOLDER, PostgresServer

ROOT = Path(__file__).parents[2]
SUITE = (
    "admin_access", "admin_process", "admin_server", "bad_input", "browser_attacks", "cli_completion", "cli_consumers",
    "commit_order", "events", "files_on_a_fleet", "fleet_deltas", "fleet_health", "fleet_link", "fleet_trace",
    "node_tls", "openapi_calls", "service_sides", "switch_ledger", "switches", "upstream_tls_entities", "webhooks",
)  # fmt: skip
OPTIONS = ("-m", "not prove", "-p", "no:cacheprovider", "--dist", "loadfile", "--no-loadscope-reorder")


def main(arguments: Sequence[str]) -> int:
    """Runs the suite; returns pytest's exit code."""
    server = PostgresServer()
    files = [f"tests/integration/test_{name}.py" for name in SUITE]
    try:
        return subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, *arguments, *files],
            env={**os.environ, SERVER_FOLDER: str(server.folder)},
            cwd=ROOT,
            check=False,
        ).returncode
    finally:
        server.destroy()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
