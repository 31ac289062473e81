"""The cffi module of the C library: its declarations are cdef.h, its sources src/*.c.

It knows which files belong to the library and how they are to be compiled; setuptools comes in in build_ext.py.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCE_DIR = HERE / "src"
MODULE = "pipeline.shm._native"

LIBRARIES = ["crypto"]
"""libcrypto seals and opens; nothing else is linked."""

COMMON_FLAGS = ["-O2", "-g", "-std=c11", "-D_GNU_SOURCE", "-fvisibility=hidden"]
STRICT_FLAGS = [*COMMON_FLAGS, "-Wall", "-Wextra", "-Wconversion", "-Werror"]
"""For our sources; what cffi generates is not ours to mend and is compiled without the warnings."""


def sources() -> list[Path]:
    """The C files of the library, in a fixed order (reproducible builds)."""
    return sorted(SOURCE_DIR.glob("*.c"))


def headers() -> list[Path]:
    """Its headers."""
    return sorted(SOURCE_DIR.glob("*.h"))


def build_files() -> list[Path]:
    """What else the extension is built from."""
    return [HERE / "cdef.h", *sorted(HERE.glob("*.py"))]


def write_module(path: Path) -> None:
    """Generate the C file of the extension module from cdef.h; an unchanged one keeps its time stamp."""
    ffi = FFI()
    ffi.cdef((HERE / "cdef.h").read_text(encoding="utf-8"))
    includes = "\n".join(f'#include "{header.name}"' for header in headers())
    ffi.set_source(MODULE, includes, py_limited_api=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):  # it has no quiet mode
        ffi.emit_c_code(str(path))
