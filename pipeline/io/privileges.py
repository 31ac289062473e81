"""Least privilege of a process: capabilities it cannot get back, no rights by exec, no core, no swap.

    supervisor   opens everything with the rights it was started with, then keeps CAP_NET_ADMIN to move addresses
    children     keep nothing: descriptors that the supervisor opened are all they need

Rights are dropped from every set, and that they are gone is tried, not believed.  What a filter of system calls
allows is another matter: io/seccomp.py.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import struct
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import PipelineError

CAP_SETPCAP, CAP_NET_ADMIN = 8, 12
CAPS_MAX = 64
"""The kernel's capability sets are 64 bits; it knows some 41 and refuses the rest."""

PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
MLOCK_ONFAULT = 1

_libc = ctypes.CDLL(None, use_errno=True)


def harden() -> bool:
    """No other user may trace this process or read its memory, and it leaves no core; no rights by exec.

    Children inherit all of it.  Whether memory may be locked without a limit, which `lock_memory` wants.
    """
    _check(_libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # who opens many connections shall not starve us
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        return False
    return True


def lock_memory() -> bool:
    """Keeps this process's memory, and so its keys, out of swap; pages are locked as they come into use.

    Without the right to do so for all of it (see `harden`) nothing is locked, as later allocations would fail; the keys
    in shared memory and in memory files are locked all the same (Region.lock_keys, `lock_pages`).
    """
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        return False
    return bool(_libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0)


def lock_pages(mapping: mmap.mmap) -> bool:
    """Keeps a mapping out of swap, its pages as they come into use; whether there is the right to lock so much."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    return bool(_libc.mlock2(ctypes.c_void_p(address), ctypes.c_size_t(len(mapping)), MLOCK_ONFAULT) == 0)


def keep_only(wanted: Iterable[int] = ()) -> None:
    """Drops all capabilities but `wanted` (as far as they were held) for good; PipelineError if that fails.

    The bounding set is emptied where CAP_SETPCAP is held: no exec of whatever file could bring one back, which
    no_new_privs forbids anyway.
    """
    before = held()
    kept = before & sum(1 << cap for cap in wanted)
    if before >> CAP_SETPCAP & 1:
        for cap in range(CAPS_MAX):
            _libc.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)  # EINVAL: the kernel knows no such capability
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _check(_capset(kept), "capset")
    if held() != kept or (before != kept and _capset(before) == 0):
        raise PipelineError("capabilities were dropped and are still there: this kernel does not keep its word")


def held() -> int:
    """The capabilities of this process that it may use (permitted), as a bit set."""
    status = Path("/proc/thread-self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("CapPrm:"))
    return int(line.split()[1], 16)


def _capset(capabilities: int) -> int:
    """Permitted and effective become these, inheritable none; 0 or -1."""
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    return int(_libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)))


def _check(status: int, what: str) -> None:
    if status:
        number = ctypes.get_errno()
        raise PipelineError(f"{what}: {os.strerror(number)} ({errno.errorcode.get(number, number)})")
