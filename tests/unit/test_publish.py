"""Goal: shared memory holds the entries and links that control publishes, also after its table was full.

Method: the publisher with a real region and a small forwarding table, which is read back through C.
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


def stored_entries(region: Region) -> set[FibKey]:
    return {each.key for each in ForwardingTableWriter(region).entries()}


def test_entries_left_out_are_written_when_others_are_deleted(region: Region) -> None:
    """Goal: a member that fills the table, and is cut off later, does not exclude other groups for ever.
    Method: publish more entries than there is room for, then delete some; an entry that waits may be deleted too."""
    publisher = Publisher(region, Net().add("a"), ingress_bells=(), egress_bells=())
    entries = [entry(number) for number in range(ENTRIES + 100)]
    for each in entries:
        publisher.publish_entry(each)
    assert len(stored_entries(region)) <= ENTRIES
    assert "forwarding table is full" in publisher.fault
    publisher.publish_entry(FibDelete(entries[-1].key))
    for each in entries[:150]:
        publisher.publish_entry(FibDelete(each.key))
    assert stored_entries(region) == {each.key for each in entries[150:-1]}
    assert publisher.fault == ""


def endpoint_punt(link: int, address: str, port: int, *, scope: int = 0) -> bytes:
    """Return the punt of overlay_ingress after a verified datagram of a peer from another endpoint."""
    packed = parse(address)
    punt = ffi.new("struct mp_endpoint *")
    punt.family = socket.AF_INET6 if len(packed) == 16 else socket.AF_INET
    punt.port, punt.scope = port, scope
    ffi.memmove(punt.address, packed, len(packed))
    return link.to_bytes(4, "little") + bytes(ffi.buffer(punt))


def test_new_record_keeps_the_endpoint_of_the_last_datagram(region: Region) -> None:
    """Goal: a peer behind a NAT, whose record has another endpoint, is reached while its key is renewed each hour.
    Method: move the endpoint of a link, then publish records with the old endpoint, with another one, and again."""
    publisher, tables = Publisher(region, Net().add("a"), ingress_bells=(), egress_bells=()), LinksKeysWriter(region)
    record = Net().add("b", at="192.0.2.2:4747").record
    publisher.publish_record(record, 3)
    publisher.publish_link(record, 3, up=True)
    publisher.move_endpoint(endpoint_punt(3, "198.51.100.7", 61000))
    publisher.publish_record(msgspec.structs.replace(record, version=record.version + 1), 3)
    assert tables.link(3).endpoint == (parse("198.51.100.7"), 61000)
    assert publisher.endpoint_of(3) == "192.0.2.2:4747"
    publisher.publish_record(msgspec.structs.replace(record, endpoint="192.0.2.9:4747"), 3)
    assert tables.link(3).endpoint == (parse("192.0.2.9"), 4747)
    publisher.move_endpoint(endpoint_punt(3, "198.51.100.7", 61000))
    for is_up in (False, True):
        publisher.publish_link(record, 3, up=is_up)
    assert tables.link(3).endpoint == (parse("192.0.2.2"), 4747)


def test_link_local_endpoint_keeps_its_interface(region: Region) -> None:
    """Goal: datagrams to a peer whose own come from a link-local address go to the same interface.
    Method: move the endpoint to an address with a scope, then publish the record again; another endpoint has none."""
    publisher, tables = Publisher(region, Net().add("a"), ingress_bells=(), egress_bells=()), LinksKeysWriter(region)
    record = Net().add("b", at="[2001:db8::2]:4747").record
    publisher.publish_record(record, 3)
    publisher.publish_link(record, 3, up=True)
    publisher.move_endpoint(endpoint_punt(3, "fe80::7", 4747, scope=5))
    assert tables.link(3).scope == 5
    publisher.publish_record(msgspec.structs.replace(record, version=record.version + 1), 3)
    assert (tables.link(3).endpoint, tables.link(3).scope) == ((parse("fe80::7"), 4747), 5)
    publisher.publish_record(msgspec.structs.replace(record, endpoint="[2001:db8::9]:4747"), 3)
    assert (tables.link(3).endpoint, tables.link(3).scope) == ((parse("2001:db8::9"), 4747), 0)
