"""Goal: a control connection ends soon if the peer is gone, or if this host has lost the address; and a receiver knows
which connections of a peer are for nodes of an older protocol.

Method: the options of the sockets, because the kernel's own timeouts are too long for a test; messages over loopback.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Iterator
from typing import TypeAlias

import pytest
import zmq

from pipeline.io import bus
from pipeline.messages import SIGNED_PROTOCOL, UNSIGNED_PROTOCOL

Pair: TypeAlias = tuple[zmq.Socket, zmq.Socket]


@pytest.fixture
def context() -> zmq.Context:
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


def test_unacknowledged_data_ends_a_connection(context: zmq.Context) -> None:
    """Goal: a sender connects again after UNACKNOWLEDGED_MS.  Method: read the option."""
    with bus.peer_sender(context, "127.0.0.1:9", None) as sender:
        assert sender.getsockopt(zmq.TCP_MAXRT) == bus.UNACKNOWLEDGED_MS


def test_idle_connection_is_probed_by_keepalive(context: zmq.Context) -> None:
    """Goal: a receiver closes the connection of a caller that vanished.  Method: read the options."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        with bus.peer_receiver(context, os.dup(listener.fileno()), endpoint, None, "") as receiver:
            assert receiver.getsockopt(zmq.TCP_KEEPALIVE) == 1
            assert receiver.getsockopt(zmq.TCP_KEEPALIVE_IDLE) == bus.KEEPALIVE_IDLE_S


@pytest.mark.parametrize(
    ("protocol", "newest"), [(0, 0), (UNSIGNED_PROTOCOL, SIGNED_PROTOCOL), (SIGNED_PROTOCOL, 0)], ids=str
)
def test_connection_for_an_older_protocol_shows_the_newest_one(
    context: zmq.Context, protocol: int, newest: int
) -> None:
    """Goal: a node of this version ignores messages of protocol 1 from another one, which sends them as it does not
    know whether this node understands protocol 2.
    Method: two connections for each protocol; the identities that the receiver sees are marked, and differ."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        with bus.peer_receiver(context, os.dup(listener.fileno()), endpoint, None, "") as receiver:
            seen = []
            for _ in range(2):
                with bus.peer_sender(context, endpoint, None, protocol=protocol) as sender:
                    assert sender.poll(3000, zmq.POLLOUT)
                    assert bus.send(sender, b"message")
                    assert receiver.poll(3000)
                    seen.append(receiver.recv_multipart()[0])
    assert seen[0] != seen[1]
    assert [bus.newest_protocol(each) for each in seen] == [newest, newest]


@pytest.mark.parametrize(
    "connection", [b"", b"\0\x6b\x8b\x45\x67", bus.MARK, bus.MARK + b"\1", b"x" + bus.MARK + b"\1\2"]
)
def test_connection_without_a_whole_mark_shows_no_protocol(connection: bytes) -> None:
    """Goal: connections of the previous version, which are not marked, are read.  Method: other identities."""
    assert bus.newest_protocol(connection) == 0


def test_connection_has_a_short_queue(context: zmq.Context) -> None:
    """Goal: messages that control has not read wait at their peer: a connection holds 64 MiB at the most.
    Method: read the options of the receiver and of a sender."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        with bus.peer_receiver(context, os.dup(listener.fileno()), endpoint, None, "") as receiver:
            assert receiver.getsockopt(zmq.RCVHWM) * receiver.getsockopt(zmq.MAXMSGSIZE) <= 64 << 20
    with bus.peer_sender(context, "127.0.0.1:9", None) as sender:
        assert sender.getsockopt(zmq.SNDHWM) == bus.SEND_QUEUE


class Reader:
    """Reader of a socket that takes `taken` messages of each batch and then fails if `error` is set."""

    def __init__(self, taken: int, error: Exception | None = None) -> None:
        self.batches: list[list[bytes]] = []
        self.is_paused = False
        self._taken = taken
        self._error = error

    def handle(self, batch: bus.Batch) -> None:
        self.batches.append([parts[0].bytes for parts in itertools.islice(batch, self._taken)])
        if self._error is not None:
            raise self._error

    def read(self) -> list[bytes]:
        return [message for batch in self.batches for message in batch]


@pytest.fixture
def pair(context: zmq.Context) -> Iterator[Pair]:
    with context.socket(zmq.PULL) as receiver, context.socket(zmq.PUSH) as sender:
        receiver.bind("inproc://test")
        sender.connect("inproc://test")
        yield receiver, sender


@pytest.mark.parametrize("error", [None, ValueError("a bug")])
def test_messages_left_in_a_batch_are_read_next(pair: Pair, error: Exception | None) -> None:
    """Goal: a handler that ends its turn early, or fails, loses no message, and others are served in between.
    Method: ten messages and a handler of three; a task counts the passes of the loop."""
    receiver, sender = pair
    reader = Reader(3, error)
    sent = [bytes([number]) for number in range(10)]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        bus.attach(loop, receiver, reader.handle)
        for message in sent:
            sender.send(message)
        for _ in range(100):
            await asyncio.sleep(0.001)

    asyncio.run(main())
    assert reader.read() == sent
    assert [len(batch) for batch in reader.batches] == [3, 3, 3, 1]


def test_nothing_is_read_during_a_pause(pair: Pair) -> None:
    """Goal: a pause keeps messages in the socket and does not keep the loop busy; all are read after it.
    Method: a pause of 0.1 s; the passes of the loop are counted."""
    receiver, sender = pair
    reader = Reader(10)
    passes = 0

    async def main() -> None:
        nonlocal passes
        loop = asyncio.get_running_loop()
        pause_until = loop.time() + 0.1
        bus.attach(loop, receiver, reader.handle, pause_s=lambda: pause_until - loop.time())
        run_once = loop._run_once

        def counted() -> None:
            nonlocal passes
            passes += 1
            run_once()

        loop._run_once = counted
        for _ in range(5):
            sender.send(b"x")
            await asyncio.sleep(0.01)
        assert reader.read() == []
        assert passes < 50
        await asyncio.sleep(0.2)

    asyncio.run(main())
    assert reader.read() == [b"x"] * 5
