"""Goal: the underlay of large simulations delays, queues, loses and retransmits as real links do.

Method: many datagrams or messages between two hosts, counted.
"""

from __future__ import annotations

import random

from pipeline.sim import topology
from pipeline.sim.clock import Clock
from pipeline.sim.underlay import Underlay

HOSTS = {"a": 0, "b": 1}


def test_access_link_queues_and_drops() -> None:
    """Goal: a full queue drops, and order is kept.  Method: 50 datagrams at once."""
    clock, arrived = Clock(), []
    places = topology.Plane(2, random.Random(1))
    underlay = Underlay(clock, random.Random(1), places, HOSTS, bandwidth_bps=1e6)
    for number in range(50):
        underlay.send_packet(0, 1, 1250, arrived.append, number)
    clock.run_until(5)
    assert arrived == list(range(len(arrived)))
    assert 20 <= len(arrived) < 30, "the queue holds 200 ms, and a datagram takes 10 ms"
    assert underlay.packets_lost == 50 - len(arrived)


def test_lost_control_message_is_retransmitted() -> None:
    """Goal: control has the delays of TCP.

    Method: 1,000 messages at 10 % loss.  All arrive, about 10 % of them 0.2 s later and 1 % 0.6 s later.
    """
    clock, late_s = Clock(), []
    places = topology.Plane(2, random.Random(1))
    underlay = Underlay(clock, random.Random(1), places, HOSTS, loss=0.1)
    underlay.attach(("b", "control"), lambda *_: late_s.append(clock.now - places.delay_s(0, 1)))
    for _ in range(1000):
        underlay.send("a", ("b", "control"), b"message")
    clock.run_until(60)
    assert len(late_s) == 1000
    assert 60 < sum(each > 0.1 for each in late_s) < 140
    assert 2 < sum(each > 0.5 for each in late_s) < 30


def test_partition_cuts_packets_and_control_until_it_heals() -> None:
    """Goal: hosts of different sides exchange nothing meanwhile.  Method: one of each kind before and after."""
    clock, arrived = Clock(), []
    underlay = Underlay(clock, random.Random(1), topology.Plane(2, random.Random(1)), HOSTS)
    underlay.attach(("b", "control"), lambda _, message: arrived.append(message))

    def send(kind: str) -> None:
        underlay.send("a", ("b", "control"), f"message {kind}".encode())
        underlay.send_copies(0, [(0.01, lambda packet, _: arrived.append(packet), 1)], 100, (f"packet {kind}", 0))
        clock.run_until(clock.now + 1)

    underlay.partition([1])
    send("cut")
    underlay.heal()
    send("healed")
    assert sorted(map(str, arrived)) == sorted(map(str, [b"message healed", "packet healed"]))
