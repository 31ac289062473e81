"""What a child of the supervisor does first: die with its parent, look away from the terminal, have a name."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_TIMERSLACK = 1, 15, 29
TIMER_SLACK_NS = 1000
"""Wake-ups of tens of microseconds are meant so; the default slack is 50 µs."""
SLICE_NS = 1_000_000
"""How long it runs before others have their turn, and so how soon it has its own when it is woken.  The kernel's
default is 3 ms, in which queues of thousands of packets fill; Linux before 6.12 keeps to it."""
_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTR_BYTES, _POLICY_AT, _RUNTIME_AT = 56, 4, 24
"""Of the kernel's struct sched_attr."""

_libc = ctypes.CDLL(None, use_errno=True)


def become_child(parent_pid: int, name: str) -> None:
    """Ends with the parent however that ends (SIGKILL included); `name` is what `ps` and `top` show (15 bytes)."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before we asked
        os._exit(1)
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)
    _libc.prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0)
    _take_short_slices()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the supervisor decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))


def _take_short_slices() -> None:
    """Leaves alone who was started with a policy of its own, and machines whose numbers are not known."""
    machine = platform.machine()
    attributes = ctypes.create_string_buffer(_ATTR_BYTES)
    if machine not in _SCHED_GETATTR or _libc.syscall(_SCHED_GETATTR[machine], 0, attributes, _ATTR_BYTES, 0):
        return
    if struct.unpack_from("=I", attributes, _POLICY_AT)[0] == os.SCHED_OTHER:
        struct.pack_into("=Q", attributes, _RUNTIME_AT, SLICE_NS)
        _libc.syscall(_SCHED_SETATTR[machine], 0, attributes, 0)


def pin(cpu: int) -> None:
    """Runs this process on one CPU only."""
    os.sched_setaffinity(0, {cpu})
