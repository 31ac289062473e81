"""The instance's interface: configured by the supervisor, and repaired when others change it.

    deleted   created again on the same queues: a queue whose interface was deleted takes a new one
    down      left down, as the administrator has set it
    up        addresses and routes that it lacks are put back: they go when a link goes down
    no IPv6   a sysctl has switched it off: addresses and routes are IPv4 only

The kernel reports changes, so nothing is checked in between.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Sequence

import psutil
import structlog

from pipeline.address import Address, parse
from pipeline.config import TunSection
from pipeline.errors import PipelineError
from pipeline.io import netlink, tun

RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
INDEX = struct.Struct("=20xi")
"""Interface index in the messages of all three groups: ifinfomsg and ifaddrmsg have it at the same offset."""
MESSAGE_BYTES_MAX = 65536
SIOCGIFFLAGS = 0x8913
IFREQ = struct.Struct("16sH22x")
"""Request for an interface's flags: struct ifreq."""

log = structlog.get_logger()


class Interface:
    """TUN interface of the instance, with its queues."""

    def __init__(self, config: TunSection, queues: Sequence[int], *, mtu: int, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses
        """Addresses that the interface should have."""
        self._config = config
        self._name = config.interface
        self._queues = queues
        self._mtu = mtu
        self._was_up = True
        self._had_ipv6 = True
        self._index = 0
        self._changes = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._changes.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))

    def fileno(self) -> int:
        """Return a descriptor that is readable when the kernel has reported a change."""
        return self._changes.fileno()

    def close(self) -> None:
        """Stop the repair; the interface itself goes with its queues."""
        self._changes.close()

    def configure(self) -> None:
        """Bring the interface up with its MTU, addresses and routes."""
        config = self._config
        self._index = _index_of(self._name)
        netlink.configure(
            self._name,
            mtu=self._mtu,
            queue_length=config.queue_length,
            addresses=self.addresses,
            routes=config.routes,
        )
        self._note_ipv6()

    def move(self, addresses: tuple[str, ...]) -> None:
        """Give the interface other addresses."""
        netlink.replace_addresses(self._name, self.addresses, addresses)
        self.addresses = addresses

    def repair(self) -> None:
        """Repair what others have changed; PipelineError if the interface was deleted and cannot be created again.

        A change during the repair is handled by the next call, because the kernel reports it too.
        """
        if not self._has_changed():
            return
        is_gone = _index_of(self._name) == 0
        if is_gone:
            log.warning("interface was deleted, and is created again", interface=self._name)
            tun.attach(self._queues, self._name)
        try:
            if is_gone:
                self.configure()
            else:
                self._put_back()
        except PipelineError as error:
            log.warning("interface could not be repaired", interface=self._name, reason=str(error))

    def _put_back(self) -> None:
        is_up = netlink.is_up(self._name)
        if is_up:
            self._note_ipv6()
            lacking = netlink.put_back(self._name, self.addresses, self._config.routes)
            if lacking:
                log.warning("interface has lost addresses or routes, put back", interface=self._name, lacking=lacking)
        elif self._was_up:
            log.warning("interface was set down: no packets pass until it is up", interface=self._name)
        self._was_up = is_up

    def _note_ipv6(self) -> None:
        """Log once that the interface has no IPv6, if its configuration needs it."""
        reason = netlink.why_no_ipv6(self._name)
        needs_ipv6 = any(":" in text for text in (*self.addresses, *self._config.routes))
        if reason is not None and self._had_ipv6 and needs_ipv6:
            log.warning("interface has no IPv6: IPv4 groups only", interface=self._name, reason=reason)
        self._had_ipv6 = reason is None

    def _has_changed(self) -> bool:
        """Empty the socket; return whether any message was about this interface."""
        has_changed = False
        while True:
            try:
                message = self._changes.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return has_changed
            except OSError:  # ENOBUFS: messages were lost, so this interface may have changed
                has_changed = True
            else:
                is_unclear = not self._index or len(message) < INDEX.size
                has_changed |= is_unclear or INDEX.unpack_from(message)[0] == self._index


class InterfaceFlags:
    """Reader of an interface's flags for processes without rights.

    It holds its socket, so it works when the process has no descriptors left.
    """

    def __init__(self, interface: str) -> None:
        self._name = interface
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def fault(self) -> str:
        """Return why no packets pass through the interface, or an empty text."""
        try:
            found = fcntl.ioctl(self._socket, SIOCGIFFLAGS, IFREQ.pack(self._name.encode(), 0))
        except OSError as error:
            return f"interface {self._name} is missing: {(error.strerror or str(error)).lower()}"
        flags: int = IFREQ.unpack(found)[1]
        return "" if flags & netlink.IFF_UP else f"interface {self._name} is down: ip link set {self._name} up"

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def host_addresses() -> frozenset[Address]:
    """Return the addresses of this host's interfaces, but for point-to-point ones.

    TUNs are point-to-point, and several instances of one host can be nodes of one overlay.
    """
    found: set[Address] = set()
    flags = {interface: each.flags.split(",") for interface, each in psutil.net_if_stats().items()}
    for interface, addresses in psutil.net_if_addrs().items():
        if "pointopoint" not in flags.get(interface, []):
            texts = [each.address for each in addresses if each.family in (socket.AF_INET, socket.AF_INET6)]
            found.update(parse(text.partition("%")[0]) for text in texts)
    return frozenset(found)


def _index_of(interface: str) -> int:
    """Return the index of the interface, or 0 if there is none of that name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0
