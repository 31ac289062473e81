"""Goal: stages look up the entries that control has written, also across restarts of control.

Method: the writer on real shared memory; a dictionary as model for random changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import limits
from pipeline.address import parse
from pipeline.errors import PipelineError
from pipeline.forwarding.route import FibKey, Kind, Side
from pipeline.shm import _native
from pipeline.shm.fib import ForwardingTableWriter, TableFullError, mapped, unmapped
from pipeline.shm.region import Geometry, Region

lib = _native.lib

GROUP = FibKey(Side.HOST, Kind.GROUP, parse("239.1.2.3"))


@pytest.fixture
def region() -> Iterator[Region]:
    geometry = Geometry.of(lanes=1, mtu=1436, host_slots=64, overlay_slots=8, fib_entries=256, fib_buckets=64)
    made = Region.create(f"test-fib-{os.getpid()}", geometry)
    yield made
    made.unlink()
    made.close()


KEYS = [
    GROUP,
    FibKey(Side.HOST, Kind.GROUP, parse("ff15::1")),
    FibKey(Side.HOST, Kind.GROUP, parse("232.1.1.1"), source=parse("10.77.0.1")),
    FibKey(Side.HOST, Kind.GROUP, parse("ff35::1"), source=parse("fd77::1")),
    FibKey(Side.OVERLAY, Kind.GROUP, parse("239.1.2.3"), origin=0xFFFFFFFF),
    FibKey(Side.OVERLAY, Kind.GROUP, parse("239.1.2.3"), origin=7, via=1023),
    FibKey(Side.OVERLAY, Kind.GROUP, parse("239.1.2.3"), via=0),
    FibKey(Side.OVERLAY, Kind.GROUP, parse("239.1.2.3"), via=0, stripe=1),
    FibKey(Side.HOST, Kind.GROUP, parse("239.1.2.3"), stripe=limits.STRIPES_MAX - 1),
    FibKey(Side.HOST, Kind.UNICAST, parse("10.77.1.1")),
    FibKey(Side.OVERLAY, Kind.UNICAST, parse("fd77::2")),
    FibKey(Side.HOST, Kind.FLOOD, bytes(4)),
    FibKey(Side.HOST, Kind.FLOOD, bytes(16)),
]


def test_each_kind_of_key_is_looked_up(region: Region) -> None:
    """Goal: every kind of key has an entry of its own, with all its values.
    Method: set one of each, and look all of them up."""
    table = ForwardingTableWriter(region)
    for number, key in enumerate(KEYS):
        table.set(key, {number, 64 + number, 1023}, stream=number, local=number % 2 == 1, stripes=3)
    assert len(table) == len(KEYS)
    for number, key in enumerate(KEYS):
        entry = table.lookup(key)
        assert entry is not None
        assert entry.links == {number, 64 + number, 1023}
        assert (entry.stream, entry.local, entry.stripes) == (number, number % 2 == 1, 3)
    assert {entry.key for entry in table.entries()} == set(KEYS)


def test_set_replaces_and_delete_removes(region: Region) -> None:
    """Goal: a key has one entry at a time.  Method: set twice, delete twice."""
    table = ForwardingTableWriter(region)
    assert not table.delete(GROUP)
    table.set(GROUP, {1023}, repairs=True)
    version = table.version
    table.set(GROUP, [], local=True)
    assert table.version == version + 1
    entry = table.lookup(GROUP)
    assert entry is not None
    assert (entry.links, entry.local, entry.repairs) == (frozenset(), True, False)
    assert table.delete(GROUP)
    assert table.lookup(GROUP) is None
    assert len(table) == 0


def test_entries_with_repair_are_counted(region: Region) -> None:
    """overlay_egress keeps sent slots as long as there are any."""
    table = ForwardingTableWriter(region)

    def repairing() -> int:
        return int(lib.mp_fib_repairing(region.native))

    table.set(GROUP, {1}, repairs=True)
    table.set(KEYS[1], {1})
    entry = table.lookup(GROUP)
    assert entry is not None
    assert entry.repairs
    table.set(GROUP, {2}, repairs=True)
    table.set(KEYS[1], {2}, repairs=True)
    assert repairing() == 2
    table = ForwardingTableWriter(region)
    assert repairing() == 2
    table.set(GROUP, {2})
    assert repairing() == 1
    table.delete(KEYS[1])
    table.delete(GROUP)
    assert repairing() == 0


def test_addresses_are_mapped_as_in_c() -> None:
    """Goal: IPv4 addresses have the mapped form that the stages look up.  Method: both directions, both families."""
    assert mapped(bytes(4)) == bytes(10) + b"\xff\xff" + bytes(4)
    assert mapped(bytes(16)) == bytes(16)
    assert unmapped(mapped(parse("239.1.2.3"))) == parse("239.1.2.3")
    assert unmapped(mapped(parse("ff15::1"))) == parse("ff15::1")


def test_link_out_of_bounds_is_refused(region: Region) -> None:
    """Goal: no link exceeds the bit set of an entry.  Method: the first index beyond it."""
    table = ForwardingTableWriter(region)
    with pytest.raises(ValueError, match="1023"):
        table.set(GROUP, {1024})
    assert len(table) == 0


def test_full_table_is_reported_and_stays_usable(region: Region) -> None:
    """Goal: the error names the bound; present entries can be replaced and deleted.  Method: one entry too many."""
    table = ForwardingTableWriter(region)
    keys = [FibKey(Side.HOST, Kind.GROUP, bytes([239, 0, n >> 8, n & 255])) for n in range(256)]
    for key in keys[:255]:
        table.set(key, {1})
    with pytest.raises(TableFullError, match="255") as caught:
        table.set(keys[255], {1})
    assert isinstance(caught.value, PipelineError)
    table.set(keys[0], {2})
    table.delete(keys[1])
    table.set(keys[255], {1})
    assert len(table) == 255


def test_used_entries_are_returned_once(region: Region) -> None:
    """Goal: control learns which sources still send.  Method: mark entries as the stages do."""
    table = ForwardingTableWriter(region)
    for key in KEYS:
        table.set(key, {1})
    assert table.take_used() == []
    lib.mp_fib_touch(region.native, 0)
    lib.mp_fib_touch(region.native, 3)
    assert {entry.key for entry in table.entries() if entry.used} == {KEYS[0], KEYS[3]}
    assert set(table.take_used()) == {KEYS[0], KEYS[3]}
    assert table.take_used() == []
    lib.mp_fib_touch(region.native, 2)
    assert [entry.key for entry in table.entries(clear_used=True) if entry.used] == [KEYS[2]]
    assert not any(entry.used for entry in table.entries())


def test_new_writer_adopts_all_entries(region: Region) -> None:
    """Goal: a restarted control process continues with the table.  Method: a second writer on the same region."""
    before = ForwardingTableWriter(region)
    for number, key in enumerate(KEYS):
        before.set(key, {number}, stream=number)
    after = ForwardingTableWriter(region)
    assert len(after) == len(KEYS)
    assert {entry.key: entry.stream for entry in after.entries()} == {key: n for n, key in enumerate(KEYS)}
    after.set(KEYS[0], {9})
    entry = after.lookup(KEYS[0])
    assert entry is not None
    assert entry.links == {9}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(KEYS), st.none() | st.frozensets(st.integers(0, 1023), max_size=8), st.booleans()),
        max_size=60,
    )
)
def test_random_changes_match_a_dictionary(
    region: Region, changes: list[tuple[FibKey, frozenset[int] | None, bool]]
) -> None:
    """Goal: any sequence of changes has the result of the last ones.
    Method: random changes, with new writers between them."""
    table = ForwardingTableWriter(region)
    for entry in list(table.entries()):
        table.delete(entry.key)
    model: dict[FibKey, frozenset[int]] = {}
    for key, links, restarts in changes:
        if links is None:
            assert table.delete(key) == (model.pop(key, None) is not None)
        else:
            table.set(key, links)
            model[key] = links
        if restarts:
            table = ForwardingTableWriter(region)
        assert {entry.key: entry.links for entry in table.entries()} == model
