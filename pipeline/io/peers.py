"""Sockets between this node's control process and those of its peers, by one network key, or by two in a rollover.

    one key     one ROUTER on the control port, one DEALER for each peer
    two keys    one ROUTER for each key on the same port: either may accept a connection.  A caller with the other key
                fails and connects again.  Established connections stay.  One DEALER for each peer and key: a message
                goes by the newest key that has a connection

Keys have numbers, the newest the highest; a message comes with the number of the key that its sender has proved to
have.  Control decides which keys are valid (control/network_key.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

import zmq
from zmq.auth.asyncio import AsyncioAuthenticator

from pipeline import limits
from pipeline.io import bus
from pipeline.io.bus import Batch
from pipeline.io.dials import Dials
from pipeline.messages import protocol_of

ANSWER_CHECK_S = 0.02
"""Time between two looks whether a connection stands: ZeroMQ has no event that costs less."""


@dataclass(slots=True)
class _Key:
    curve: bus.CurveKeys | None
    router: zmq.Socket[bytes]
    failures: zmq.Socket[bytes]


class PeerSockets:
    """Sockets to and from all peers; create it in control's event loop."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        listener: int,
        listen: str,
        dials: Dials,
        handle_messages: Callable[[int, Batch], None],
        handle_failures: Callable[[Batch], None],
        pause_s: Callable[[], float],
    ) -> None:
        """Use copies of the descriptor `listener`.

        `handle_messages` is called with the number of a key and messages that came by it, `handle_failures` with failed
        handshakes.  `pause_s` returns the time for which no messages may be read.
        """
        self._context = context
        self._listener = listener
        self._listen = listen
        self._dials = dials
        self._handle_messages = handle_messages
        self._handle_failures = handle_failures
        self._pause_s = pause_s
        self._loop = asyncio.get_running_loop()
        self._keys: dict[int, _Key] = {}
        self._senders: dict[str, dict[tuple[int, int], zmq.Socket[bytes]]] = {}
        """By endpoint, then by number of the key and protocol: a node of an older protocol cuts a connection off on
        which it gets messages of a newer one."""
        self._tried_once: set[str] = set()
        """Endpoints that had not answered when their sockets were opened: these connect only once."""
        self._authenticator: AsyncioAuthenticator | None = None

    # ---------------------------------------------------------------- keys

    def add(self, number: int, network_key: bytes | None) -> None:
        """Accept connections by that key, and connect by it, from now on; None: without a key."""
        curve = bus.derive_curve_keys(network_key) if network_key else None
        domain = f"{bus.DOMAIN}.{number}"
        if curve is not None:
            if self._authenticator is None:
                self._authenticator = bus.authenticator(self._context)
            bus.admit(self._authenticator, domain, curve)
        router = bus.peer_receiver(self._context, os.dup(self._listener), self._listen, curve, domain)
        failures = bus.failed_handshakes(router)
        bus.attach(self._loop, router, lambda batch: self._handle_messages(number, batch), pause_s=self._pause_s)
        bus.attach(self._loop, failures, self._handle_failures)
        self._keys[number] = _Key(curve, router, failures)

    def drop(self, number: int) -> None:
        """Close all connections by that key."""
        key = self._keys.pop(number)
        for sock in (key.failures, key.router):
            self._loop.remove_reader(sock.FD)
        key.router.disable_monitor()
        key.router.close(linger=0)
        for senders in self._senders.values():
            for kind in [kind for kind in senders if kind[0] == number]:
                senders.pop(kind).close(linger=0)

    def numbers(self) -> list[int]:
        """Return the numbers of the keys in use, the newest first."""
        return sorted(self._keys, reverse=True)

    # ---------------------------------------------------------------- sending

    def send(self, endpoint: str, data: bytes) -> None:
        """Send to "ADDR:PORT" without waiting.

        The message is lost if there is no connection yet; ZMQError if there cannot be one.
        """
        if endpoint not in self._senders and not self._open(endpoint):
            return
        if self._send(endpoint, data):
            self._dials.answered(endpoint)
        elif endpoint in self._tried_once and self._dials.is_free(endpoint):
            self.close_sender(endpoint)  # it had answered: connect again without the long wait
            self._open(endpoint)

    def _open(self, endpoint: str) -> bool:
        """Begin to connect to an endpoint; return False if it is put off."""
        now = self._loop.time()
        if not self._dials.begin(endpoint, now):
            return False
        if len(self._senders) >= 2 * limits.NODES_MAX:
            self.close_sender(next(iter(self._senders)))
        self._senders[endpoint] = {}
        if not self._dials.is_free(endpoint):
            self._tried_once.add(endpoint)
            self._loop.call_later(ANSWER_CHECK_S, self._await_answer, endpoint, now)
        return True

    def _send(self, endpoint: str, data: bytes) -> bool:
        senders, is_repeated, protocol = self._senders[endpoint], endpoint not in self._tried_once, protocol_of(data)
        for number in self.numbers():
            if (number, protocol) not in senders:
                curve = self._keys[number].curve
                senders[number, protocol] = bus.peer_sender(
                    self._context, endpoint, curve, protocol=protocol, is_repeated=is_repeated
                )
        return any(bus.send(senders[number, protocol], data) for number in self.numbers())

    def _await_answer(self, endpoint: str, since: float) -> None:
        """Close the connections to an endpoint that has not answered in time."""
        senders = self._senders.get(endpoint)
        if senders is None or self._dials.is_free(endpoint):
            return
        if any(sender.poll(0, zmq.POLLOUT) for sender in senders.values()):
            self._dials.answered(endpoint)
        elif self._loop.time() >= since + limits.DIAL_ANSWER_S:
            self.close_sender(endpoint)
        else:
            self._loop.call_later(ANSWER_CHECK_S, self._await_answer, endpoint, since)

    def close_sender(self, endpoint: str, protocol: int | None = None) -> None:
        """Close the connections to an endpoint, or those for one protocol."""
        senders = self._senders.get(endpoint, {})
        for kind in [kind for kind in senders if protocol in (None, kind[1])]:
            senders.pop(kind).close(linger=0)
        if not senders:
            self._tried_once.discard(endpoint)
            self._senders.pop(endpoint, None)

    def close(self, linger_ms: int) -> None:
        """Close all connections; messages that wait have that long to leave."""
        for senders in self._senders.values():
            for sender in senders.values():
                sender.close(linger=linger_ms)
        if self._authenticator is not None:
            self._authenticator.stop()
