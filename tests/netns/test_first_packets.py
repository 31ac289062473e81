"""Real daemons whose engine learns of a source by its first packet: that packet is not the price of it.

Method: an overlay of four hosts with the engine nemo, one worker or one for each stage; members wait for a while, then
a host that has never sent to their group sends a few datagrams at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pipeline.lab.programs import wait_until
from tests.netns.network import Network, drops, fresh_group, fresh_group6
from tests.netns.traffic import Receiver, Sender

AT_ONCE = 100_000
"""Packets a second: as fast as they can be sent."""


@pytest.fixture(scope="module", params=[1, 4], ids=["1 worker", "4 workers"])
def nemo(request: pytest.FixtureRequest) -> Iterator[Network]:
    with Network(4, workers=request.param, extra=("--overlay", "nemo")) as network:
        yield network


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("family", [4, 6])
def test_the_first_datagrams_of_a_source_arrive(nemo: Network, family: int, count: int) -> None:
    """Goal: whoever says one thing, or ten, to a group with members is heard by all, once and in order."""
    source, *members = nemo.instances
    group = fresh_group() if family == 4 else fresh_group6()
    receivers = [Receiver(member.host, group) for member in members]
    time.sleep(2.0)  # they find each other
    before = drops(source)
    assert Sender(source.host, group, count=count, pps=AT_ONCE).sent() == count
    for receiver in receivers:
        account = receiver.account()
        account.assert_perfect(count)
        assert account.stream()["reordered"] == 0
    assert drops(source) == before


def test_without_members_they_are_dropped_in_time(nemo: Network) -> None:
    """Goal: what nobody wants is counted as that, all of it, within a second."""
    source = nemo.instances[0]
    before = drops(source).get("no_member", 0)
    sent = Sender(source.host, fresh_group(), count=30, pps=AT_ONCE).sent()
    wait_until(lambda: drops(source).get("no_member", 0) >= before + sent, 1.0, f"{sent} are dropped: {drops(source)}")
