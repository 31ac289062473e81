"""Goal: what control wants to stand in shared memory and has no room there comes in as soon as there is some.

Method: the publisher against a real region with a small forwarding table, read back through C.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pipeline.forwarding.route import FibDelete, FibEntry, FibKey, Kind, Side
from pipeline.publish import Publisher
from pipeline.shm.fib import ForwardingTableWriter
from pipeline.shm.region import Geometry, Region
from tests.unit.overlay_net import Net

ENTRIES = 256


@pytest.fixture
def region() -> Iterator[Region]:
    geometry = Geometry.of(lanes=1, mtu=1436, host_slots=64, overlay_slots=8, fib_entries=ENTRIES, fib_buckets=64)
    made = Region.create(f"test-publish-{os.getpid()}", geometry)
    yield made
    made.unlink()
    made.close()


def entry(number: int) -> FibEntry:
    key = FibKey(Side.HOST, Kind.GROUP, bytes([239, 1, number >> 8, number & 0xFF]))
    return FibEntry(key, frozenset({number % 64}), local=False, stream=0, why="test")


def standing(region: Region) -> set[FibKey]:
    return {each.key for each in ForwardingTableWriter(region).entries()}


def test_what_was_left_out_comes_in_when_others_go(region: Region, capsys: pytest.CaptureFixture[str]) -> None:
    """A member that fills the table and is cut off must not keep others' groups out for ever."""
    publisher = Publisher(region, Net().add("a"), ingress_bells=(), egress_bells=())
    wanted = [entry(number) for number in range(ENTRIES + 100)]
    for each in wanted:
        publisher.publish_entry(each)
    assert len(standing(region)) <= ENTRIES
    told = capsys.readouterr()
    assert (told.out + told.err).count("forwarding table is full") == 1
    publisher.publish_entry(FibDelete(wanted[-1].key))  # not even one that waits is remembered
    for each in wanted[:150]:
        publisher.publish_entry(FibDelete(each.key))
    assert standing(region) == {each.key for each in wanted[150:-1]}
