"""Streams where segmentation offload is not available or not possible: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.netns.network import Network, fresh_group, fresh_group6, wait_route
from tests.netns.traffic import Receiver, Sender

SIZES = (64, 1316, 700, 1200, 100, 1400)


def assert_stream_is_complete(network: Network, **traffic: object) -> None:
    source, *members = network.instances
    group = fresh_group()
    receivers = [Receiver(member.host, group) for member in members]
    wait_route(source, group, members)
    sent = Sender(source.host, group, **traffic).sent()  # type: ignore[arg-type]
    for receiver in receivers:
        receiver.account().assert_perfect(sent)


def test_stream_without_offloads_is_complete(make_network: Callable[..., Network]) -> None:
    """Goal: no loss on an underlay without segmentation offload on sending and without merging on receipt.
    Method: offloads off on every veth; 2 s of 50 Mbit/s to two hosts."""
    assert_stream_is_complete(make_network(3, offloads=False), mbit=50, seconds=2)


def test_stream_survives_a_smaller_path_mtu(make_network: Callable[..., Network]) -> None:
    """Goal: datagrams above the path MTU are fragmented, not lost.
    Method: the MTU of the sender's underlay interface is lowered to 1300 bytes while the instances run.  The kernel
    then refuses UDP_SEGMENT with segments of 1480 bytes."""
    network = make_network(2)
    source = network.instances[0].host
    source.run(["ip", "link", "set", "u0", "mtu", "1300"])
    assert_stream_is_complete(network, mbit=20, seconds=2)


@pytest.mark.parametrize("flows", [1, 20])
def test_mixed_sizes_keep_their_order(network: Network, flows: int) -> None:
    """Goal: packets of changing sizes arrive complete and in order within a flow, however they were put together.
    Method: 2 s of six sizes in turn at 10,000 packets/s, from one port and from twenty; with one flow `reordered` is
    0."""
    source, member, *_ = network.instances
    group = fresh_group6()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    sent = Sender(source.host, group, size=SIZES, pps=10_000, seconds=2, flows=flows).sent()
    account = receiver.account()
    account.assert_perfect(sent)
    if flows == 1:
        assert account.stream()["reordered"] == 0
