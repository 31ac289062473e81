"""The cffi module of the C library: its declarations are cdef.h, its sources src/*.c.

It knows which files belong to the library and how they are to be compiled; setuptools comes in in build_ext.py.
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
"""For our sources; what cffi generates is not ours to mend and is compiled without the warnings."""


def libraries() -> list[str]:
    """What seals and opens: as mp_gcm.h chooses by what the compiler finds.  Nothing else is linked.

    `CFLAGS=-DMP_LIBCRYPTO` chooses libcrypto in any case.
    """
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    asked = [*compiler, "-E", "-xc", "-"]
    if platform.machine() == "x86_64" and "MP_LIBCRYPTO" not in os.environ.get("CFLAGS", ""):
        text = f"#include <{IPSEC_MB_HEADER}>\n".encode()
        found = subprocess.run(asked, input=text, capture_output=True, check=False)
        if found.returncode == 0:
            return ["IPSec_MB"]
    return ["crypto"]


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
