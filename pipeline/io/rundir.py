"""The runtime directory of an instance: lock with the supervisor's pid, ipc sockets.  /run/mcast-pipeline/NAME.

The lock is held by the supervisor as long as it lives, so a directory whose lock is free was left by one that was
killed and may be taken over.
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
    """Where control answers the command line."""
    return f"ipc://{ROOT / name / 'control.sock'}"


def punt_endpoint(name: str) -> str:
    """Where control takes packets from the workers."""
    return f"ipc://{ROOT / name / 'punt.sock'}"


class RuntimeDirectory:
    """Held by the supervisor from start to end."""

    def __init__(self, name: str) -> None:
        """Creates and locks the directory; what a killed predecessor left in it is removed."""
        self._name = name
        self._path = ROOT / name
        self._lock = self._locked()

    def _locked(self) -> int:
        """The descriptor of the lock, held."""
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
        """Makes it again if somebody has removed it: sockets cannot be bound without."""
        if not self._stands():
            os.close(self._lock)
            self._lock = self._locked()

    def _stands(self) -> bool:
        try:
            return (self._path / "lock").stat().st_ino == os.fstat(self._lock).st_ino
        except OSError:
            return False

    def remove(self) -> None:
        """Removes the directory, and the root if this was the last."""
        shutil.rmtree(self._path, ignore_errors=True)
        with contextlib.suppress(OSError):
            ROOT.rmdir()
        os.close(self._lock)


def _make_private(path: Path) -> None:
    """What was there must be a directory of this user: files are removed in it, which a link could lead elsewhere."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise PipelineError(f"{path}: is no directory: remove it") from None
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            raise PipelineError(f"{path}: belongs to another user: remove it, or choose another --name")
        os.fchmod(directory, 0o700)
    finally:
        os.close(directory)


def _refusal(path: Path, error: OSError) -> PipelineError:
    if error.errno == errno.EROFS:
        return PipelineError(f"{path}: read-only file system: mount {ROOT.parent} writable, it is for what runs")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(f"{path}: no permission: run as root")
    return PipelineError(f"{path}: {os.strerror(error.errno or 0)}")
