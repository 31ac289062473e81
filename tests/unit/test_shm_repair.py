"""Goal: gaps and repair requests pass between control and the stages, and refused requests are counted.

Method: real shared memory, and punts with the layout of C.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pipeline.shm._native import ffi, lib

from pipeline.errors import WireError
from pipeline.shm import counters, repair
from pipeline.shm.region import Geometry, Region


@pytest.fixture
def region() -> Iterator[Region]:
    geometry = Geometry.of(lanes=2, mtu=1436, host_slots=64, overlay_slots=8, fib_entries=256, fib_buckets=64)
    made = Region.create(f"test-repair-{os.getpid()}", geometry)
    yield made
    made.unlink()
    made.close()


def punt(*numbers: int, via: int = 3, count: int | None = None) -> bytes:
    gap = ffi.new("struct mp_repair_gap *", {"origin": 0xFFFFFFFF, "stream": 9, "via": via})
    gap.number[0 : len(numbers)] = list(numbers)
    gap.count = len(numbers) if count is None else count
    return bytes(ffi.buffer(gap))


def test_gap_is_read() -> None:
    """Goal: all fields of a gap are read.  Method: a gap with and without an incoming link."""
    assert repair.read_gap(punt(5, 0xFFFFFFFF)) == repair.Gap(0xFFFFFFFF, 9, 3, (5, 0xFFFFFFFF))
    assert repair.read_gap(punt(via=lib.MP_NO_LINK)) == repair.Gap(0xFFFFFFFF, 9, None, ())


@pytest.mark.parametrize("data", [b"", punt(1)[:-1], punt(1) + b"\0", punt(count=65)])
def test_punt_of_wrong_length_or_count_is_refused(data: bytes) -> None:
    """Goal: a malformed punt is an error.  Method: lengths and a count out of bounds."""
    with pytest.raises(WireError):
        repair.read_gap(data)


def test_new_region_tracks_no_stream(region: Region) -> None:
    """Goal: a new region has no tracks.  Method: read them."""
    assert repair.tracked_streams(region) == {}


def test_requests_are_split_and_bounded(region: Region) -> None:
    """Goal: long requests are split, and those beyond the ring are counted.  Method: 41 requests of 100 numbers."""
    numbers = tuple(range(100))
    assert repair.add_request(region, link=1, origin=7, stream=9, numbers=numbers)
    assert counters.value(region, "resend_asked") == 100
    done = [repair.add_request(region, link=1, origin=7, stream=9, numbers=numbers) for _ in range(40)]
    assert done == [True] * 31 + [False] * 9
    assert counters.value(region, "resend_asked") == 4100
    assert counters.value(region, "resend_refused") == 900
    assert counters.totals(region)["resent"] == 0
