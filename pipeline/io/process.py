"""First steps of a child of the supervisor: end with the parent, leave the terminal's signals to it, take a name."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_TIMERSLACK = 1, 15, 29
TIMER_SLACK_NS = 1000
"""Timer slack of workers, whose sleeps of tens of microseconds must be exact; the kernel's default is 50 µs."""

_libc = ctypes.CDLL(None, use_errno=True)


def become_child(parent_pid: int, name: str) -> None:
    """Make this process end with its parent, SIGKILL included; `name` is what `ps` and `top` show (15 bytes)."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # the parent ended before the call
        os._exit(1)
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)
    _libc.prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group: the supervisor decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))


def pin(cpu: int) -> bool:
    """Run this process on one CPU only; False if that CPU is absent, offline, or not allowed to this process."""
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        return False
    return True


def absent_cpus(cpus: Iterable[int]) -> list[int]:
    """Return the CPUs that this process cannot run on.  Each is tried, as no list shows what a cpuset allows."""
    allowed = os.sched_getaffinity(0)
    try:
        return [cpu for cpu in dict.fromkeys(cpus) if not pin(cpu)]
    finally:
        os.sched_setaffinity(0, allowed)
