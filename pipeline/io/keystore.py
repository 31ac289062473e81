"""The network keys of a running instance: a memory file that control reads, and nobody else but the supervisor holds.

The key file is read once, at launch, by a child process that ends at once: the supervisor's memory, of which every
worker inherits a copy, never contains a key.  What a reload brings stands here for control's successors.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys

from pipeline.errors import PipelineError
from pipeline.io import privileges
from pipeline.keys import file as key_file


def create() -> int:
    """A new, empty key store; its descriptor."""
    fd = os.memfd_create("mcast-pipeline-keys", os.MFD_CLOEXEC)
    os.ftruncate(fd, mmap.PAGESIZE)
    return fd


def lock(fd: int) -> mmap.mmap:
    """Keeps the page out of swap as long as the mapping is held, which children do not inherit."""
    held = mmap.mmap(fd, mmap.PAGESIZE)
    held.madvise(mmap.MADV_DONTFORK)
    privileges.lock_pages(held)
    _ = held[0]  # locked as it comes into use
    return held


def fill(fd: int, path: str) -> int:
    """Puts the keys of a key file there without reading them here; 0, or the exit code of an error that was printed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            save(fd, key_file.load_network_keys(path))
            code = 0
        except PipelineError as error:
            code = error.exit_code
            with contextlib.suppress(OSError):
                sys.stderr.write(f"pipeline: {error}\n")
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def save(fd: int, network_keys: list[bytes], *, is_moving: bool = False) -> None:
    """Replaces what is there; the first key is the active one, and the second is to end soon if `is_moving`."""
    data = bytes([len(network_keys), is_moving]) + b"".join(network_keys)
    os.pwrite(fd, data.ljust(mmap.PAGESIZE, b"\0"), 0)


def load(fd: int) -> list[bytes]:
    """The keys; none if nothing was put there (--insecure)."""
    data = os.pread(fd, mmap.PAGESIZE, 0)
    size = key_file.KEY_BYTES
    return [data[2 + number * size : 2 + (number + 1) * size] for number in range(data[0])]


def is_moving(fd: int) -> bool:
    """Whether the second key is to end: a control that was restarted goes on with that."""
    return os.pread(fd, 2, 0)[1:] == b"\1"


def wipe(fd: int) -> None:
    """Overwrites the keys."""
    os.pwrite(fd, bytes(mmap.PAGESIZE), 0)
