"""The Admin API beyond loopback as an operator meets it: TLS, the first token, roles, new certificates."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from pathlib import Path

import pytest
import trustme

from tests.support.patience import PATIENCE_S
from tests.support.processes import ControlPlane


async def pointsman(*arguments: str, token: str = "", ca: Path | None = None) -> tuple[int, str, str]:
    """Runs the command line; its exit code, stdout and stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
    environment = {**kept, "COLUMNS": "1000"}  # tables are not folded, whatever the width of the test's terminal
    environment |= {"POINTSMAN_TOKEN": token} if token else {}
    environment |= {"POINTSMAN_CA": str(ca)} if ca is not None else {}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from pointsman.cli.main import run; run()", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


class Files:
    """Certificate files of a CA of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.certificate = folder / "admin.pem"
        self.key = folder / "admin.key"
        self.authority.cert_pem.write_to_path(self.ca)
        self.issue()

    def issue(self) -> None:
        leaf = self.authority.issue_cert("localhost", "127.0.0.1")
        leaf.private_key_pem.write_to_path(self.key)
        for number, pem in enumerate(leaf.cert_chain_pems):
            pem.write_to_path(self.certificate, append=number > 0)


async def served_certificate(address: str, ca: Path) -> bytes:
    """The certificate that a handshake shows now."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=ssl.create_default_context(cafile=str(ca)))
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()  # nothing was asked; a polite end would outlive the loop
    await asyncio.sleep(0)
    assert isinstance(shown, bytes)
    return shown


async def test_tokens_over_tls(tmp_path: Path) -> None:
    files = Files(tmp_path)
    file = tmp_path / "first.admin-token"
    plane = ControlPlane(
        tmp_path,
        "--admin-tls-cert",
        str(files.certificate),
        "--admin-tls-key",
        str(files.key),
        "--admin-tokens=required",
        "--admin-token-file",
        str(file),
    )
    try:
        await plane.up()
        address = f"https://{plane.admin}"
        assert file.stat().st_mode & 0o777 == 0o600
        first = file.read_text().strip()

        code, _, err = await pointsman("nodes", "--addr", address, ca=files.ca)
        assert code == 5
        assert "token" in err

        code, out, _ = await pointsman("whoami", "--addr", address, "-o", "json", token=first, ca=files.ca)
        assert code == 0
        assert json.loads(out)["role"] == "admin"

        code, out, _ = await pointsman(
            "token", "create", "--name", "eyes", "--role", "viewer", "--ttl", "1h", "-o", "name",
            "--addr", address, token=first, ca=files.ca,
        )  # fmt: skip
        assert code == 0
        eyes = out.strip()
        code, _, err = await pointsman("upstream", "create", "name=blue", "--addr", address, token=eyes, ca=files.ca)
        assert code == 5
        assert "editor" in err
        assert (await pointsman("upstream", "list", "--addr", address, token=eyes, ca=files.ca))[0] == 0
        code, out, _ = await pointsman("token", "list", "--addr", address, token=first, ca=files.ca)
        assert code == 0
        assert eyes not in out
        assert "viewer" in out
        assert (await pointsman("token", "revoke", "eyes", "--addr", address, token=first, ca=files.ca))[0] == 0
        assert (await pointsman("upstream", "list", "--addr", address, token=eyes, ca=files.ca))[0] == 5

        for secret in (first, eyes):
            assert secret not in plane.log.read_text()

        before = await served_certificate(plane.admin, files.ca)
        files.issue()
        plane.kill(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_S):
            while await served_certificate(plane.admin, files.ca) == before:
                await asyncio.sleep(0.02)
    finally:
        plane.destroy()


@pytest.mark.parametrize("wrong", ["missing", "mismatch"])
async def test_a_certificate_that_cannot_be_used_ends_the_start(tmp_path: Path, wrong: str) -> None:
    files = Files(tmp_path)
    if wrong == "missing":
        files.key.unlink()
    else:
        trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(files.key)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "control_plane", "--admin-listen=127.0.0.1:0", "--fleet-listen=127.0.0.1:0",
        f"--database={tmp_path / 'store.db'}", f"--admin-tls-cert={files.certificate}", f"--admin-tls-key={files.key}",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"admin_tls_cert" in err
