"""Build step of the extension module (named in pyproject.toml, [tool.setuptools.cmdclass]).

setuptools takes no `cffi_modules` in pyproject.toml.  This step adds the file that cffi generates to the extension
named there, and compiles the sources of the library, with warnings as errors, beside it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from setuptools.command.build_ext import build_ext

if TYPE_CHECKING:
    from setuptools import Extension

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a build backend does not run with the project on its path

from cffi_build import native  # noqa: E402

GENERATED = ROOT / "cffi_build" / "generated"


class BuildExt(build_ext):  # type: ignore[misc, unused-ignore]  # setuptools' types vary with its version
    """build_ext with the files of pipeline.shm._native."""

    def finalize_options(self) -> None:
        """Name all files: `depends` decides on rebuilds and on the contents of a source distribution."""
        super().finalize_options()
        for ext in self.extensions:
            if ext.name == native.MODULE:
                ext.depends = _relative([*native.sources(), *native.headers(), *native.build_files()])

    def build_extension(self, ext: Extension) -> None:
        """Generate the module, compile the library with its own flags, then the generated file, and link both."""
        if ext.name != native.MODULE:
            super().build_extension(ext)
            return
        generated = GENERATED / "_native.c"
        native.write_module(generated)
        ext.sources = _relative([generated])
        ext.include_dirs = _relative([native.SOURCE_DIR])
        ext.extra_compile_args = native.COMMON_FLAGS
        ext.libraries = native.libraries()
        if self._is_stale(ext):
            ext.extra_objects = self.compiler.compile(
                _relative(native.sources()),
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                extra_postargs=native.STRICT_FLAGS,
            )
            # The linker writes into an existing file, which running instances have mapped: make it write a new one.
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        super().build_extension(ext)

    def _is_stale(self, ext: Extension) -> bool:
        """Return whether the module must be rebuilt, by the same files that super() checks."""
        built = Path(self.get_ext_fullpath(ext.name))
        newest = max((ROOT / path).stat().st_mtime for path in [*ext.sources, *ext.depends])
        return self.force or not built.exists() or built.stat().st_mtime < newest


def _relative(paths: list[Path]) -> list[str]:
    return [os.path.relpath(path, ROOT) for path in paths]
