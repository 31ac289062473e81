"""sd_notify(3): reports to the service manager that the instance is ready or ends, if there is a manager."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send "READY=1", "STOPPING=1" or the like to $NOTIFY_SOCKET, if that is set."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect("\0" + address[1:] if address[0] == "@" else address)
        sock.sendall(state.encode())
