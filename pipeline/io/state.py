"""State directory of an instance: what stays between its starts.

    incarnation      the last incarnation of its node (this module)
    identity         the seed of its key pair (identity_file.py)
    certificate      its certificate, if there is an authority (credentials.py)
    revocations      the newest revocation list that it has received (credentials.py)
    pins-….json      the identities that it has met in each open network (pins.py)

    $STATE_DIRECTORY                 set by systemd (StateDirectory=)
    /var/lib/mcast-pipeline/NAME     without it

The clock of a host may be set back, and its peers then take the new node for an old one.  Each start therefore has an
incarnation above the last one, whatever the clock shows.  A node without the directory runs all the same: its
incarnation follows the clock alone, and peers accept it once the former process is silent.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pipeline import limits

ROOT = Path("/var/lib/mcast-pipeline")
_FILE = "incarnation"
_DIGITS_MAX = 20


def directory(name: str) -> Path:
    """Return the state directory of an instance."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(given) if given else ROOT / name


def exists(path: Path) -> bool:
    """Return whether there is anything at a path, also a dangling link; OSError if its directory cannot be searched."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


class IncarnationFile:
    """The last incarnation of an instance, in its state directory."""

    def __init__(self, name: str) -> None:
        self._path = directory(name) / _FILE
        self._last = self._read()

    def following(self, clock_ms: int) -> int:
        """Return the incarnation of a new start: the clock in ms since 1970, but more than the last incarnation."""
        return max(clock_ms, self._last + 1)

    def _read(self) -> int:
        """Return the last incarnation; 0 if none is known, or none could follow it."""
        with contextlib.suppress(OSError, ValueError):
            file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                last = int(os.read(file, _DIGITS_MAX))
            finally:
                os.close(file)
            return last if 0 <= last < limits.INCARNATION_MAX else 0
        return 0

    def save(self, incarnation: int) -> None:
        """Keep an incarnation that is above the last one.  OSError if the directory cannot be written."""
        if incarnation <= self._last:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(written, flags, 0o600)
        try:
            os.write(file, f"{incarnation}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
        written.replace(self._path)
        self._last = incarnation
