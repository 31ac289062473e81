"""What a child of the supervisor does first: die with its parent, look away from the terminal, have a name."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_TIMERSLACK = 1, 15, 29
TIMER_SLACK_NS = 1000
"""Wake-ups of tens of microseconds are meant so; the default slack is 50 µs."""

_libc = ctypes.CDLL(None, use_errno=True)


def become_child(parent_pid: int, name: str) -> None:
    """Ends with the parent however that ends (SIGKILL included); `name` is what `ps` and `top` show (15 bytes)."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before we asked
        os._exit(1)
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)
    _libc.prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the supervisor decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))


def pin(cpu: int) -> None:
    """Runs this process on one CPU only."""
    os.sched_setaffinity(0, {cpu})
