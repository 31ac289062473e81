"""Sockets that the supervisor opens before any fork: the lanes' data sockets, and listening sockets over TCP.

All lanes share one UDP port by SO_REUSEPORT.  A BPF program steers each datagram to the lane in the top byte of its
sequence number, so that each sequence space has one receiver.

An error is one line that names the flag which gave the endpoint.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct

from pipeline.endpoint import join_endpoint, split_endpoint
from pipeline.errors import PermissionDeniedError, PipelineError

BUFFER_BYTES = 16 << 20
"""Size of a data socket's buffers: 100 ms of 1.3 Gbit/s, for the time of a worker's restart or of a busy machine."""
SEGMENT_BYTES_MAX = 1220
"""Largest TCP segment (MSS): what fits 1280 bytes, the smallest MTU of IPv6, less 40 of IPv6 and 20 of TCP.  A firewall
that drops the ICMP errors of a narrow path would stop larger segments for good.  Accepted connections inherit the
value, announce it to the caller and use it themselves, so the listening side alone limits both directions."""

UDP_SEGMENT, UDP_GRO = 103, 104
SO_ATTACH_REUSEPORT_CBPF, SO_BUSY_POLL = 51, 46
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT = 10, 23, 0
SEQUENCE_TOP_BYTE = 8
"""Offset of the lane in a datagram: the top byte of the sequence number (mp_packet.h)."""


def open_data_sockets(listen: str, lanes: int, *, busy_poll_us: int = 0) -> list[socket.socket]:
    """Return one non-blocking UDP socket for each lane, bound to "ADDR:PORT"."""
    sockets: list[socket.socket] = []
    host, port = split_endpoint(listen)
    try:
        for _ in range(lanes):
            sock = socket.socket(_family(host), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            sockets.append(sock)
            _prepare(sock, is_shared=lanes > 1, busy_poll_us=busy_poll_us)
            sock.bind((host, port))
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise _bind_error("--listen", listen, "UDP", error) from None
    if lanes > 1:
        _steer_by_lane(sockets[0], lanes)
    return sockets


def open_listener(flag: str, listen: str, *, backlog: int) -> socket.socket:
    """Return a non-blocking TCP socket that listens on "ADDR:PORT", the value of `flag`."""
    host, port = split_endpoint(listen)
    sock: socket.socket | None = None
    try:
        sock = socket.socket(_family(host), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES_MAX)
        sock.bind((host, port))
        sock.listen(backlog)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise _bind_error(flag, listen, "TCP", error) from None
    return sock


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _prepare(sock: socket.socket, *, is_shared: bool, busy_poll_us: int) -> None:
    if is_shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for forced, plain in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
    with contextlib.suppress(OSError):  # Linux before 5.0 has no UDP_GRO: datagrams then arrive one by one
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    # No Don't Fragment: routers before a path of a smaller MTU fragment large packets instead of dropping them.  An
    # IPv6 socket sends IPv4 too, by the IPv4 option.
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
    if busy_poll_us:
        with contextlib.suppress(OSError):  # not every driver has it; above the default it takes CAP_NET_ADMIN
            sock.setsockopt(socket.SOL_SOCKET, SO_BUSY_POLL, busy_poll_us)


def _steer_by_lane(sock: socket.socket, lanes: int) -> None:
    """Attach a BPF program that returns a socket's index: (byte 8 of the payload & 15) % lanes.

    A shorter datagram goes to lane 0, which refuses it.
    """
    instructions = b"".join(
        struct.pack("HBBI", code, 0, 0, operand)
        for code, operand in (
            (0x30, SEQUENCE_TOP_BYTE),  # ldb [8]
            (0x54, 15),  # and #15: lane of data and of probes alike
            (0x94, lanes),  # mod #lanes
            (0x16, 0),  # ret a
        )
    )
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("HL", len(instructions) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)


def _bind_error(flag: str, listen: str, protocol: str, error: OSError) -> PipelineError:
    host, port = split_endpoint(listen)
    where = f"{flag} {join_endpoint(host, port)}"
    if isinstance(error, socket.gaierror):  # of a literal address only the interface of its scope id can be absent
        return PipelineError(f"{where}: no interface {host.partition('%')[2]} on this host")
    if error.errno == errno.EINVAL and "%" not in host:  # the kernel needs the interface of a link-local address
        return PipelineError(f"{where}: {host} is valid on one link only: name its interface: {host}%eth0")
    if error.errno == errno.EAFNOSUPPORT:
        return PipelineError(f"{where}: the kernel has no IPv6: give an IPv4 address")
    if error.errno == errno.EADDRINUSE:
        return PipelineError(f"{where}: {protocol} port {port} is in use: stop the other program or choose another")
    if error.errno == errno.EADDRNOTAVAIL:
        return PipelineError(f"{where}: no interface of this host has the address {host}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(f"{where}: no permission for {protocol} port {port}")
    return PipelineError(f"{where}: {os.strerror(error.errno or 0)}")
