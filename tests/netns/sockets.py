"""Sockets in the hosts of a laboratory, used by the test process itself.

A socket belongs to the namespace in which it was created, so the test process need not stay there. Python handles a
few thousand datagrams a second; traffic.py measures under load.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.lab.netns import Namespace

INTERFACE = "mcast0"
BUFFER_BYTES = 32 << 20
ETH_P_ALL = 3
IP_RECVTTL = 12
SO_RCVBUFFORCE = 33
MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_GROUP = 42, 46, 45


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram that a member received."""

    payload: bytes
    source: str
    ttl: int


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _level(group: str) -> int:
    return socket.IPPROTO_IPV6 if ":" in group else socket.IPPROTO_IP


def _packed_sockaddr(address: str) -> bytes:
    """Return the address as a struct sockaddr_storage."""
    family = family_of(address)
    packed = socket.inet_pton(family, address)
    if family == socket.AF_INET:
        return struct.pack("=HH4s", family, 0, packed).ljust(128, b"\0")
    return struct.pack("=HHI16sI", family, 0, 0, packed, 0).ljust(128, b"\0")


class Sockets:
    """Sockets in hosts; all are closed at the end of the test."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def close(self) -> None:
        self._stack.close()

    def open(self, host: Namespace, family: int, kind: int, protocol: int = 0) -> socket.socket:
        with host.enter():
            sock = socket.socket(family, kind, protocol)
        self._stack.callback(sock.close)
        return sock

    def index(self, host: Namespace, interface: str) -> int:
        with host.enter():
            return socket.if_nametoindex(interface)

    def sender(self, host: Namespace, destination: str, *, ttl: int = 1, loop: bool = True) -> socket.socket:
        """Return a UDP socket that sends to groups of the destination's family through the overlay interface."""
        family = family_of(destination)
        sock = self.open(host, family, socket.SOCK_DGRAM)
        index = self.index(host, INTERFACE)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, loop)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, loop)
        return sock

    def member(self, host: Namespace, group: str, port: int, *, source: str | None = None) -> socket.socket:
        """Return a UDP socket that is bound to the group and has joined it (with `source`: that source only)."""
        family = family_of(group)
        sock = self.open(host, family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        sock.bind((group, port))
        self.join(sock, host, group, source)
        return sock

    def join(self, sock: socket.socket, host: Namespace, group: str, source: str | None = None) -> None:
        """Join the group (with `source`: add that source)."""
        request = self._group_request(host, group)
        if source is None:
            sock.setsockopt(_level(group), MCAST_JOIN_GROUP, request)
        else:
            sock.setsockopt(_level(group), MCAST_JOIN_SOURCE_GROUP, request + _packed_sockaddr(source))

    def leave(self, sock: socket.socket, host: Namespace, group: str) -> None:
        """Leave the group; the socket stays open."""
        sock.setsockopt(_level(group), MCAST_LEAVE_GROUP, self._group_request(host, group))

    def _group_request(self, host: Namespace, group: str) -> bytes:
        """Return a struct group_req."""
        return struct.pack("=I4x", self.index(host, INTERFACE)) + _packed_sockaddr(group)

    def sniffer(self, host: Namespace, interface: str) -> socket.socket:
        """Return a socket that receives every packet of an interface: from the link header on a veth, from the
        IP header on a TUN."""
        sock = self.open(host, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        sock.bind((interface, ETH_P_ALL))
        return sock


def read_datagrams(sock: socket.socket, count: int, timeout_s: float = 5.0) -> list[Datagram]:
    """Return the next `count` datagrams, or fewer after `timeout_s`."""
    found: list[Datagram] = []
    deadline = time.monotonic() + timeout_s
    while len(found) < count and (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            payload, ancillary, _, source = sock.recvmsg(65536, 64)
        except TimeoutError:
            break
        ttl = struct.unpack("=i", ancillary[0][2])[0] if ancillary else -1
        found.append(Datagram(payload, source[0].partition("%")[0], ttl))
    return found


def read_packets(sock: socket.socket, seconds: float, matches: Callable[[bytes], bool], count: int = 1) -> list[bytes]:
    """Return the first `count` packets of a sniffer that match, or fewer after `seconds`."""
    return list(_packets(sock, seconds, matches, count))


def _packets(sock: socket.socket, seconds: float, matches: Callable[[bytes], bool], count: int) -> Iterator[bytes]:
    deadline = time.monotonic() + seconds
    found = 0
    while found < count and (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            packet = sock.recv(65536)
        except TimeoutError:
            return
        if matches(packet):
            found += 1
            yield packet


def goes_to(destination: str, *, protocol: int | None = None) -> Callable[[bytes], bool]:
    """Return a filter for IP packets (without link header) to this destination, of this protocol."""
    packed = socket.inet_pton(family_of(destination), destination)

    def matches(packet: bytes) -> bool:
        if len(packed) == 4:
            return packet[0] >> 4 == 4 and packet[16:20] == packed and protocol in (None, packet[9])
        return packet[0] >> 4 == 6 and packet[24:40] == packed and protocol in (None, packet[6])

    return matches
