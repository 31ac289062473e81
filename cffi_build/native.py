"""The cffi module of the C library: declarations in cdef.h, sources in src/*.c.

It defines the files of the library and the flags of the compiler.  The use of setuptools is in build_ext.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shlex
import subprocess
import sysconfig
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCE_DIR = HERE / "src"
MODULE = "pipeline.shm._native"

IPSEC_MB_HEADER = "intel-ipsec-mb.h"

COMMON_FLAGS = ["-O2", "-g", "-std=c11", "-D_GNU_SOURCE", "-fvisibility=hidden"]
STRICT_FLAGS = [*COMMON_FLAGS, "-Wall", "-Wextra", "-Wconversion", "-Werror"]
"""Flags for the sources of the library.  The file that cffi generates is compiled without the warnings."""


def libraries() -> list[str]:
    """Return the library to link: the one with AES-GCM that mp_gcm.h selects by the headers that the compiler finds.

    `CFLAGS=-DMP_LIBCRYPTO` selects libcrypto in any case.
    """
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    preprocess = [*compiler, "-E", "-xc", "-"]
    if platform.machine() == "x86_64" and "MP_LIBCRYPTO" not in os.environ.get("CFLAGS", ""):
        text = f"#include <{IPSEC_MB_HEADER}>\n".encode()
        found = subprocess.run(preprocess, input=text, capture_output=True, check=False)
        if found.returncode == 0:
            return ["IPSec_MB"]
    return ["crypto"]


def sources() -> list[Path]:
    """Return the C files of the library, in a fixed order for reproducible builds."""
    return sorted(SOURCE_DIR.glob("*.c"))


def headers() -> list[Path]:
    """Return the headers of the library."""
    return sorted(SOURCE_DIR.glob("*.h"))


def build_files() -> list[Path]:
    """Return the other files that the extension is built from."""
    return [HERE / "cdef.h", *sorted(HERE.glob("*.py"))]


def write_module(path: Path) -> None:
    """Generate the C file of the extension module from cdef.h; an unchanged file keeps its time stamp."""
    ffi = FFI()
    ffi.cdef((HERE / "cdef.h").read_text(encoding="utf-8"))
    includes = "\n".join(f'#include "{header.name}"' for header in headers())
    ffi.set_source(MODULE, includes, py_limited_api=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):  # cffi has no quiet mode
        ffi.emit_c_code(str(path))
