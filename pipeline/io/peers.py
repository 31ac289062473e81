"""The sockets between this node's control process and the others', for one network key or for two while one succeeds
the other.

    one key     one ROUTER on the control port, one DEALER for each peer
    two keys    a ROUTER each on the same port: whoever accepts a connection tries its key, and who calls with the other
                one calls again.  Established connections are not touched.  A DEALER for each peer and key: messages go
                by that of the newest key which has a connection

Keys have numbers, the newest the highest; a message comes with the number of the key that its sender has proved to
know.  It decides nothing: which keys, and when, is control's affair.
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
from pipeline.token_bucket import TokenBucket

Batch = list[list[zmq.Frame]]


class MessageRates:
    """How many messages each connection may send: a token bucket each, with a bound on the connections remembered."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, TokenBucket] = {}
        """Least recently used first."""

    def allows(self, connection: bytes, now: float) -> bool:
        """Whether one more may be looked at now."""
        bucket = self._buckets.pop(connection, None)
        if bucket is None:
            bucket = TokenBucket(rate_per_s=limits.MESSAGES_PER_S, burst=limits.MESSAGE_BURST, now=now)
        if len(self._buckets) >= 2 * limits.NODES_MAX:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[connection] = bucket
        return bucket.take(1, now)


@dataclass(slots=True)
class _Key:
    curve: bus.CurveKeys | None
    router: zmq.Socket[bytes]
    failures: zmq.Socket[bytes]


class PeerSockets:
    """Made in control's event loop."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        listener: int,
        listen: str,
        handle_messages: Callable[[int, Batch], None],
        handle_failures: Callable[[Batch], None],
    ) -> None:
        """Use copies of the descriptor `listener`.

        `handle_messages` is called with the number of a key and messages that came by it, `handle_failures` with failed
        handshakes.
        """
        self._context = context
        self._listener = listener
        self._listen = listen
        self._handle_messages = handle_messages
        self._handle_failures = handle_failures
        self._loop = asyncio.get_running_loop()
        self._keys: dict[int, _Key] = {}
        self._senders: dict[str, dict[int, zmq.Socket[bytes]]] = {}
        self._authenticator: AsyncioAuthenticator | None = None

    # ---------------------------------------------------------------- keys

    def add(self, number: int, network_key: bytes | None) -> None:
        """From now on nodes with that key are let in, and called; None: everybody is."""
        curve = bus.derive_curve_keys(network_key) if network_key else None
        domain = f"{bus.DOMAIN}.{number}"
        if curve is not None:
            if self._authenticator is None:
                self._authenticator = bus.authenticator(self._context)
            bus.admit(self._authenticator, domain, curve)
        router = bus.peer_receiver(self._context, os.dup(self._listener), self._listen, curve, domain)
        failures = bus.failed_handshakes(router)
        bus.attach(self._loop, router, lambda batch: self._handle_messages(number, batch))
        bus.attach(self._loop, failures, self._handle_failures)
        self._keys[number] = _Key(curve, router, failures)

    def drop(self, number: int) -> None:
        """Nodes that know only that key are cut off."""
        key = self._keys.pop(number)
        for sock in (key.failures, key.router):
            self._loop.remove_reader(sock.FD)
        key.router.disable_monitor()
        key.router.close(linger=0)
        for senders in self._senders.values():
            sender = senders.pop(number, None)
            if sender is not None:
                sender.close(linger=0)

    def numbers(self) -> list[int]:
        """The keys in use, the newest first."""
        return sorted(self._keys, reverse=True)

    # ---------------------------------------------------------------- sending

    def send(self, endpoint: str, data: bytes) -> None:
        """To "ADDR:PORT", without waiting; lost if there is no connection yet.  ZMQError if there cannot be one."""
        senders = self._senders.get(endpoint)
        if senders is None:
            if len(self._senders) >= 2 * limits.NODES_MAX:
                self.close_sender(next(iter(self._senders)))
            senders = self._senders[endpoint] = {}
        for number in self.numbers():
            if number not in senders:
                senders[number] = bus.peer_sender(self._context, endpoint, self._keys[number].curve)
        for number in self.numbers():
            if bus.send(senders[number], data):
                return

    def close_sender(self, endpoint: str) -> None:
        """Nobody at that endpoint is spoken to any more."""
        for sender in self._senders.pop(endpoint, {}).values():
            sender.close(linger=0)

    def close(self, linger_ms: int) -> None:
        """The end: what was said last has so long to leave."""
        for senders in self._senders.values():
            for sender in senders.values():
                sender.close(linger=linger_ms)
        if self._authenticator is not None:
            self._authenticator.stop()
