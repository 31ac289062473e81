"""ZeroMQ sockets: between nodes over TCP with CURVE, within the host over ipc.

Each node has one ROUTER to receive from all peers and one DEALER to send to each peer; a reply goes out by the DEALER
to its receiver.  All nodes share the two key pairs that are derived from the network key.  Without that key a client
cannot complete the handshake, because the server's public key is published nowhere, and no client is admitted, because
the authenticator accepts a single client key.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import zmq
import zmq.asyncio
import zmq.utils.z85
from zmq.auth.asyncio import AsyncioAuthenticator
from zmq.utils import monitor

from pipeline import limits
from pipeline.keys import file as key_file
from pipeline.messages import PROTOCOLS

HANDSHAKE_MS = 2000
RECONNECT_MS, RECONNECT_MAX_MS = 50, 5000
UNACKNOWLEDGED_MS = 5000
"""Time for a peer to acknowledge data, after which the connection is made anew: the peer is gone, or this host has
another address.  TCP itself waits a quarter of an hour, and after a long partition for its next retransmission."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 60, 10, 3
"""A caller that vanished without closing its connection holds a descriptor for 90 s."""
SEND_QUEUE = 4096
"""Messages to one peer that wait for the network; further ones are dropped, and anti-entropy makes up for them."""
RECEIVE_QUEUE = 64
"""Messages of one peer that wait for control, of at most 1 MiB each; further ones wait at the peer.  All of 65,536
groups are some ten messages, a full directory four."""
PUNT_QUEUE = 32768
"""Punts in the worker's half and in control's half of the queue.  Together they hold a report of each of GROUPS_MAX
groups, so that no report of a burst is lost while control is busy.  With an MTU of 1,500 bytes that is 100 MB."""
BATCH = 256
"""Messages read from a socket before other descriptors are served."""
DOMAIN = "mcast-pipeline"
MARK, MARK_RANDOM_BYTES = b"mcast-protocols", 12
"""Beginning of a connection's id that names oldest and newest protocol of the caller, and length of its random end."""

Batch: TypeAlias = Iterator[list[zmq.Frame]]
"""Multipart messages, each read when it is taken."""


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """Key pairs in z85: one of all ROUTERs and one of all DEALERs of the network."""

    server_public: bytes
    server_secret: bytes
    client_public: bytes
    client_secret: bytes


def derive_curve_keys(network_key: bytes) -> CurveKeys:
    """Return the two key pairs of a network."""
    server = zmq.utils.z85.encode(key_file.derive(network_key, "control link, server"))
    client = zmq.utils.z85.encode(key_file.derive(network_key, "control link, client"))
    return CurveKeys(zmq.curve_public(server), server, zmq.curve_public(client), client)


class _OneClient:
    """Credentials provider that admits the one client key of a network."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, _domain: str, key: bytes) -> bool:
        return key == self._public


def authenticator(context: zmq.Context[zmq.Socket[bytes]]) -> AsyncioAuthenticator:
    """Start the authenticator of the context's CURVE sockets; call this before they are bound."""
    quiet = logging.getLogger("pipeline.curve")
    quiet.setLevel(logging.CRITICAL)  # `failed_handshakes` reports failed handshakes
    started = AsyncioAuthenticator(zmq.asyncio.Context(context), log=quiet)
    started.start()
    return started


def admit(authenticator: AsyncioAuthenticator, domain: str, curve: CurveKeys) -> None:
    """Admit the client key of `curve`, and no other, to the sockets of a domain."""
    authenticator.configure_curve_callback(domain, credentials_provider=_OneClient(curve.client_public))


# ---------------------------------------------------------------- between nodes


def peer_receiver(
    context: zmq.Context[zmq.Socket[bytes]], fd: int, endpoint: str, curve: CurveKeys | None, domain: str
) -> zmq.Socket[bytes]:
    """Return a ROUTER on a listening descriptor, which ZeroMQ closes with the socket."""
    sock = context.socket(zmq.ROUTER)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.USE_FD, fd)
    sock.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    sock.setsockopt(zmq.MAXMSGSIZE, limits.MESSAGE_BYTES_MAX)
    sock.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE)
    sock.setsockopt(zmq.TCP_KEEPALIVE, 1)
    sock.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT)
    sock.setsockopt(zmq.IPV6, int(endpoint.startswith("[")))
    if curve:
        sock.setsockopt(zmq.CURVE_SERVER, 1)
        sock.setsockopt(zmq.CURVE_SECRETKEY, curve.server_secret)
        sock.setsockopt(zmq.CURVE_PUBLICKEY, curve.server_public)
        sock.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
    sock.bind(f"tcp://{endpoint}")  # takes the descriptor, which is bound already
    return sock


def peer_sender(
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    curve: CurveKeys | None,
    *,
    protocol: int = 0,
    is_repeated: bool = True,
) -> zmq.Socket[bytes]:
    """Return a DEALER to "ADDR:PORT"; it queues nothing while it is not connected.

    It reconnects for ever; if not `is_repeated`, it connects once.  A connection for a `protocol` that is not the
    newest is marked, so that a node of this version, which gets messages of the newest one on another connection,
    ignores it.
    """
    sock = context.socket(zmq.DEALER)
    if 0 < protocol < PROTOCOLS[1]:
        sock.setsockopt(zmq.ROUTING_ID, MARK + bytes(PROTOCOLS) + secrets.token_bytes(MARK_RANDOM_BYTES))
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.IMMEDIATE, 1)
    sock.setsockopt(zmq.SNDHWM, SEND_QUEUE)
    sock.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS if is_repeated else -1)
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    sock.setsockopt(zmq.CONNECT_TIMEOUT, HANDSHAKE_MS)
    sock.setsockopt(zmq.TCP_MAXRT, UNACKNOWLEDGED_MS)
    sock.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    sock.setsockopt(zmq.IPV6, int(endpoint.startswith("[")))
    if curve:
        sock.setsockopt(zmq.CURVE_SERVERKEY, curve.server_public)
        sock.setsockopt(zmq.CURVE_SECRETKEY, curve.client_secret)
        sock.setsockopt(zmq.CURVE_PUBLICKEY, curve.client_public)
    sock.connect(f"tcp://{endpoint}")
    return sock


def newest_protocol(connection: bytes) -> int:
    """Return the newest protocol that the other end of a connection speaks, by its mark; 0 without a mark."""
    is_marked = connection.startswith(MARK) and len(connection) > len(MARK) + 1
    return connection[len(MARK) + 1] if is_marked else 0


def failed_handshakes(sock: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """Return a socket with an event for each failed handshake; `read_failure` reads an event."""
    return sock.get_monitor_socket(
        zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_AUTH
    )


def read_failure(parts: list[zmq.Frame]) -> str:
    """Return the word for what was wrong with a handshake: "auth", "protocol" or "no_detail"."""
    event = monitor.parse_monitor_message([part.bytes for part in parts])["event"]
    return str(zmq.Event(event).name).lower().removeprefix("handshake_failed_")


def send(sock: zmq.Socket[bytes], data: bytes) -> bool:
    """Send without waiting; return False if there is no connection, or its queue is full."""
    try:
        sock.send(data, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True


# ---------------------------------------------------------------- within the host


def punt_sender(endpoint: str) -> zmq.Socket[bytes]:
    """Return a worker's PUSH socket to control.  Its context is new, as a context must not be used after a fork."""
    sock: zmq.Socket[bytes] = zmq.Context().socket(zmq.PUSH)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.SNDHWM, PUNT_QUEUE)
    sock.setsockopt(zmq.RECONNECT_IVL, 10)
    sock.connect(endpoint)
    return sock


def punt_receiver(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """Return control's PULL socket for punts."""
    sock = context.socket(zmq.PULL)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.RCVHWM, PUNT_QUEUE)
    _bind(sock, endpoint)
    return sock


def request_receiver(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """Return control's socket for requests of the command line.  A ROUTER serves others after a malformed request."""
    sock = context.socket(zmq.ROUTER)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.MAXMSGSIZE, limits.MESSAGE_BYTES_MAX)
    _bind(sock, endpoint)
    return sock


def _bind(sock: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind an ipc socket, which the directory's mode 0700 protects."""
    Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)  # left by a control process that was killed
    sock.bind(endpoint)


# ---------------------------------------------------------------- in an event loop


def attach(
    loop: asyncio.AbstractEventLoop,
    sock: zmq.Socket[bytes],
    handle: Callable[[Batch], None],
    *,
    pause_s: Callable[[], float] = lambda: 0.0,
) -> Callable[[], None]:
    """Call `handle` with batches of multipart messages as they arrive.

    ZeroMQ's descriptor reports changes only, so the socket is read until it is empty, in batches between which other
    descriptors are served.  A message is read when `handle` takes it from the batch; those that it leaves are in the
    next one.  Nothing is read for the seconds that `pause_s` returns before a batch.  The returned function must be
    called after sending on the same socket.
    """
    descriptor = sock.FD
    is_empty = False
    next_read: asyncio.Handle | None = None

    def read() -> None:
        nonlocal next_read
        if next_read is not None:
            next_read.cancel()
            next_read = None
        if sock.closed:
            return
        delay_s = pause_s()
        if delay_s > 0:
            loop.remove_reader(descriptor)  # a descriptor that is readable and not read would keep the loop busy
            read_after(delay_s)
            return
        batch = messages()
        try:
            first = next(batch, None)
            if first is not None:
                handle(itertools.chain([first], batch))
        finally:  # also after an error: the others have to be read
            if is_empty:
                loop.add_reader(descriptor, read)
            else:
                read_after(0.0)

    def messages() -> Batch:
        nonlocal is_empty
        is_empty = False
        for _ in range(BATCH):
            try:
                yield sock.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                is_empty = True
                return

    def read_after(delay_s: float) -> None:
        nonlocal next_read
        if next_read is None:
            next_read = loop.call_later(delay_s, read)

    loop.add_reader(descriptor, read)
    read_after(0.0)  # for messages that came before the reader was added

    return lambda: read_after(0.0)
