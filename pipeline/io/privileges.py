"""Least privilege of a process: no capabilities that it does not need, no rights by exec, no core dump, no swap.

    supervisor   opens everything with the rights it was started with, then keeps CAP_NET_ADMIN to move addresses
    children     keep none: the descriptors that the supervisor opened are all they need

Capabilities are dropped from every set, and an attempt to get them back checks that they are gone.  The filters of
system calls are in io/seccomp.py.
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
"""Size of the kernel's capability sets in bits; some 41 are in use, and the kernel refuses the others."""

PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
MLOCK_ONFAULT = 1

_libc = ctypes.CDLL(None, use_errno=True)


def harden() -> bool:
    """Forbid tracing and reading of memory by other users, core dumps, and rights gained by exec.

    Children inherit all of it.  Return whether memory can be locked without a limit, which `lock_memory` needs.
    """
    _check(_libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # an attacker's connections must not use all descriptors
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        return False
    return True


def lock_memory() -> bool:
    """Keep the memory of this process, and so its keys, out of swap; pages are locked at their first use.

    If memory cannot be locked without a limit (see `harden`), nothing is locked, because later allocations would fail.
    Keys in shared memory and in memory files are locked in either case (Region.lock_keys, `lock_pages`).
    """
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        return False
    return bool(_libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0)


def lock_pages(mapping: mmap.mmap) -> bool:
    """Keep a mapping out of swap, each page from its first use on; return False if the limit is too small."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    return bool(_libc.mlock2(ctypes.c_void_p(address), ctypes.c_size_t(len(mapping)), MLOCK_ONFAULT) == 0)


def keep_only(capabilities: Iterable[int] = ()) -> None:
    """Drop all capabilities but these for good; one that the process lacks is not gained.  PipelineError on failure.

    With CAP_SETPCAP the bounding set is emptied too, so that no exec can bring a capability back.  no_new_privs forbids
    that as well.
    """
    before = held()
    kept = before & sum(1 << cap for cap in capabilities)
    if before >> CAP_SETPCAP & 1:
        for cap in range(CAPS_MAX):
            _libc.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)  # EINVAL: the kernel has no such capability
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _check(_capset(kept), "capset")
    if held() != kept or (before != kept and _capset(before) == 0):
        raise PipelineError("capabilities remain after they were dropped: this kernel is not supported")


def held() -> int:
    """Return the permitted capabilities of this process as a bit set."""
    status = Path("/proc/thread-self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("CapPrm:"))
    return int(line.split()[1], 16)


def _capset(capabilities: int) -> int:
    """Set the permitted and effective capabilities, and clear the inheritable ones; return 0 or -1."""
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    return int(_libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)))


def _check(status: int, what: str) -> None:
    if status:
        number = ctypes.get_errno()
        raise PipelineError(f"{what}: {os.strerror(number)} ({errno.errorcode.get(number, number)})")
