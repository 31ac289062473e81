"""Goal: shared memory holds the links and keys that control has set; replay windows are never shared, and survive a
restart of control.

Method: the writer on real shared memory, with a clock of the test's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pipeline.address import parse
from pipeline.shm import _native
from pipeline.shm.fib import TableFullError
from pipeline.shm.links_keys import LinkRecord, LinksKeysWriter, UdpEndpoint
from pipeline.shm.region import Geometry, Region

ffi, lib = _native.ffi, _native.lib

KEY, OTHER = bytes(range(32)), bytes(32)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def region() -> Iterator[Region]:
    geometry = Geometry.of(lanes=1, mtu=1436, host_slots=64, overlay_slots=8, fib_entries=256, fib_buckets=64)
    made = Region.create(f"test-tables-{os.getpid()}", geometry)
    yield made
    made.unlink()
    made.close()


def stored_keys(region: Region) -> dict[tuple[int, int], tuple[int, int, int, bytes]]:
    """Return window, lanes, sealed and key by (origin, epoch)."""
    record = ffi.new("struct mp_key *")
    found = {}
    for index in range(lib.MP_KEYS_MAX):
        assert lib.mp_key_read(region.native, index, record)
        if record.origin:
            secret = bytes(ffi.buffer(record.key))
            found[record.origin, record.epoch] = (record.window, record.lanes, record.sealed, secret)
    return found


# ---------------------------------------------------------------- links


def test_links_are_read_as_set(region: Region) -> None:
    """Goal: a link is read as it was written, and an index beyond the table is an error.
    Method: links of both families, without endpoint, and cleared."""
    tables = LinksKeysWriter(region)
    assert tables.link(5) is None
    one, other = UdpEndpoint(parse("10.0.0.7"), 4747), UdpEndpoint(parse("fe80::7"), 65535, 3)
    links = {
        5: LinkRecord(0xFFFFFFFF, up=True, endpoint=one, candidate=None),
        1023: LinkRecord(2, up=False, endpoint=other, candidate=one),
        6: LinkRecord(3, up=False, endpoint=None, candidate=other, is_host_known=True),
        7: LinkRecord(4, up=True, endpoint=one, candidate=None, probe_keys=(bytes(range(32)), bytes(range(32, 64)))),
    }
    for index, link in links.items():
        tables.set_link(index, link)
    assert {index: tables.link(index) for index in links} == links
    tables.clear_link(5)
    assert tables.link(5) is None
    for index, node in ((1024, 1), (0, 0)):
        with pytest.raises(ValueError, match=str(index)):
            tables.set_link(index, LinkRecord(node, up=True, endpoint=None, candidate=None))


def test_link_figures_begin_at_zero(region: Region) -> None:
    """Goal: a new link has no traffic.  Method: read its figures."""
    figures = LinksKeysWriter(region).link_figures(3)
    assert (figures.tx_bytes, figures.rx_bytes, figures.rtt_ns, figures.loss_ppm) == (0, 0, 0, 0)


# ---------------------------------------------------------------- keys of peers


def test_keys_have_windows_of_their_own(region: Region) -> None:
    """Goal: no two keys share a replay window.  Method: 101 keys with one to four lanes."""
    tables = LinksKeysWriter(region)
    for origin in range(1, 101):
        tables.set_key(origin, 0, key=KEY, lanes=1 + origin % 4)
    tables.set_key(1, 1, key=None, lanes=2)
    stored = stored_keys(region)
    assert tables.keys() == set(stored)
    assert stored[1, 1][1:] == (2, 0, bytes(32))
    assert stored[2, 0][1:] == (3, 1, KEY)
    taken = [window + i for window, lanes, _, _ in stored.values() for i in range(2 * lanes)]
    assert len(set(taken)) == len(taken)


def test_unchanged_key_keeps_its_window(region: Region) -> None:
    """Goal: a key that is written again accepts no replay.
    Method: the same key by the same writer and by a new one."""
    tables = LinksKeysWriter(region)
    tables.set_key(9, 3, key=KEY, lanes=1)
    stored = stored_keys(region)
    for writer in (tables, LinksKeysWriter(region)):  # the second as after a restart of control
        writer.set_key(9, 3, key=KEY, lanes=1)
        assert stored_keys(region) == stored


def test_changed_key_gets_fresh_windows(region: Region) -> None:
    """Goal: the sequence numbers of a new key start anew.  Method: replace the key of an epoch."""
    tables = LinksKeysWriter(region)
    tables.set_key(9, 3, key=KEY, lanes=1)
    before = stored_keys(region)[9, 3]
    tables.set_key(9, 3, key=OTHER, lanes=1)
    after = stored_keys(region)[9, 3]
    assert after[0] != before[0]
    assert after[3] == OTHER
    assert len(tables.keys()) == 1


def test_freed_windows_rest_before_reuse(region: Region) -> None:
    """Goal: stages that still use a freed window do not mark the numbers of another key.
    Method: new keys before and after the rest."""
    clock = Clock()
    tables = LinksKeysWriter(region, clock=clock)
    tables.set_key(1, 0, key=KEY, lanes=1)
    assert tables.clear_key(1, 0)
    assert not tables.clear_key(1, 0)
    tables.set_key(2, 0, key=KEY, lanes=1)
    assert stored_keys(region)[2, 0][0] == 2
    clock.now = 1.5
    tables.set_key(3, 0, key=KEY, lanes=1)
    assert stored_keys(region)[3, 0][0] == 0


def test_new_writer_adopts_keys_and_windows(region: Region) -> None:
    """Goal: a restarted control process uses no window twice.  Method: a second writer on the same region."""
    before = LinksKeysWriter(region)
    before.set_key(1, 0, key=KEY, lanes=4)
    before.set_key(2, 0, key=None, lanes=1)
    after = LinksKeysWriter(region)
    assert after.keys() == {(1, 0), (2, 0)}
    after.set_key(3, 0, key=KEY, lanes=1)
    assert stored_keys(region)[3, 0][0] == 10
    assert after.clear_key(1, 0)
    assert set(stored_keys(region)) == {(2, 0), (3, 0)}


def test_missing_windows_are_reported(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the error names the lanes, and resting windows are used as the last ones.
    Method: as many keys as there are windows."""
    monkeypatch.setattr(Region, "reserve", lambda *_: None)
    monkeypatch.setattr("pipeline.shm.links_keys.lib", LibraryWithoutKeys())
    clock = Clock()
    tables = LinksKeysWriter(region, clock=clock)
    nodes = lib.MP_WINDOWS_MAX // 32
    for origin in range(1, nodes + 1):
        tables.set_key(origin, 0, key=KEY, lanes=16)
    with pytest.raises(TableFullError, match="16 lanes"):
        tables.set_key(3000, 0, key=KEY, lanes=16)
    tables.clear_key(7, 0)
    tables.set_key(3000, 0, key=KEY, lanes=16)  # resting windows are used if there are no others
    assert len(tables.keys()) == nodes


class LibraryWithoutKeys:
    """The library without writes of keys: their windows would take 128 MiB."""

    def __getattr__(self, name: str) -> object:
        return (lambda *_: 0) if name == "mp_key_set" else getattr(lib, name)


def test_bad_keys_are_refused(region: Region) -> None:
    """Goal: a refused key takes up no window.  Method: a short key, and too many lanes."""
    tables = LinksKeysWriter(region)
    with pytest.raises(ValueError, match="32 bytes"):
        tables.set_key(1, 0, key=b"short", lanes=1)
    with pytest.raises(ValueError, match="out of bounds"):
        tables.set_key(1, 0, key=KEY, lanes=17)
    assert tables.keys() == frozenset()
    tables.set_key(1, 0, key=KEY, lanes=1)  # no window has leaked
    assert stored_keys(region)[1, 0][0] in (0, 34)


# ---------------------------------------------------------------- own keys


def sender(region: Region) -> tuple[int, int, tuple[int, int], int]:
    record = ffi.new("struct mp_sender *")
    assert lib.mp_sender_read(region.native, record)
    return record.origin, record.sealed, tuple(record.epoch), record.active


def test_sender_keys_stand_by_parity(region: Region) -> None:
    """Goal: two epochs of different parity are present at a time.
    Method: one key, two keys, none; then wrong combinations."""
    tables = LinksKeysWriter(region)
    tables.set_sender(77, {0: KEY}, active=0)
    assert sender(region) == (77, 1, (0, 0), 0)
    tables.set_sender(77, {254: KEY, 255: OTHER}, active=255)
    assert sender(region) == (77, 1, (254, 255), 1)
    tables.set_sender(77, {3: None}, active=3)
    assert sender(region) == (77, 0, (1, 3), 1)
    for keys, active in (({0: KEY, 2: KEY}, 0), ({0: KEY}, 1), ({0: b"short"}, 0)):
        with pytest.raises(ValueError, match=r"epoch|bytes"):
            tables.set_sender(77, keys, active=active)
