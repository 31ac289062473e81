"""Generation of the virtual machine: the kernel reports when the host has been restored from a snapshot, or cloned.

The driver vmgenid gives notice as an event of the kernel object (Linux ≥ 6.8).  The socket is opened before control
gives up its rights, and only listens.
"""

from __future__ import annotations

import contextlib
import socket

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1
_MARK = b"NEW_VMGENID=1"
_EVENT_BYTES_MAX = 8192


class VmGeneration:
    """Listener for new generations; it never reports one on a host without the driver."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_KOBJECT_UEVENT)
            self._socket.bind((0, KERNEL_GROUP))

    def has_changed(self) -> bool:
        """Return whether there is a new generation since the last call."""
        is_new = False
        while self._socket is not None:
            try:
                event, (pid, _) = self._socket.recvfrom(_EVENT_BYTES_MAX)
            except BlockingIOError:
                break
            except OSError:  # more events than the buffer holds: one of them may have been it
                return True
            is_new |= pid == 0 and _MARK in event
        return is_new

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            self._socket.close()
