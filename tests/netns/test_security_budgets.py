"""Budgets of a member's messages: what one member with a modified program can take of another node's control."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import zmq

from pipeline.io import bus
from pipeline.keys.file import load_network_key
from pipeline.lab.instance import Instance
from pipeline.lab.programs import wait_until
from pipeline.messages import DirectorySummary, Hello, NodeRecord, encode_node
from tests.netns.network import Network, fresh_group, wait_route
from tests.netns.traffic import Receiver, Sender

MakeNetwork = Callable[..., Network]
Measured = Callable[..., None]
MESSAGES_PER_S = 900
"""Below what the number of messages alone would allow."""
EXPENSIVE_S, ATTACK_MAX_S = 15, 90
ENDPOINT = "10.99.9.1:1000"
STATUS_S, JOIN_S = 1.0, 2.0


def expensive_message(number: int, dialled: str) -> bytes:
    """Return a Hello of an invented node, or a DirectorySummary of the first one: each requests all records."""
    if number % 2:
        summary = DirectorySummary(sender=1000, incarnation=1, endpoint=ENDPOINT, entries=[], is_reply_requested=False)
        return encode_node(summary)
    endpoint = f"10.99.9.{number % 250 + 1}:{number % 60_000 + 1000}" if number else ENDPOINT
    record = NodeRecord(
        node_id=1000 + number, name=f"invented{number}", incarnation=1, version=1, addresses=(), lanes=1,
        endpoint=endpoint, key_epoch=0, sender_key=bytes(32), engine="mesh", explicit_addresses=False,
    )  # fmt: skip
    return encode_node(
        Hello(sender=1000 + number, incarnation=1, endpoint=endpoint, number=1, record=record, dialled=dialled)
    )


@contextmanager
def attack(network: Network, attacker: Instance, target: Instance) -> Iterator[None]:
    """Send expensive messages from the attacker's host, and then a flood of cheap ones, on one connection."""
    assert network.key is not None
    curve = bus.derive_curve_keys(load_network_key(network.key))
    endpoint = f"{target.host.underlay}:4747"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with attacker.host.enter():
        connection = bus.peer_sender(context, endpoint, curve)
        first = expensive_message(0, endpoint)
        wait_until(lambda: bus.send(connection, first), 3, "the attacker has a connection")
    ended = threading.Event()

    def send() -> None:
        began = time.monotonic()
        for number in range(1, MESSAGES_PER_S * EXPENSIVE_S):
            if ended.wait(max(0.0, began + number / MESSAGES_PER_S - time.monotonic())):
                return
            bus.send(connection, expensive_message(number, endpoint))
        while not ended.is_set():
            if not bus.send(connection, first):
                time.sleep(0.001)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        context.destroy(linger=0)


@pytest.mark.timeout(180)
def test_expensive_messages_do_not_starve_control(make_network: MakeNetwork, measured: Measured) -> None:
    """Goal: a member that sends 900 expensive messages a second delays neither the command line nor a program that
    joins, and takes no link of others down.
    Method: a program with the network key sends messages of invented nodes that request all records, and then one
    Hello as fast as it can, until some were over budget and dropped.  `status` of the target replies within 1 s all the
    time, a stream to it is complete, a program on it joins another group."""
    network = make_network(3)
    source, target, attacker = network.instances
    group, joined_late = fresh_group(), fresh_group()
    receiver = Receiver(target.host, group)
    wait_route(source, group, [target])
    sender = Sender(source.host, group, mbit=2, seconds=2 * ATTACK_MAX_S)
    replies_s: list[float] = []
    join_s: float | None = None
    refused = 0
    with attack(network, attacker, target):
        attacked_at = time.monotonic()
        while not refused:
            assert time.monotonic() < attacked_at + ATTACK_MAX_S, "no message was over budget"
            began = time.monotonic()
            target.request("status", timeout_s=60.0)
            replies_s.append(time.monotonic() - began)
            if join_s is None and time.monotonic() > attacked_at + 3:
                late = Receiver(target.host, joined_late)
                began = time.monotonic()
                wait_route(source, joined_late, [target], 5.0)
                join_s = time.monotonic() - began
                late.stop()
            time.sleep(0.05)
            refused = target.show("counters")["refused"]["message_rate"]
        measured(status_max_s=max(replies_s), join_s=join_s, attack_s=time.monotonic() - attacked_at, refused=refused)
    assert sender.process.alive(), "the stream ended before the attack"
    sent = sender.stop()
    receiver.account().assert_perfect(sent)
    assert max(replies_s) <= STATUS_S
    assert join_s is not None
    assert join_s <= JOIN_S
    assert {link["peer"] for link in target.show("links") if link["state"] == "up"} >= {source.name}
