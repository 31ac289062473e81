"""Peers whose UDP endpoint changes while streams run."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.shm._native import ffi, lib

from pipeline.lab.instance import Instance
from pipeline.lab.netns import Host
from pipeline.lab.programs import require, wait_until
from pipeline.shm.region import Region
from tests.netns.network import Network, fresh_group, wait_route
from tests.netns.traffic import Receiver, Sender

MakeNetwork = Callable[..., Network]
NEW_PORT = 61000
REBOUND = f"""
table ip rebound {{
    chain out {{ type filter hook postrouting priority mangle; udp sport 4747 udp sport set {NEW_PORT}; }}
    chain in {{ type filter hook prerouting priority mangle; udp dport {NEW_PORT} udp dport set 4747; }}
}}
"""
CLOSED = "insert rule ip rebound in udp dport 4747 drop\n"


def data_ports(instance: Instance) -> set[int]:
    """Return the ports to which a node sends datagrams."""
    region = Region.attach(instance.name)
    try:
        record = ffi.new("struct mp_link *")
        links = (record.endpoint.port for n in range(lib.MP_LINKS_MAX) if lib.mp_link_read(region.native, n, record))
        return {port for port in links if port}
    finally:
        region.close()


def load_rules(host: Host, rules: str) -> None:
    host.run([require("nft"), "-f", "-"], stdin=rules)


def test_streams_of_a_peer_whose_translator_changes_its_port_lose_nothing(
    make_network: MakeNetwork, measured: Callable[..., None]
) -> None:
    """Goal: data goes to the old endpoint of a peer until the new one has answered a probe, and then to that one.
    Method: streams in both directions; a translator gives the peer's datagrams another port.  As soon as the other node
    sends there, datagrams to the old port are dropped."""
    fixed, moving = make_network(2).instances
    groups = fresh_group(), fresh_group()
    receivers = Receiver(moving.host, groups[0]), Receiver(fixed.host, groups[1])
    wait_route(fixed, groups[0], [moving])
    wait_route(moving, groups[1], [fixed])
    senders = Sender(fixed.host, groups[0], mbit=20, seconds=6), Sender(moving.host, groups[1], mbit=20, seconds=6)
    time.sleep(1)
    began = time.monotonic()
    load_rules(moving.host, REBOUND)
    wait_until(lambda: data_ports(fixed) == {NEW_PORT}, 3, "the node sends to the new port")
    measured(moved_s=time.monotonic() - began)
    load_rules(moving.host, CLOSED)
    for sender, receiver in zip(senders, receivers, strict=True):
        receiver.account().assert_perfect(sender.sent())
