"""Messages of peers that wait until their sender's budget is paid, by connection and in the order of arrival.

Their number and size are bounded.  ZeroMQ cannot leave the messages of a single connection unread, so they wait here;
there is room for what an honest peer sends at once, while a flood fills its own queue and loses the rest.

This module decides nothing about budgets: admission.py sets the time at which each connection may be served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from pipeline import limits
from pipeline.timers import Deadlines


@dataclass(frozen=True, slots=True)
class Sender:
    """Sender of a message, as far as the sockets know it."""

    connection: bytes
    address: str


@dataclass(frozen=True, slots=True)
class Message:
    """Message of a peer as it was received."""

    sender: Sender
    key_number: int
    """Number of the network key by which it came."""
    parts: Sequence[zmq.Frame]
    """Frames of the message."""

    @property
    def memory_bytes(self) -> int:
        """Memory that the message takes while it waits."""
        return limits.DELAYED_OVERHEAD_BYTES + sum(map(len, self.parts))


class DelayedMessages:
    """Queue of each connection with delayed messages, and the time at which it may be served."""

    def __init__(self) -> None:
        self._queues: dict[bytes, deque[Message]] = {}
        self._due: Deadlines[bytes] = Deadlines()
        self._memory_bytes = 0

    def has(self, connection: bytes) -> bool:
        """Return whether messages of the connection wait, after which its next one has to wait too."""
        return connection in self._queues

    def sender(self, connection: bytes) -> Sender:
        """Return the sender of the connection's first message."""
        return self._queues[connection][0].sender

    def add(self, message: Message, due: float) -> bool:
        """Append a message to the queue of its connection; return False if there is no room.

        `due` is the time at which the connection may be served, if this is its only message.
        """
        connection, size = message.sender.connection, message.memory_bytes
        if self._memory_bytes + size > limits.DELAYED_BYTES_MAX:
            return False
        queue = self._queues.get(connection)
        if queue is None:
            queue = self._queues[connection] = deque()
            self._due.set(connection, due)
        if len(queue) >= limits.DELAYED_MESSAGES_MAX:
            return False
        self._memory_bytes += size
        queue.append(message)
        return True

    def set_due(self, connection: bytes, due: float) -> None:
        """Set the time at which the connection may be served."""
        self._due.set(connection, due)

    def pop_due(self, now: float) -> bytes | None:
        """Remove the due time of the connection that has been due for the longest time, and return the connection."""
        return self._due.pop_expired(now)

    def next_due(self) -> float | None:
        """Return the time at which the next connection may be served."""
        return self._due.next_due()

    def take(self, connection: bytes) -> Message:
        """Remove the connection's first message and return it."""
        queue = self._queues[connection]
        message = queue.popleft()
        self._memory_bytes -= message.memory_bytes
        if not queue:
            self.clear(connection)
        return message

    def clear(self, connection: bytes) -> None:
        """Drop all messages of a connection."""
        self._due.clear(connection)
        for message in self._queues.pop(connection, ()):
            self._memory_bytes -= message.memory_bytes
