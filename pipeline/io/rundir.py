"""Runtime directory of an instance, /run/mcast-pipeline/NAME: a lock with the supervisor's pid, and ipc sockets.

The supervisor holds the lock until it ends.  So a directory whose lock is free was left by a killed supervisor, and a
new one may take it over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path

from pipeline.errors import PermissionDeniedError, PipelineError

ROOT = Path("/run/mcast-pipeline")


def control_endpoint(name: str) -> str:
    """Return the endpoint at which control replies to the command line."""
    return f"ipc://{ROOT / name / 'control.sock'}"


def punt_endpoint(name: str) -> str:
    """Return the endpoint at which control receives punts from the workers."""
    return f"ipc://{ROOT / name / 'punt.sock'}"


class RuntimeDirectory:
    """Locked runtime directory, which the supervisor holds from its start to its end."""

    def __init__(self, name: str) -> None:
        """Create and lock the directory; remove what a killed predecessor left in it."""
        self._name = name
        self._path = ROOT / name
        self._lock = self._acquire_lock()

    def _acquire_lock(self) -> int:
        """Return the descriptor of the lock, which is held."""
        try:
            ROOT.mkdir(mode=0o755, exist_ok=True)
            self._path.mkdir(mode=0o700, exist_ok=True)
            _make_private(self._path)
            lock = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _refusal(self._path, error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            name = self._name
            raise PipelineError(
                f"an instance named {name} is running: choose another --name, or end it: pipeline stop --name {name}"
            ) from None
        for path in self._path.iterdir():
            if path.name != "lock":
                path.unlink(missing_ok=True)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    def restore(self) -> None:
        """Create the directory again if it was removed: sockets could not be bound without it."""
        if not self._exists():
            os.close(self._lock)
            self._lock = self._acquire_lock()

    def _exists(self) -> bool:
        try:
            return (self._path / "lock").stat().st_ino == os.fstat(self._lock).st_ino
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the directory, and the root if this was the last instance."""
        shutil.rmtree(self._path, ignore_errors=True)
        with contextlib.suppress(OSError):
            ROOT.rmdir()
        os.close(self._lock)


def _make_private(path: Path) -> None:
    """Check that the path is a directory of this user, not a link: files in it will be removed.  Make it private."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise PipelineError(f"{path}: is not a directory: remove it") from None
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            raise PipelineError(f"{path}: belongs to another user: remove it, or choose another --name")
        os.fchmod(directory, 0o700)
    finally:
        os.close(directory)


def _refusal(path: Path, error: OSError) -> PipelineError:
    if error.errno == errno.EROFS:
        return PipelineError(f"{path}: read-only file system: mount {ROOT.parent} writable")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(f"{path}: no permission: run as root")
    return PipelineError(f"{path}: {os.strerror(error.errno or 0)}")
