"""Goal: a control connection to a host that has gone, or from an address that we have lost, ends soon.

Method: the options of the sockets, as a kernel's own patience of a quarter of an hour is too long for a test.
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


def test_what_is_sent_and_not_acknowledged_ends_the_connection(context: zmq.Context) -> None:
    with bus.peer_sender(context, "127.0.0.1:9", None) as sender:
        assert sender.getsockopt(zmq.TCP_MAXRT) == bus.UNACKNOWLEDGED_MS


def test_who_says_nothing_any_more_is_asked(context: zmq.Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        with bus.peer_receiver(context, os.dup(listener.fileno()), endpoint, None, "") as receiver:
            assert receiver.getsockopt(zmq.TCP_KEEPALIVE) == 1
            assert receiver.getsockopt(zmq.TCP_KEEPALIVE_IDLE) == bus.KEEPALIVE_IDLE_S
