"""Key store: a memory file with the network keys of a running instance, held by the supervisor and read by control.

The key file is read once, at launch, by a child process that ends at once.  So the supervisor's memory, of which every
worker inherits a copy, never contains a key.  The keys of a reload are stored for a restarted control process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys

from pipeline.errors import PipelineError
from pipeline.io import privileges
from pipeline.keys import file as key_file
from pipeline.terminal import one_line


def create() -> int:
    """Return the descriptor of a new, empty key store."""
    fd = os.memfd_create("mcast-pipeline-keys", os.MFD_CLOEXEC)
    os.ftruncate(fd, mmap.PAGESIZE)
    return fd


def lock(fd: int) -> mmap.mmap:
    """Keep the page out of swap as long as the returned mapping is held, which children do not inherit."""
    held = mmap.mmap(fd, mmap.PAGESIZE)
    held.madvise(mmap.MADV_DONTFORK)
    privileges.lock_pages(held)
    _ = held[0]  # pages are locked at their first use
    return held


def fill(fd: int, path: str) -> int:
    """Store the keys of a key file, read by a child process; return 0 or the exit code of an error that was printed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            save(fd, key_file.load_network_keys(path))
            code = 0
        except PipelineError as error:
            code = error.exit_code
            with contextlib.suppress(OSError):
                sys.stderr.write(f"pipeline: {one_line(str(error))}\n")
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def save(fd: int, network_keys: list[bytes], *, is_moving: bool = False) -> None:
    """Replace the keys; the first is the active one.  `is_moving`: a rollover is under way, and the second will end."""
    data = bytes([len(network_keys), is_moving]) + b"".join(network_keys)
    os.pwrite(fd, data.ljust(mmap.PAGESIZE, b"\0"), 0)


def load(fd: int) -> list[bytes]:
    """Return the keys, none with `--insecure`."""
    data = os.pread(fd, mmap.PAGESIZE, 0)
    size = key_file.KEY_BYTES
    return [data[2 + number * size : 2 + (number + 1) * size] for number in range(data[0])]


def is_moving(fd: int) -> bool:
    """Return whether a rollover is under way, with which a restarted control process goes on."""
    return os.pread(fd, 2, 0)[1:] == b"\1"


def wipe(fd: int) -> None:
    """Overwrite the keys."""
    os.pwrite(fd, bytes(mmap.PAGESIZE), 0)
