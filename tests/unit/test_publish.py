"""Goal: what control wants to stand in shared memory and has no room there comes in as soon as there is some.

Method: the publisher against a real region with a small forwarding table, read back through C.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest
from pipeline.shm._native import ffi

from pipeline.address import parse
from pipeline.control.publish import Publisher
from pipeline.forwarding.route import FibDelete, FibEntry, FibKey, Kind, Side
from pipeline.shm.fib import ForwardingTableWriter
from pipeline.shm.links_keys import LinksKeysWriter
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


def heard_from(link: int, address: str, port: int) -> bytes:
    """What overlay_ingress punts when a peer's verified datagram comes from elsewhere."""
    punt = ffi.new("struct mp_endpoint *")
    punt.family, punt.port = socket.AF_INET, port
    ffi.memmove(punt.address, parse(address), 4)
    return link.to_bytes(4, "little") + bytes(ffi.buffer(punt))


def test_a_new_record_does_not_undo_where_a_peer_was_heard(region: Region) -> None:
    """Behind a NAT a peer is not where its record says; its key is renewed each hour, and no datagram may go astray."""
    publisher, tables = Publisher(region, Net().add("a"), ingress_bells=(), egress_bells=()), LinksKeysWriter(region)
    record = Net().add("b", at="192.0.2.2:4747").record
    publisher.publish_record(record, 3)
    publisher.publish_link(record, 3, up=True)
    publisher.move_endpoint(heard_from(3, "198.51.100.7", 61000))
    publisher.publish_record(msgspec.structs.replace(record, version=record.version + 1), 3)
    assert tables.link(3).endpoint == (parse("198.51.100.7"), 61000)
    assert publisher.endpoint_of(3) == "192.0.2.2:4747"
    publisher.publish_record(msgspec.structs.replace(record, endpoint="192.0.2.9:4747"), 3)
    assert tables.link(3).endpoint == (parse("192.0.2.9"), 4747)
    publisher.move_endpoint(heard_from(3, "198.51.100.7", 61000))
    for is_up in (False, True):
        publisher.publish_link(record, 3, up=is_up)
    assert tables.link(3).endpoint == (parse("192.0.2.2"), 4747)
