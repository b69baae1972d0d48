"""Writes pointsman/wire from the .proto files; with --check, fails when what is committed differs.

The generated code is committed so that users and nodes need no compiler for it, and so that a change of the
contract is seen in review.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import _proto as well_known  # type: ignore[attr-defined]  # the package ships no types
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
REPOSITORY = ROOT.parent
PACKAGE = Path("pointsman/wire/v1")


def generate(out: Path) -> None:
    """Runs protoc for each .proto below this folder, writing Python, stubs and gRPC code below `out`."""
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))
    includes = Path(next(iter(well_known.__path__)))
    arguments = ["protoc", f"-I{ROOT}", f"-I{includes}", f"--python_out={out}", f"--pyi_out={out}"]
    status = protoc.main([*arguments, *sources])
    status = status or protoc.main([*arguments[:3], f"--grpc_python_out={out}", str(PACKAGE / "fleet.proto")])
    if status:
        sys.exit(status)
    for folder in (out / PACKAGE.parent, out / PACKAGE):
        (folder / "__init__.py").write_text('"""Generated from proto/ by `make proto`. Do not edit."""\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as name:
        generate(Path(name))
        fresh = sorted(path.relative_to(name) for path in (Path(name) / PACKAGE.parent).rglob("*.py*"))
        stale = [
            path
            for path in fresh
            if not (REPOSITORY / path).exists() or not filecmp.cmp(Path(name) / path, REPOSITORY / path, shallow=False)
        ]
        if check and stale:
            sys.exit(f"generated code differs from proto/: {', '.join(map(str, stale))}; run `make proto`")
        for path in [] if check else stale:
            (REPOSITORY / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(name) / path, REPOSITORY / path)


if __name__ == "__main__":
    main()
