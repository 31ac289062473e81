"""TUN queues: opened by the supervisor, one for each lane, inherited by the workers.

The interface is not persistent: it exists as long as a process holds one of its queues, so a killed instance leaves
none behind.  Addresses and routes are set in io/netlink.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable

from pipeline.errors import PermissionDeniedError, PipelineError

DEVICE = "/dev/net/tun"

# linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
IFF_TUN, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR, IFF_TUN_EXCL = 0x0001, 0x0100, 0x1000, 0x4000, 0x8000
TUN_F_CSUM, TUN_F_USO4, TUN_F_USO6 = 0x01, 0x20, 0x40


def open_queues(interface: str, count: int) -> list[int]:
    """Create the interface; return `count` queues: non-blocking descriptors with a vnet header on each packet.

    An error states what to do: no device node, no right (CAP_NET_ADMIN), interface in use.
    """
    queues: list[int] = []
    try:
        queues.extend(_open_device() for _ in range(count))
        attach(queues, interface)
    except BaseException:
        for queue in queues:
            os.close(queue)
        raise
    return queues


def attach(queues: Iterable[int], interface: str) -> None:
    """Create the interface with these queues, which have none or whose interface was deleted."""
    for number, queue in enumerate(queues):
        # The first one must create the interface, not join that of another instance.
        _attach_queue(queue, interface, 0 if number else IFF_TUN_EXCL)


def _open_device() -> int:
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PermissionDeniedError(f"{DEVICE}: no permission: run as root or with CAP_NET_ADMIN") from None
        raise PipelineError(f"{DEVICE}: {os.strerror(error.errno or 0)}: load the module (modprobe tun)") from None


def _attach_queue(queue: int, interface: str, more_flags: int) -> None:
    flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE | more_flags
    try:
        fcntl.ioctl(queue, TUNSETIFF, struct.pack("16sH22x", interface.encode(), flags))
    except OSError as error:
        if error.errno == errno.EPERM:
            raise PermissionDeniedError(
                f"interface {interface}: no permission: run as root or with CAP_NET_ADMIN"
            ) from None
        if error.errno in (errno.EBUSY, errno.EINVAL):
            raise PipelineError(f"interface {interface} exists already: choose another with --tun") from None
        if error.errno == errno.EEXIST:
            raise PipelineError(f"interface {interface}: was renamed or moved to another namespace: restart") from None
        raise PipelineError(f"interface {interface}: {os.strerror(error.errno or 0)}") from None


def takes_super_packets(queue: int) -> bool:
    """Return whether UDP super-packets can be written into the TUN (USO, Linux ≥ 6.2).

    It is tried by switching USO on for reading, and off again so that packets of programs are read one by one.
    """
    try:
        fcntl.ioctl(queue, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6)
    except OSError:
        return False
    finally:
        fcntl.ioctl(queue, TUNSETOFFLOAD, 0)
    return True
