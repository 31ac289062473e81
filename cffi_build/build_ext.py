"""The build step of the extension module (named in pyproject.toml, [tool.setuptools.cmdclass]).

setuptools has no `cffi_modules` in pyproject.toml, so this fills in the extension that stands there with what cffi
generates and compiles our own sources, warnings being errors, beside it.
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
    """build_ext that knows what pipeline.shm._native is made of."""

    def finalize_options(self) -> None:
        """Name every file: `depends` decides what is rebuilt and what a source distribution contains."""
        super().finalize_options()
        for ext in self.extensions:
            if ext.name == native.MODULE:
                ext.depends = _relative([*native.sources(), *native.headers(), *native.build_files()])

    def build_extension(self, ext: Extension) -> None:
        """Generate, compile the library under its own flags, then the generated file, and link both."""
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
            # The linker writes into the file that is there, which running instances have mapped: give it a new one.
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        super().build_extension(ext)

    def _is_stale(self, ext: Extension) -> bool:
        """Whether the module must be built again; super() asks the same of the same files."""
        built = Path(self.get_ext_fullpath(ext.name))
        newest = max((ROOT / path).stat().st_mtime for path in [*ext.sources, *ext.depends])
        return self.force or not built.exists() or built.stat().st_mtime < newest


def _relative(paths: list[Path]) -> list[str]:
    return [os.path.relpath(path, ROOT) for path in paths]
