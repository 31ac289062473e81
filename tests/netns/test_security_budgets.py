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
from pipeline.messages import Hello, NodeRecord, encode_unsigned
from tests.netns.network import Network, fresh_group, wait_route
from tests.netns.traffic import Receiver, Sender

MakeNetwork = Callable[..., Network]
Measured = Callable[..., None]
INVENTED_NODES = 900
"""Fewer than a directory holds: each Hello requests the records of all the others."""
ATTACK_S = 10
STATUS_S, JOIN_S = 1.0, 2.0


def expensive_hello(number: int, dialled: str, *, is_sealed: bool) -> bytes:
    """Return the next Hello of an invented node, which requests all records; the first of a node also goes to peers."""
    node_id, endpoint = 1000 + number % INVENTED_NODES, f"10.99.9.{number % 250 + 1}:{number % INVENTED_NODES + 1000}"
    record = NodeRecord(
        node_id=node_id, name=f"invented{node_id}", incarnation=1, version=1, addresses=(), lanes=1, endpoint=endpoint,
        key_epoch=0, sender_key=bytes(32) if is_sealed else b"", engine="mesh", explicit_addresses=False,
    )  # fmt: skip
    number_of_node = 1 + number // INVENTED_NODES
    hello = Hello(
        sender=node_id, incarnation=1, endpoint=endpoint, number=number_of_node, record=record, dialled=dialled
    )
    return encode_unsigned(hello)


@contextmanager
def attack(
    network: Network, attacker: Instance, target: Instance, *, connections: int, rate_per_s: int
) -> Iterator[None]:
    """Send Hellos of invented nodes from the attacker's host, on each connection in turn."""
    curve = bus.derive_curve_keys(load_network_key(network.key)) if network.key is not None else None
    endpoint = f"{target.host.underlay}:4747"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with attacker.host.enter():
        opened = [bus.peer_sender(context, endpoint, curve) for _ in range(connections)]
        first = expensive_hello(0, endpoint, is_sealed=network.sealed)
        for connection in opened:
            wait_until(lambda: bus.send(connection, first), 5, "the attacker has a connection")  # noqa: B023
    ended = threading.Event()

    def send() -> None:
        began, number = time.monotonic(), 0
        while not ended.wait(max(0.0, began + number / rate_per_s - time.monotonic())):
            number += 1
            bus.send(opened[number % connections], expensive_hello(number, endpoint, is_sealed=network.sealed))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        context.destroy(linger=0)


def status_delays_s(target: Instance, seconds: float) -> Iterator[float]:
    """Request the status again and again; yield the delay of each reply."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        target.request("status", timeout_s=60.0)
        yield time.monotonic() - began
        time.sleep(0.05)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "insecure"])
def test_expensive_messages_do_not_starve_control(
    make_network: MakeNetwork, measured: Measured, *, sealed: bool
) -> None:
    """Goal: a member that sends expensive messages delays neither the command line nor a program that joins, and takes
    no link of others down.
    Method: a program with the network key sends 415 Hellos a second of invented nodes on one connection, then 1,660 a
    second on 20 connections; each requests all records.  `status` of the target replies within 1 s all the time, a
    stream to it is complete, and a program on it joins another group."""
    network = make_network(3, sealed=sealed)
    source, target, attacker = network.instances
    group, joined_late = fresh_group(), fresh_group()
    receiver = Receiver(target.host, group)
    wait_route(source, group, [target])
    sender = Sender(source.host, group, mbit=2, seconds=10 * ATTACK_S)
    delays_s: dict[int, float] = {}
    for connections, rate_per_s in ((1, 415), (20, 1660)):
        with attack(network, attacker, target, connections=connections, rate_per_s=rate_per_s):
            delays_s[connections] = max(status_delays_s(target, ATTACK_S))
            late = Receiver(target.host, joined_late)
            began = time.monotonic()
            wait_route(source, joined_late, [target], 10.0)
            join_s = time.monotonic() - began
            late.stop()
    measured(**{f"status_{count}_connections_s": each for count, each in delays_s.items()}, join_s=join_s)
    assert sender.process.alive(), "the stream ended before the attack"
    sent = sender.stop()
    receiver.account().assert_perfect(sent)
    assert max(delays_s.values()) <= STATUS_S
    assert join_s <= JOIN_S
    assert {link["peer"] for link in target.show("links") if link["state"] == "up"} >= {source.name}
