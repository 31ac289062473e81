"""First datagrams of a new source with the engine nemo, which learns of a source only by its first packet.

Method of all tests: four hosts with nemo, with one worker and with one worker for each stage.  Members join first; then
a host that has never sent to their group sends a few datagrams at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pipeline.lab.programs import wait_until
from tests.netns.network import Network, drops, fresh_group, fresh_group6
from tests.netns.traffic import Receiver, Sender

AT_ONCE_PPS = 100_000
"""Rate at which a few datagrams are sent practically back to back."""


@pytest.fixture(scope="module", params=[1, 4], ids=["1 worker", "4 workers"])
def nemo(request: pytest.FixtureRequest) -> Iterator[Network]:
    with Network(4, workers=request.param, extra=("--overlay", "nemo")) as network:
        yield network


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("family", [4, 6])
def test_first_datagrams_of_a_source_reach_all_members(nemo: Network, family: int, count: int) -> None:
    """Goal: the first datagram of a source, or its first ten, reach every member once and in order.
    Method: as above, for IPv4 and IPv6; no node counts a drop."""
    source, *members = nemo.instances
    group = fresh_group() if family == 4 else fresh_group6()
    receivers = [Receiver(member.host, group) for member in members]
    time.sleep(2.0)  # the members build their cluster
    before = drops(source)
    assert Sender(source.host, group, count=count, pps=AT_ONCE_PPS).sent() == count
    for receiver in receivers:
        account = receiver.account()
        account.assert_perfect(count)
        assert account.stream()["reordered"] == 0
    assert drops(source) == before


def test_first_datagrams_without_members_are_counted_as_drops(nemo: Network) -> None:
    """Goal: datagrams to a group without members are counted as `no_member`.
    Method: 30 datagrams at once; the counter has grown by all of them within one second."""
    source = nemo.instances[0]
    before = drops(source).get("no_member", 0)
    sent = Sender(source.host, fresh_group(), count=30, pps=AT_ONCE_PPS).sent()
    wait_until(
        lambda: drops(source).get("no_member", 0) >= before + sent,
        1.0,
        f"{sent} datagrams are dropped: {drops(source)}",
    )
