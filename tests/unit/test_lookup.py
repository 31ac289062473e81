"""Goal: the look-up order of forwarding/lookup.py is the documented one, and the stages in C have the same.

Method: tables with and without each kind of entry; then random tables in real shared memory, in which C looks up whole
packets and Python the same addresses.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.address import Address, NodeId, is_link_scope, is_multicast, parse
from pipeline.forwarding import lookup
from pipeline.forwarding.route import FibEntry, FibKey, Kind, Side
from pipeline.shm import _native
from pipeline.shm.fib import ForwardingTableWriter
from pipeline.shm.region import Geometry, Region
from pipeline.wire.ip import checksum

ffi, lib = _native.ffi, _native.lib

GROUP, SOURCE = parse("239.1.2.3"), parse("10.77.0.1")
SOURCES = {4: [SOURCE, parse("10.77.0.2")], 16: [parse("fd77::1"), parse("fd77::2")]}
GROUPS = [GROUP, parse("232.1.1.1"), parse("ff15::1")]
DESTINATIONS = [*GROUPS, parse("224.0.0.251"), parse("ff02::fb"), parse("10.77.0.9"), parse("fd77::9")]
ORIGINS, LINKS = [1, 2], [0, 1]
STRIPES_MAX = 3


def table(*keys: FibKey) -> dict[FibKey, FibEntry]:
    """Entries for these keys; entry n has link n alone."""
    return {key: FibEntry(key, frozenset({n}), local=False, stream=0, why="test") for n, key in enumerate(keys)}


def test_host_side_prefers_the_source_specific_entry() -> None:
    """Goal: (S,G) comes before (*,G).  Method: one table, its own source and another."""
    specific, default = FibKey(Side.HOST, Kind.GROUP, GROUP, SOURCE), FibKey(Side.HOST, Kind.GROUP, GROUP)
    entries = table(default, specific)
    assert lookup.host_entry(entries, SOURCE, GROUP) == entries[specific]
    assert lookup.host_entry(entries, parse("10.77.0.2"), GROUP) == entries[default]
    assert lookup.host_entry(entries, SOURCE, parse("239.9.9.9")) is None


def test_overlay_side_goes_from_origin_and_link_to_the_group() -> None:
    """Goal: the order is (origin, via), (origin), (via), (*,G).  Method: remove each entry that is found."""
    default = FibKey(Side.OVERLAY, Kind.GROUP, GROUP)
    order = [default._replace(origin=1, via=0), default._replace(origin=1), default._replace(via=0), default]
    entries = table(*reversed(order))
    for key in order:
        found = lookup.overlay_entry(entries, GROUP, origin=1, via=0)
        assert found is not None
        assert found.key == key
        del entries[key]
    assert lookup.overlay_entry(entries, GROUP, origin=1, via=0) is None


def test_stripe_without_entry_has_no_links() -> None:
    """Goal: datagrams of a stripe that control has not written yet go nowhere.  Method: three stripes, one missing."""
    first = FibKey(Side.OVERLAY, Kind.GROUP, GROUP)
    entries = table(first, first._replace(stripe=1))
    entry = FibEntry(first, frozenset({0}), local=True, stream=1, why="test", stripes=3)
    assert [lookup.stripe_links(entries, entry, n) for n in range(4)] == [{0}, {1}, frozenset(), {0}]


# ---- the same in C


@pytest.fixture
def region() -> Iterator[Region]:
    geometry = Geometry.of(lanes=1, mtu=1436, host_slots=64, overlay_slots=8, fib_entries=256, fib_buckets=64)
    made = Region.create(f"test-lookup-{os.getpid()}", geometry)
    yield made
    made.unlink()
    made.close()


def keys_that_control_writes() -> list[FibKey]:
    """Each kind of key that forwarding/table.py has, for stripe 0."""
    keys = [FibKey(side, Kind.FLOOD, family) for side in Side for family in (bytes(4), bytes(16))]
    for destination in DESTINATIONS:
        if not is_multicast(destination):
            keys += [FibKey(side, Kind.UNICAST, destination) for side in Side]
        elif not is_link_scope(destination):
            sources = [None, *SOURCES[len(destination)]]
            keys += [FibKey(Side.HOST, Kind.GROUP, destination, source) for source in sources]
            ways = [(origin, via) for origin in (None, *ORIGINS) for via in (None, *LINKS)]
            keys += [FibKey(Side.OVERLAY, Kind.GROUP, destination, None, origin, via) for origin, via in ways]
    return keys


@st.composite
def tables(draw: st.DrawFn) -> dict[FibKey, FibEntry]:
    """Any of those keys; groups have up to three stripes, of which some have no entry."""
    chosen = draw(st.lists(st.sampled_from(keys_that_control_writes()), unique=True, max_size=40))
    entries: dict[FibKey, FibEntry] = {}
    for key in chosen:
        stripes = draw(st.integers(1, STRIPES_MAX)) if key.kind is Kind.GROUP else 1
        written = [0, *(stripe for stripe in range(1, stripes) if draw(st.booleans()))]
        for stripe in written:
            links, of_stripe = frozenset({len(entries)}), key._replace(stripe=stripe)
            entries[of_stripe] = FibEntry(
                of_stripe, links, local=False, stream=0, why="test", stripes=stripes if stripe == 0 else 1
            )
    return entries


def ip_packet(source: Address, destination: Address) -> bytes:
    """An IP packet without payload, of protocol UDP."""
    if len(destination) == 16:
        return struct.pack("!IHBB", 6 << 28, 0, 17, 1) + source + destination
    head = struct.pack("!BBHHHBB", 0x45, 0, 20, 0, 0, 1, 17)
    return head + checksum(head + source + destination).to_bytes(2, "big") + source + destination


class StageLookup:
    """A look-up as the stages do it: parse the packet, find the entry, then the entry of the stripe."""

    def __init__(self, region: Region) -> None:
        self._region = region.native
        self._packet, self._key = ffi.new("struct mp_packet *"), ffi.new("struct mp_fib_key *")
        self._value = ffi.new("struct mp_fib_value *")

    def host(self, source: Address, destination: Address, number: int) -> frozenset[int] | None:
        """Return the links for a packet from the TUN, or None if no entry is found."""
        self._parse(source, destination)
        return self._links(lib.mp_lookup_host(self._region, self._packet, self._key, self._value), number)

    def overlay(
        self, source: Address, destination: Address, number: int, origin: NodeId, via: int | None
    ) -> frozenset[int] | None:
        """Return the links for a packet in a datagram of `origin` that came by link `via`, or None."""
        self._parse(source, destination)
        link = lib.MP_NO_LINK if via is None else via
        entry = lib.mp_lookup_overlay(self._region, self._packet, origin, link, self._key, self._value)
        return self._links(entry, number)

    def _parse(self, source: Address, destination: Address) -> None:
        packet = ip_packet(source, destination)
        assert lib.mp_packet_parse(packet, len(packet), self._packet) == 0

    def _links(self, entry: int, number: int) -> frozenset[int] | None:
        if entry == lib.MP_NO_ENTRY:
            return None
        stripe = number % self._value.stripes
        if stripe:
            lib.mp_fib_stripe(self._region, self._key, stripe, self._value)
        words = range(self._value.words)
        return frozenset(64 * word + bit for word in words for bit in range(64) if self._value.links[word] >> bit & 1)


def links_of(entries: lookup.Entries, entry: FibEntry | None, number: int) -> frozenset[int] | None:
    return None if entry is None else lookup.stripe_links(entries, entry, number)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=tables())
def test_stages_find_the_same_links(region: Region, entries: dict[FibKey, FibEntry]) -> None:
    """Goal: C and Python agree.  Method: every packet that the pools of addresses allow, in a random table."""
    writer = ForwardingTableWriter(region)
    for old in list(writer.entries()):
        writer.delete(old.key)
    for key, entry in entries.items():
        writer.set(key, entry.links, stripes=entry.stripes)
    stage = StageLookup(region)
    for destination in DESTINATIONS:
        for number, source in enumerate(SOURCES[len(destination)] * STRIPES_MAX):
            found = lookup.host_entry(entries, source, destination)
            assert stage.host(source, destination, number) == links_of(entries, found, number)
            for origin, via in [(origin, via) for origin in (*ORIGINS, 3) for via in (*LINKS, 2, None)]:
                found = lookup.overlay_entry(entries, destination, origin, via)
                seen = stage.overlay(source, destination, number, origin, via)
                assert seen == links_of(entries, found, number)
