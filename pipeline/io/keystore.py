"""Key store: a memory file with the secrets of a running instance, held by the supervisor and read by control.

    byte 0 … 31     seed of the node's identity
    32, 33, 34 …    number of network keys, whether a rollover is under way, the keys
    256 …           why the identity could not be kept (text)

The files of the secrets are read once, at launch, by a child process that ends at once.  So the supervisor's memory, of
which every worker inherits a copy, never contains a key.  The network keys of a reload are stored for a restarted
control process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.io import credentials, identity_file, privileges
from pipeline.keys import file as key_file
from pipeline.keys.identity import SEED_BYTES, Identity
from pipeline.terminal import one_line

_KEYS = SEED_BYTES
"""Position of the network keys."""
_FAULT = 256
"""Position of the text."""


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


def fill(fd: int, config: Config) -> int:
    """Store the secrets of a node, read by a child process; return 0 or the exit code of an error that was printed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _fill(fd, config)
            code = 0
        except PipelineError as error:
            code = error.exit_code
            with contextlib.suppress(OSError):
                sys.stderr.write(f"pipeline: {one_line(str(error))}\n")
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fill(fd: int, config: Config) -> None:
    if not config.node.insecure:
        save(fd, key_file.load_network_keys(config.node.key or ""))
    seed, reason = identity_file.load_or_make(config.node)
    os.pwrite(fd, seed, 0)
    os.pwrite(fd, reason.encode()[: mmap.PAGESIZE - _FAULT], _FAULT)
    credentials.load(config, Identity(seed).public_key)


def load_seed(fd: int) -> bytes:
    """Return the seed of the node's identity."""
    return os.pread(fd, SEED_BYTES, 0)


def identity_fault(fd: int) -> str:
    """Return why the identity could not be kept in its file; empty if it is there."""
    return os.pread(fd, mmap.PAGESIZE, _FAULT).rstrip(b"\0").decode(errors="replace")


def save(fd: int, network_keys: list[bytes], *, is_moving: bool = False) -> None:
    """Replace the network keys; the first is the active one.  `is_moving`: the second ends with a rollover."""
    data = bytes([len(network_keys), is_moving]) + b"".join(network_keys)
    os.pwrite(fd, data.ljust(_FAULT - _KEYS, b"\0"), _KEYS)


def load(fd: int) -> list[bytes]:
    """Return the network keys, none with `--insecure`."""
    data = os.pread(fd, mmap.PAGESIZE, _KEYS)
    size = key_file.KEY_BYTES
    return [data[2 + number * size : 2 + (number + 1) * size] for number in range(data[0])]


def is_moving(fd: int) -> bool:
    """Return whether a rollover is under way, with which a restarted control process goes on."""
    return os.pread(fd, 2, _KEYS)[1:] == b"\1"


def wipe(fd: int) -> None:
    """Overwrite all secrets."""
    os.pwrite(fd, bytes(mmap.PAGESIZE), 0)
