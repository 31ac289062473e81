"""Goal: a control connection ends soon if the peer is gone, or if this host has lost the address.

Method: the options of the sockets, because the kernel's own timeouts are too long for a test.
"""

from __future__ import annotations

import os
import socket

import pytest
import zmq

from pipeline.io import bus


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
