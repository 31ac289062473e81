"""The data sockets of the lanes and the control port's listening socket, opened by the supervisor.

All lanes share one port: SO_REUSEPORT, with a program that steers a datagram to the lane that its sequence number's
top byte names, so that each sequence space has one receiver.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import struct

from pipeline.endpoint import join_endpoint, split_endpoint
from pipeline.errors import PermissionDeniedError, PipelineError

BUFFER_BYTES = 16 << 20
"""Of a data socket: 100 ms of 1.3 Gbit/s, while a worker is restarted or the machine is busy elsewhere."""
BACKLOG = 1024
"""Connections that wait while control is restarted: one from every node."""

UDP_GRO, SO_ATTACH_REUSEPORT_CBPF, SO_BUSY_POLL = 104, 51, 46
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT = 10, 23, 0
SEQUENCE_TOP_BYTE = 8
"""Where in the UDP payload the lane stands (design §4)."""


def open_data_sockets(listen: str, lanes: int, *, busy_poll_us: int = 0) -> list[socket.socket]:
    """One non-blocking UDP socket a lane, bound to "ADDR:PORT"."""
    sockets: list[socket.socket] = []
    host, port = split_endpoint(listen)
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    try:
        for _ in range(lanes):
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            sockets.append(sock)
            _prepare(sock, family, shared=lanes > 1, busy_poll_us=busy_poll_us)
            sock.bind((host, port))
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise _bind_error(listen, "UDP", error) from None
    if lanes > 1:
        _steer_by_lane(sockets[0], lanes)
    return sockets


def open_control_socket(listen: str) -> socket.socket:
    """The listening TCP socket, which control hands to ZeroMQ."""
    host, port = split_endpoint(listen)
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_error(listen, "TCP", error) from None
    return sock


def _prepare(sock: socket.socket, family: int, *, shared: bool, busy_poll_us: int) -> None:
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for forced, plain in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
    with contextlib.suppress(OSError):  # Linux < 5.0: received one by one
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    # A path narrower than the interface's MTU fragments instead of losing every large packet.
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
    if busy_poll_us:
        with contextlib.suppress(OSError):  # not all drivers, and more than the default takes CAP_NET_ADMIN
            sock.setsockopt(socket.SOL_SOCKET, SO_BUSY_POLL, busy_poll_us)


def _steer_by_lane(sock: socket.socket, lanes: int) -> None:
    """Socket index = (byte 8 of the payload & 15) % lanes; a shorter datagram goes to lane 0, which refuses it."""
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


def _bind_error(listen: str, protocol: str, error: OSError) -> PipelineError:
    host, port = split_endpoint(listen)
    where = f"--listen {join_endpoint(host, port)}"
    if error.errno == errno.EADDRINUSE:
        return PipelineError(f"{where}: {protocol} port {port} is in use: stop the other program or choose another")
    if error.errno == errno.EADDRNOTAVAIL:
        return PipelineError(f"{where}: no interface of this host has the address {host}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(f"{where}: no permission for {protocol} port {port}")
    return PipelineError(f"{where}: {os.strerror(error.errno or 0)}")
