"""A PostgreSQL server of the tests' own: a fresh cluster below a folder, reached by a socket file only.

The programs are those of Debian's package, wherever it put them. The server refuses to run as root, so root starts it
as the package's user, or as nobody.
"""

from __future__ import annotations

import base64
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from control_plane.store.keyring import parse

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
KEYRING_LINE = "tests:" + base64.b64encode(bytes(range(32))).decode()
KEYRING = parse(KEYRING_LINE, source="the tests")
"""What the tests' stores over PostgreSQL seal with; `KEYRING_LINE` is for POINTSMAN_KEYRING."""
FAST = ("-c", "shared_buffers=32MB", "-c", "max_connections=60")


def programs() -> Path | None:
    """The folder with initdb and postgres; None where PostgreSQL is not installed."""
    for folder in _FOLDERS:
        if (folder / "postgres").exists():
            return folder
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


def need_postgres() -> Path:
    """The programs' folder. Without PostgreSQL the test is skipped, but fails in CI, where nothing may be skipped."""
    folder = programs()
    if folder is None:
        text = "PostgreSQL is not installed; on Debian: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return folder


SERVER_FOLDER = "POINTSMAN_TEST_POSTGRES"
"""Where this names the folder of a server, control planes of tests have databases there instead of SQLite files."""


def psql(url: str, statement: str) -> str:
    """Runs one statement in the database of that URL; returns its rows, unaligned."""
    program = [str(need_postgres() / "psql"), "-X", "-A", "-t", "-q", "-d", url, "-c", statement]
    return subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def own_database(name: str) -> str:
    """The URL of a database of that name, made unless it is there; empty = tests run over SQLite."""
    folder = os.environ.get(SERVER_FOLDER, "")
    if not folder:
        return ""
    first = f"postgresql://pointsman@/postgres?host={folder}"
    if not psql(first, f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
        psql(first, f'CREATE DATABASE "{name}"')
    return f"postgresql://pointsman@/{name}?host={folder}"


class PostgresServer:
    """A running server. `url(name)` is a database's address; `restart` and `kill` are for bad days."""

    def __init__(self, *options: str) -> None:
        self._programs = need_postgres()
        self._options = (*FAST, *options)
        # Not pytest's folder: it may be too deep for a socket's path, and closed to another user.
        self.folder = Path(tempfile.mkdtemp(prefix="pointsman-pg-", dir="/tmp"))
        self._user: str | None = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self._user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(self.folder, self._user)
        self._data = self.folder / "data"
        self._made = {"postgres"}
        self._run("initdb", "-D", str(self._data), "-U", "pointsman", "-A", "trust", "--no-sync", "--locale=C.UTF-8")
        self.start()

    def _run(self, program: str, *arguments: str) -> str:
        return subprocess.run(
            [str(self._programs / program), *arguments],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, user=self._user, cwd="/",
        ).stdout  # fmt: skip

    def start(self, *options: str) -> None:
        """Starts it and waits until it takes connections."""
        flags = " ".join(("-c listen_addresses=''", f"-k {self.folder}", *self._options, *options))
        self._run(
            "pg_ctl",
            "start",
            "-w",
            "-t",
            "60",
            "-s",
            "-D",
            str(self._data),
            "-l",
            str(self.folder / "log"),
            "-o",
            flags,
        )

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is a crash: nothing is flushed, the log is replayed at the next start."""
        self._run("pg_ctl", "stop", "-w", "-s", "-D", str(self._data), "-m", mode)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    @property
    def pid(self) -> int:
        return int((self._data / "postmaster.pid").read_text().splitlines()[0])

    def psql(self, statement: str, database: str = "postgres") -> str:
        """Runs one statement; returns its rows, unaligned."""
        return psql(self.url(database), statement)

    def create(self, name: str) -> str:
        """A new database unless it is there; returns its URL."""
        if name not in self._made:
            self.psql(f'CREATE DATABASE "{name}"')
            self._made.add(name)
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://pointsman@/{name}?host={self.folder}"

    def end_connections(self) -> None:
        """Ends all of them, as an operator or a fail-over does."""
        self.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pointsman'")

    def freeze(self) -> None:
        """Stops the server and all its processes where they are: it takes connections and says nothing any more."""
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets them go on."""
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """The server's own process first, so that it starts no further ones meanwhile."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def destroy(self) -> None:
        """Ends the server without mercy and removes its files."""
        try:
            self.stop("immediate")
        except subprocess.CalledProcessError:
            pidfile = self._data / "postmaster.pid"
            if pidfile.exists():
                os.kill(self.pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
