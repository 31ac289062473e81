"""The version before identities of nodes, for tests of an upgrade: its sources, and its program.

Its sources are the archive golden/protocol-1.tar.xz, made by `git archive COMMIT pipeline cffi_build pyproject.toml
README.md LICENSE`, so that a clone without history can test an upgrade too.  They are unpacked into
`.venv/previous-COMMIT/`, with a native extension of their own, and run with the packages of this environment.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

COMMIT = "91a7ac2c71f34056c0a629cfbab56fdd1c535b6e"
"""The last commit whose nodes speak protocol 1 only."""
ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = ROOT / "tests" / "golden" / "protocol-1.tar.xz"
_RUN = "import sys; from pipeline.cli import main; sys.exit(main())"
_BUILD = "import sys; sys.path.insert(0, ''); from setuptools import setup; setup()"


class PreviousVersionError(Exception):
    """The previous version is not available: the text says why."""


def sources() -> Path:
    """Return the directory of the previous version's sources."""
    target = ROOT / ".venv" / f"previous-{COMMIT[:12]}"
    target.parent.mkdir(exist_ok=True)
    with (target.parent / "previous.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _extract(target)
    return target


def _extract(target: Path) -> None:
    unfinished = target.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(unfinished, filter="data")
    unfinished.rename(target)


def built() -> Path:
    """Return the directory of the previous version with its native extension, which is built when it is first used."""
    target = sources()
    with (target.parent / "previous.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / ".built").exists():
            command = [sys.executable, "-P", "-W", "ignore", "-c", _BUILD, "--quiet", "build_ext", "--inplace"]
            environ = environment(target)
            done = subprocess.run(command, cwd=target, env=environ, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise PreviousVersionError(f"its native extension cannot be built: {done.stderr[-2000:]}")
            subprocess.run([sys.executable, "-m", "compileall", "-q", str(target / "pipeline")], check=True)
            (target / ".built").touch()
    return target


def environment(directory: Path) -> dict[str, str]:
    """Return the environment in which Python imports the previous version instead of this one."""
    return {**os.environ, "PYTHONPATH": str(directory)}


def program(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs the previous version's `pipeline` with these arguments."""
    return ["/usr/bin/env", f"PYTHONPATH={built()}", sys.executable, "-P", "-c", _RUN, *arguments]
