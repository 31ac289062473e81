"""Goal: a region is created, shared, reserved, refused and removed, and its process table holds the values set.

Method: real POSIX shared memory under names of this test; a forked child as second process; a posix_fallocate that
fails stands for a full /dev/shm.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import limits
from pipeline.config_checks import GROUP_PREFIXES_MAX
from pipeline.errors import PipelineError
from pipeline.io import seccomp
from pipeline.shm import _native, counters, ring
from pipeline.shm.region import Geometry, ProcessState, Region
from pipeline.shm.stage import Stage

ffi, lib = _native.ffi, _native.lib

NAME = f"test-shm-{os.getpid()}"
PATH = Path(f"/dev/shm/mcast-pipeline.{NAME}")
SMALL = Geometry.of(lanes=2, mtu=1436, host_slots=64, overlay_slots=8, fib_entries=256, fib_buckets=64, seed=1)


@pytest.fixture
def region() -> Iterator[Region]:
    made = Region.create(NAME, SMALL)
    yield made
    made.unlink()
    made.close()


def test_slot_size_follows_mtu() -> None:
    """Goal: a slot holds a packet of the MTU's size, its header and tag.
    Method: MTUs around the bounds; the default numbers."""
    assert Geometry.of(lanes=1, mtu=1436).host_slot_bytes == 2048
    assert Geometry.of(lanes=1, mtu=1728).host_slot_bytes == 2048
    assert Geometry.of(lanes=1, mtu=1729).host_slot_bytes == 4096
    assert Geometry.of(lanes=1, mtu=8936).host_slot_bytes == 10240
    defaults = Geometry.of(lanes=4, mtu=1436)
    assert (defaults.host_slots, defaults.overlay_slots) == (1024, 64)
    assert (defaults.fib_entries, defaults.fib_buckets) == (262144, 262144)


def test_bounds_of_python_equal_those_of_c() -> None:
    """Modules below pipeline.shm cannot import the library: their bounds are declared twice and compared here."""
    assert limits.LANES_MAX == lib.MP_LANES_MAX
    assert limits.NODES_MAX == lib.MP_LINKS_MAX
    assert limits.STRIPES_MAX == lib.MP_STRIPES_MAX
    assert GROUP_PREFIXES_MAX == lib.MP_PREFIXES_MAX


def test_stages_of_seccomp_are_those_of_c() -> None:
    """The filters of system calls are declared by the words of the stages."""
    assert set(seccomp.STAGES) == {stage.word for stage in Stage}


def test_hash_seeds_differ() -> None:
    """Goal: no sender can choose groups that collide in the forwarding table.  Method: twenty geometries."""
    assert len({Geometry.of(lanes=1, mtu=1436).seed for _ in range(20)}) > 1


def test_created_region_is_private_and_formatted(region: Region) -> None:
    """Goal: only its user can open a region, and C accepts it.  Method: mode, size and check."""
    assert stat.S_IMODE(PATH.stat().st_mode) == 0o600
    assert PATH.stat().st_size == region.size == lib.mp_region_size(ffi.addressof(region.native.geometry))
    assert region.geometry == SMALL
    assert lib.mp_region_check(region.native, region.size) == 0


def test_pages_have_memory_when_reserved(region: Region) -> None:
    """Goal: a full /dev/shm is an error at the reservation, not a SIGBUS later.
    Method: blocks of the file before and after."""
    eager = lib.mp_region_lazy_at(ffi.addressof(region.native.geometry))
    assert eager <= PATH.stat().st_blocks * 512 < eager + 65536
    region.reserve(region.size - 10_000, region.size + 10_000)
    assert eager + 8192 <= PATH.stat().st_blocks * 512
    assert PATH.stat().st_size == region.size


def test_name_in_use_is_refused(region: Region) -> None:
    """Goal: one line with the name, and the region of the other instance stays.  Method: create it twice."""
    with pytest.raises(PipelineError, match=NAME) as caught:
        Region.create(NAME, SMALL)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert PATH.exists()


def test_full_dev_shm_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: one line with the size that is needed, and no file is left.  Method: posix_fallocate fails."""

    def refuse(_fd: int, _start: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(PipelineError, match=r"/dev/shm is full.*needs \d+ bytes") as caught:
        Region.create(NAME, SMALL)
    assert "\n" not in str(caught.value)
    assert not PATH.exists()


def test_bad_geometry_creates_no_region() -> None:
    """Goal: a geometry out of bounds is an error before a file exists.  Method: 17 lanes."""
    with pytest.raises(PipelineError, match="out of bounds"):
        Region.create(NAME, Geometry.of(lanes=17, mtu=1436))
    assert not PATH.exists()


def test_attached_region_shares_memory(region: Region) -> None:
    """Goal: an attached region has the same memory.  Method: write at either side."""
    region.set_process_pid(3, 99)
    other = Region.attach(NAME)
    assert other.process(3).pid == 99
    other.set_process_state(3, ProcessState.STOPPED)
    other.close()
    other.close()
    assert region.process_state(3) is ProcessState.STOPPED


def test_attach_without_instance_is_refused() -> None:
    """Goal: the error shows that no instance runs.  Method: a name without region."""
    with pytest.raises(PipelineError, match="not running"):
        Region.attach(NAME)


@pytest.mark.parametrize(("size", "word"), [(0, "no region"), (65536, "another version")])
def test_attach_to_foreign_memory_is_refused(size: int, word: str) -> None:
    """Goal: memory of another version or program is not used.  Method: files of other contents."""
    PATH.write_bytes(bytes(size))
    try:
        with pytest.raises(PipelineError, match=word):
            Region.attach(NAME)
    finally:
        assert Region.unlink_stale(NAME)
    assert not Region.unlink_stale(NAME)


def test_children_share_the_mapping(region: Region) -> None:
    """Goal: a forked process uses the region without attaching.  Method: a child writes, its parent reads."""
    pid = os.fork()
    if pid == 0:
        region.set_process_state(1, ProcessState.READY)
        region.reserve(region.size - 4096, region.size)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert region.process_state(1) is ProcessState.READY


def test_process_table_holds_values_set(region: Region) -> None:
    """Goal: state, pid, stages and restarts of a process are kept.
    Method: set and read each; an index beyond the table."""
    assert region.process(8).state is ProcessState.ABSENT
    region.set_process_stages(8, 0b1000)
    region.set_process_pid(8, 4321)
    region.count_restart(8)
    region.count_restart(8)
    assert (region.process_pid(8), region.process_restarts(8), region.process(8).stages) == (4321, 2, 8)
    for call in (region.process, region.process_pid, region.count_restart):
        with pytest.raises(IndexError):
            call(9)


def test_counters_begin_at_zero(region: Region) -> None:
    """Goal: every counter exists from the start.  Method: the totals of a new region."""
    found = counters.totals(region)
    assert set(found) == {*counters.EVENTS, "drops"}
    assert set(found["drops"]) == set(counters.DROPS)
    assert {"tun_rx_packets", "sealed"} <= set(counters.EVENTS)
    assert {"replay", "restart_skip", "hop_limit"} <= set(counters.DROPS)
    assert not any(found["drops"].values())
    assert counters.value(region, "replay", lane=1, stage=3) == 0
    assert counters.text("replay") == "seen before or older than the window"
    with pytest.raises(KeyError):
        counters.value(region, "nonsense")


def test_ring_levels_begin_empty(region: Region) -> None:
    """Goal: a new ring has no slots in use.  Method: the levels of two lanes."""
    rows = ring.levels(region)
    assert [(row["ring"], row["lane"]) for row in rows] == [("host", 0), ("overlay", 0), ("host", 1), ("overlay", 1)]
    assert [(row["slots"], row["used"], row["published"]) for row in rows] == [(64, 0, 0), (8, 0, 0)] * 2
    assert rows[0]["waiting"] == {"classify": 0, "overlay_egress": 0}
    assert rows[1]["waiting"] == {"overlay_egress": 0}
    assert rows[0]["sleeping"] == []
