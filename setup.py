"""Compiles the hot path (data_plane/compiled.py) where Cython and a C compiler are; `pyproject.toml` has the rest.

Never a reason for an installation to fail: without them the same sources run as they are, at more CPU per request.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from data_plane import compiled  # noqa: E402 - not installed yet

DIRECTIVES = {
    "annotation_typing": False,  # types are the .pxd's: an annotation would have Cython check and convert
    "auto_pickle": False,
    "binding": False,
    "initializedcheck": False,
    "nonecheck": True,  # an attribute of None is an error here as there, not a crash
}


class BuildHotPath(build_ext):
    """All modules or none: they know each other's layout."""

    def run(self) -> None:
        folder = ROOT if self.inplace else Path(self.build_lib)
        stamp = folder / "data_plane" / compiled.STAMP
        stamp.unlink(missing_ok=True)
        said = compiled.stamp_of(ROOT)  # of what is read now
        try:
            self._compile()
        except Exception as error:
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions.clear()
            print(f"The hot path is not compiled, so it costs more CPU: {error}", file=sys.stderr)  # noqa: T201 - said once
        else:
            stamp.write_text(said)

    def _compile(self) -> None:
        from Cython.Build import cythonize  # noqa: PLC0415 - may not be there

        made = cythonize(
            [Extension(module, [str(path_of(module))]) for module in compiled.MODULES],
            build_dir="build/cython",
            compiler_directives=DIRECTIVES,
            language_level=3,
            quiet=True,
        )
        sources = {extension.name: extension.sources for extension in made}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        self.parallel = True
        super().run()


def path_of(module: str) -> Path:
    """A module's source, from this folder."""
    return compiled.source_of(Path(), module)


# Where it is not wanted, it is not compiled either.
WANTED = compiled.MODULES if os.environ.get(compiled.SWITCH) != "0" else ()

setup(
    cmdclass={"build_ext": BuildHotPath},
    ext_modules=[Extension(module, [str(path_of(module))], extra_compile_args=["-O2", "-g0"]) for module in WANTED],
)
