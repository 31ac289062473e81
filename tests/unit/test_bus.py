"""Goal: a control connection ends soon if the peer is gone, or if this host has lost the address; and a receiver knows
which connections of a peer are for nodes of an older protocol.

Method: the options of the sockets, because the kernel's own timeouts are too long for a test; messages over loopback.
"""

from __future__ import annotations

import os
import socket

import pytest
import zmq

from pipeline.io import bus
from pipeline.messages import SIGNED_PROTOCOL, UNSIGNED_PROTOCOL


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
