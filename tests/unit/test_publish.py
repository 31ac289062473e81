"""Goal: shared memory holds the entries and links that control publishes, also after its table was full.

Method: the publisher with a real region and a small forwarding table, which is read back through C.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest
from pipeline.shm._native import ffi, lib

from pipeline.address import parse
from pipeline.control.publish import Publisher
from pipeline.forwarding.route import FibDelete, FibEntry, FibKey, Kind, Side
from pipeline.shm.fib import ForwardingTableWriter
from pipeline.shm.links_keys import LinkRecord, LinksKeysWriter, UdpEndpoint
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


def endpoint_punt(link: int, endpoint: UdpEndpoint) -> bytes:
    """Return the punt of overlay_ingress for a verified datagram of a peer from this endpoint."""
    punt = ffi.new("struct mp_endpoint *")
    punt.family = socket.AF_INET6 if len(endpoint.address) == 16 else socket.AF_INET
    punt.port, punt.scope = endpoint.port, endpoint.scope
    ffi.memmove(punt.address, endpoint.address, len(endpoint.address))
    return link.to_bytes(4, "little") + bytes(ffi.buffer(punt))


def test_new_record_keeps_the_endpoint_that_has_answered(region: Region) -> None:
    """Goal: a peer behind a NAT, whose record has another endpoint, is reached while its key is renewed each hour.
    Method: a third endpoint answers; then publish records with the old endpoint, with another one, and end the session:
    a new endpoint is only a candidate, and a new session begins without an endpoint."""
    publisher, tables = Publisher(region, Net().add("a"), ingress_bells=(), egress_bells=()), LinksKeysWriter(region)
    record = Net().add("b", at="192.0.2.2:4747").record
    own, seen = UdpEndpoint(parse("192.0.2.2"), 4747), UdpEndpoint(parse("198.51.100.7"), 61000)
    publisher.publish_record(record, 3)
    assert tables.link(3) == LinkRecord(record.node_id, up=False, endpoint=None, candidate=own)
    assert publisher.take_answered_endpoint(endpoint_punt(3, seen)) is None, "no session asks for probes"
    publisher.publish_link(record, 3, is_probed=True)
    assert tables.link(3) == LinkRecord(record.node_id, up=True, endpoint=None, candidate=own)
    publisher.take_candidate(endpoint_punt(3, seen))
    assert tables.link(3) == LinkRecord(record.node_id, up=True, endpoint=None, candidate=seen)
    assert publisher.take_answered_endpoint(endpoint_punt(3, seen)) == record.node_id
    answered = LinkRecord(record.node_id, up=True, endpoint=seen, candidate=None)
    assert tables.link(3) == answered
    publisher.publish_record(msgspec.structs.replace(record, version=record.version + 1), 3)
    assert tables.link(3) == answered
    assert publisher.endpoint_of(3) == "192.0.2.2:4747"
    publisher.publish_record(msgspec.structs.replace(record, endpoint="192.0.2.9:4747"), 3)
    assert tables.link(3) == LinkRecord(record.node_id, True, seen, UdpEndpoint(parse("192.0.2.9"), 4747))
    for is_probed in (False, True):
        publisher.publish_link(record, 3, is_probed=is_probed)
    assert tables.link(3) == LinkRecord(record.node_id, up=True, endpoint=None, candidate=own)


def test_restarted_control_keeps_endpoints_that_have_answered(region: Region) -> None:
    """Goal: streams go on while control restarts.
    Method: a second publisher on the region publishes the same record."""
    node, record = Net().add("a"), Net().add("b", at="192.0.2.2:4747").record
    seen = UdpEndpoint(parse("fe80::7"), 4747, 5)
    first = Publisher(region, node, ingress_bells=(), egress_bells=())
    first.publish_record(record, 3)
    first.publish_link(record, 3, is_probed=True)
    first.take_answered_endpoint(endpoint_punt(3, seen))
    second, tables = Publisher(region, node, ingress_bells=(), egress_bells=()), LinksKeysWriter(region)
    second.publish_record(record, 3)
    second.publish_link(record, 3, is_probed=True)
    assert tables.link(3) == LinkRecord(record.node_id, up=True, endpoint=seen, candidate=None)
    second.publish_record(msgspec.structs.replace(record, node_id=record.node_id + 1), 3)
    assert tables.link(3).endpoint is None, "another node"


def test_candidate_on_a_known_host_is_marked(region: Region) -> None:
    """Goal: a host that never connected to this node gets fewer probes.
    Method: records of two hosts, of which one has connected."""
    publisher = Publisher(
        region,
        Net().add("a"),
        ingress_bells=(),
        egress_bells=(),
        is_known_host={"192.0.2.2", "2001:db8::2"}.__contains__,
    )
    record, tables = Net().add("b", at="192.0.2.2:4747").record, LinksKeysWriter(region)
    for endpoint, is_known in (("192.0.2.2:1", True), ("192.0.2.3:1", False), ("[2001:DB8:0::2]:1", True)):
        publisher.publish_record(msgspec.structs.replace(record, endpoint=endpoint), 3)
        link = tables.link(3)
        assert link is not None
        assert link.is_host_known == is_known


def test_probe_keys_are_kept_with_the_link_and_changed_with_the_record(region: Region) -> None:
    """Goal: probes are sealed with the keys of the peer's present incarnation, whatever else changes in the link.
    Method: records with keys, with others and without; sessions and endpoints in between; a restarted control."""
    node, record, tables = Net().add("a"), Net().add("b", at="192.0.2.2:4747").record, LinksKeysWriter(region)
    publisher = Publisher(region, node, ingress_bells=(), egress_bells=())
    first, second = (b"\1" * 32, b"\2" * 32), (b"\3" * 32, b"\4" * 32)
    seen = endpoint_punt(3, UdpEndpoint(parse("198.51.100.7"), 61000))
    publisher.publish_record(record, 3, probe_keys=first)
    publisher.publish_link(record, 3, is_probed=True)
    publisher.take_candidate(seen)
    publisher.take_answered_endpoint(seen)
    assert probe_keys(tables, 3) == first
    assert "probe_keys" not in repr(tables.link(3)), "no key in the log"
    publisher = Publisher(region, node, ingress_bells=(), egress_bells=())
    publisher.publish_record(record, 3, probe_keys=first)
    assert (tables.link(3).endpoint, probe_keys(tables, 3)) == (UdpEndpoint(parse("198.51.100.7"), 61000), first)
    publisher.publish_record(record, 3, probe_keys=second)
    assert probe_keys(tables, 3) == second
    publisher.publish_record(record, 3)
    assert probe_keys(tables, 3) is None
    publisher.publish_record(record, 3, probe_keys=first)
    publisher.remove_record(record, 3)
    native = ffi.new("struct mp_link *")
    assert lib.mp_link_read(region.native, 3, native)
    assert not any(bytes(native.probe_seal)) and not any(bytes(native.probe_open)), "wiped"
    with pytest.raises(ValueError, match="32 bytes"):
        publisher.publish_record(record, 3, probe_keys=(b"short", first[1]))


def probe_keys(tables: LinksKeysWriter, link: int) -> tuple[bytes, bytes] | None:
    stored = tables.link(link)
    assert stored is not None
    return stored.probe_keys


def test_wildcard_endpoint_is_no_candidate(region: Region) -> None:
    """Goal: no probe goes to 0.0.0.0, which is this host.  Method: a record with it."""
    publisher, tables = Publisher(region, Net().add("a"), ingress_bells=(), egress_bells=()), LinksKeysWriter(region)
    record = Net().add("b", at="0.0.0.0:4747").record
    publisher.publish_record(record, 3)
    assert tables.link(3).candidate is None
