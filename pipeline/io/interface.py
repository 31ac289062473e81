"""The instance's interface, kept as it should be whoever changes it: the supervisor's, which has the right to.

    taken away    made again on the same queues: a descriptor whose interface has gone takes another one
    down          left down, as somebody wants it so
    up            the addresses and routes that it lacks are put back: they go with a link that goes down

The kernel tells of changes; nothing is looked at while it says nothing.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import structlog

from pipeline.config import TunSection
from pipeline.errors import PipelineError
from pipeline.io import netlink, tun

RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
INDEX = struct.Struct("=20xi")
"""The interface's index in messages of all three groups: ifinfomsg and ifaddrmsg have it in one place."""
MESSAGE_BYTES_MAX = 65536

log = structlog.get_logger()


class Interface:
    """One TUN interface with its queues."""

    def __init__(self, config: TunSection, queues: Sequence[int], *, mtu: int, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses
        """Those that it should have."""
        self._config = config
        self._name = config.interface
        self._queues = queues
        self._mtu = mtu
        self._was_up = True
        self._index = 0
        self._changes = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._changes.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))

    def fileno(self) -> int:
        """Readable when the kernel tells of a change."""
        return self._changes.fileno()

    def close(self) -> None:
        """Nothing is looked after any more; the interface goes with its queues."""
        self._changes.close()

    def configure(self) -> None:
        """Brings it up with all that it should have."""
        config = self._config
        self._index = _index_of(self._name)
        netlink.configure(
            self._name,
            mtu=self._mtu,
            queue_length=config.queue_length,
            addresses=self.addresses,
            routes=config.routes,
        )

    def move(self, addresses: tuple[str, ...]) -> None:
        """Gives it other addresses."""
        netlink.replace_addresses(self._name, self.addresses, addresses)
        self.addresses = addresses

    def look(self) -> None:
        """Mends what others have changed; PipelineError if there is no interface any more and can be none.

        What changes once more while it is looked at is looked at again: the kernel tells of that too.
        """
        if not self._has_changed():
            return
        is_gone = _index_of(self._name) == 0
        if is_gone:
            log.warning("interface was taken away, and is made again", interface=self._name)
            tun.attach(self._queues, self._name)
        try:
            if is_gone:
                self.configure()
            else:
                self._mend()
        except PipelineError as error:
            log.warning("interface is not as it should be", interface=self._name, reason=str(error))

    def _mend(self) -> None:
        is_up = netlink.is_up(self._name)
        if is_up:
            lacking = netlink.put_back(self._name, self.addresses, self._config.routes)
            if lacking:
                log.warning("interface has lost addresses or routes, put back", interface=self._name, lacking=lacking)
        elif self._was_up:
            log.warning("interface was set down: no packets pass until it is up", interface=self._name)
        self._was_up = is_up

    def _has_changed(self) -> bool:
        """Empties the socket; whether any of it was about this interface."""
        found = False
        while True:
            try:
                message = self._changes.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: more changes than the socket holds
                found = True
            else:
                about_all = not self._index or len(message) < INDEX.size
                found |= about_all or INDEX.unpack_from(message)[0] == self._index


def _index_of(interface: str) -> int:
    """0 if there is none of that name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0
