"""Removal of laboratories: their processes, namespaces and files, also after the builder of a lab was killed.

The names of all of them contain the lab's tag, labPIDxN, where PID is the process that built the lab.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.io import rundir, state
from pipeline.lab.programs import LabError, run_ip_batch

NETNS_DIR = Path("/run/netns")


def remove_stale_labs() -> None:
    """Remove the labs of builders that no longer exist."""
    found: dict[str, list[str]] = {}
    names = os.listdir(NETNS_DIR) if NETNS_DIR.exists() else []
    for name in [*names, *os.listdir(tempfile.gettempdir())]:
        match = re.match(r"(lab(\d+)x\d+)-", name)
        if match and not os.path.exists(f"/proc/{match[2]}"):
            spaces = found.setdefault(match[1], [])
            if name in names:
                spaces.append(name)
    for tag, spaces in found.items():
        remove_lab(tag, spaces)


def remove_lab(tag: str, spaces: Sequence[str]) -> None:
    """Kill the processes in the namespaces; delete the namespaces and all files with the tag in their names."""
    for pid in processes_in(spaces):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    existing = [name for name in spaces if (NETNS_DIR / name).exists()]
    if existing:
        with contextlib.suppress(LabError):
            run_ip_batch(None, [f"netns del {name}" for name in existing], force=True)
    places = (Path(tempfile.gettempdir()), rundir.ROOT, state.ROOT, Path("/dev/shm"))  # noqa: S108
    for path in [path for place in places for path in place.glob(f"*{tag}-*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def processes_in(spaces: Sequence[str]) -> list[int]:
    """Return the pids of all processes in these namespaces, except this one."""
    inodes = set()
    for name in spaces:
        with contextlib.suppress(OSError):
            inodes.add(os.stat(NETNS_DIR / name).st_ino)
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry}/ns/net").st_ino in inodes:
                    found.append(int(entry))
    return found
