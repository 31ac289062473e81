"""ZeroMQ sockets: between nodes over TCP with CURVE, within the host over ipc.

Between nodes everyone has one ROUTER to receive on and one send-only DEALER for each peer; an answer goes out by
the DEALER to its addressee.  All nodes share the two key pairs that the network key yields: who does not know it can
neither complete a handshake as client (the server's public key is nowhere to be seen) nor be taken for one of us
(the authenticator admits a single client key).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.asyncio
import zmq.utils.z85
from zmq.auth.asyncio import AsyncioAuthenticator
from zmq.utils import monitor

from pipeline import limits
from pipeline.keys import file as key_file

HANDSHAKE_MS = 2000
RECONNECT_MS, RECONNECT_MAX_MS = 50, 5000
UNACKNOWLEDGED_MS = 5000
"""What a host does not acknowledge for so long, it will not: it has gone, or we have another address.  TCP itself would
wait for a quarter of an hour, and after a long partition for its next try."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 60, 10, 3
"""Who has called us and gone without a word holds a descriptor for a minute and a half."""
SEND_QUEUE = 4096
"""Messages to one peer that the network has not taken yet; more are dropped and repaired by anti-entropy."""
PUNT_QUEUE = 16384
BATCH = 256
"""Messages taken from a socket before others have their turn."""
DOMAIN = "mcast-pipeline"


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """Key pairs in z85: the ROUTER's, which is the same on every node, and that of every DEALER."""

    server_public: bytes
    server_secret: bytes
    client_public: bytes
    client_secret: bytes


def derive_curve_keys(network_key: bytes) -> CurveKeys:
    """The network's two key pairs."""
    server = zmq.utils.z85.encode(key_file.derive(network_key, "control link, server"))
    client = zmq.utils.z85.encode(key_file.derive(network_key, "control link, client"))
    return CurveKeys(zmq.curve_public(server), server, zmq.curve_public(client), client)


class _OneClient:
    """Admits the single client key that a network key yields."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, _domain: str, key: bytes) -> bool:
        return key == self._public


def authenticator(context: zmq.Context[zmq.Socket[bytes]]) -> AsyncioAuthenticator:
    """Starts the authenticator of the context's CURVE sockets; call it before they are bound."""
    quiet = logging.getLogger("pipeline.curve")
    quiet.setLevel(logging.CRITICAL)  # failed handshakes are told by `failed_handshakes`
    found = AsyncioAuthenticator(zmq.asyncio.Context(context), log=quiet)
    found.start()
    return found


def admit(authenticator: AsyncioAuthenticator, domain: str, curve: CurveKeys) -> None:
    """Sockets of that domain admit the client key of `curve` and no other."""
    authenticator.configure_curve_callback(domain, credentials_provider=_OneClient(curve.client_public))


# ---------------------------------------------------------------- between nodes


def peer_receiver(
    context: zmq.Context[zmq.Socket[bytes]], fd: int, endpoint: str, curve: CurveKeys | None, domain: str
) -> zmq.Socket[bytes]:
    """The ROUTER on a listening descriptor, which ZeroMQ closes with the socket."""
    sock = context.socket(zmq.ROUTER)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.USE_FD, fd)
    sock.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    sock.setsockopt(zmq.MAXMSGSIZE, limits.MESSAGE_BYTES_MAX)
    sock.setsockopt(zmq.RCVHWM, SEND_QUEUE)
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
    sock.bind(f"tcp://{endpoint}")  # the descriptor is bound already: nothing but the words
    return sock


def peer_sender(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, curve: CurveKeys | None) -> zmq.Socket[bytes]:
    """A DEALER to "ADDR:PORT"; it reconnects for ever and queues nothing while it is not connected."""
    sock = context.socket(zmq.DEALER)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.IMMEDIATE, 1)
    sock.setsockopt(zmq.SNDHWM, SEND_QUEUE)
    sock.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
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


def failed_handshakes(sock: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """A socket that has an event for each connection that could not prove who it is; read it with `read_failure`."""
    return sock.get_monitor_socket(
        zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_AUTH
    )


def read_failure(parts: list[zmq.Frame]) -> str:
    """The word of such an event: what was wrong with the connection."""
    event = monitor.parse_monitor_message([part.bytes for part in parts])["event"]
    return str(zmq.Event(event).name).lower().removeprefix("handshake_failed_")


def send(sock: zmq.Socket[bytes], data: bytes) -> bool:
    """Sends without waiting; False if there is no connection, or its queue is full."""
    try:
        sock.send(data, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True


# ---------------------------------------------------------------- within the host


def punt_sender(endpoint: str) -> zmq.Socket[bytes]:
    """A worker's PUSH to control, of a context of its own (the worker was forked)."""
    sock: zmq.Socket[bytes] = zmq.Context().socket(zmq.PUSH)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.SNDHWM, PUNT_QUEUE)
    sock.setsockopt(zmq.RECONNECT_IVL, 10)
    sock.connect(endpoint)
    return sock


def punt_receiver(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """Control's end of it."""
    sock = context.socket(zmq.PULL)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.RCVHWM, PUNT_QUEUE)
    _bind(sock, endpoint)
    return sock


def request_receiver(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """Where control takes requests of the command line; ROUTER, so that one that asks nonsense holds nobody up."""
    sock = context.socket(zmq.ROUTER)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.MAXMSGSIZE, limits.MESSAGE_BYTES_MAX)
    _bind(sock, endpoint)
    return sock


def _bind(sock: zmq.Socket[bytes], endpoint: str) -> None:
    """Binds an ipc socket; the directory, mode 0700, guards it."""
    Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)  # of a control that died
    sock.bind(endpoint)


# ---------------------------------------------------------------- in an event loop


def attach(
    loop: asyncio.AbstractEventLoop, sock: zmq.Socket[bytes], handle: Callable[[list[list[zmq.Frame]]], None]
) -> Callable[[], None]:
    """Calls `handle` with batches of multipart messages as they arrive.

    ZeroMQ's descriptor tells of changes only, so a socket is read until it is empty, in batches between which
    other descriptors have their turn.  Returns a function to be called after sending on the same socket.
    """

    def read() -> None:
        if sock.closed:
            return
        batch: list[list[zmq.Frame]] = []
        try:
            while len(batch) < BATCH:
                batch.append(sock.recv_multipart(zmq.DONTWAIT, copy=False))
        except zmq.Again:
            pass
        else:
            loop.call_soon(read)
        if batch:
            handle(batch)

    loop.add_reader(sock.FD, read)
    loop.call_soon(read)  # for what came before the loop watched

    def look_again() -> None:
        loop.call_soon(read)

    return look_again
