"""Repair of streams between control and the stages: gaps, tracked streams, and requests to retransmit.

overlay_ingress reports gaps and tracks streams; overlay_egress carries out the requests.  This module names streams by
their numbers (forwarding/table.py) and peers by their links.  It decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.address import NodeId
from pipeline.errors import WireError
from pipeline.shm._native import ffi, lib
from pipeline.shm.region import Region


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing datagrams of a stream, the oldest first; no numbers: none is missing any more."""

    origin: NodeId
    stream: int
    via: int | None
    """Link by which the last datagram arrived; None: from no known peer."""
    numbers: tuple[int, ...]


def read_gap(punt: bytes) -> Gap:
    """Return the gap in a punt of kind GAP; WireError if its length or count is wrong."""
    gap = ffi.new("struct mp_repair_gap *")
    if len(punt) != ffi.sizeof("struct mp_repair_gap"):
        raise WireError("no gap")
    ffi.memmove(gap, punt, len(punt))
    if gap.count > len(gap.number):
        raise WireError("no gap")
    via = None if gap.via == lib.MP_NO_LINK else gap.via
    return Gap(gap.origin, gap.stream, via, tuple(gap.number[0 : gap.count]))


def add_request(region: Region, *, link: int, origin: NodeId, stream: int, numbers: Sequence[int]) -> bool:
    """Request the stages to retransmit datagrams to a link; False: too many requests are queued, which is counted."""
    status = 0
    for at in range(0, len(numbers), lib.MP_REPAIR_REQUEST_NUMBERS):
        part = numbers[at : at + lib.MP_REPAIR_REQUEST_NUMBERS]
        status |= lib.mp_repair_request_add(region.native, link, origin, stream, part, len(part))
    return status == 0


def tracked_streams(region: Region) -> dict[tuple[NodeId, int], int]:
    """Return the highest number received of each tracked stream, by origin and stream; numbers wrap at 32 bits."""
    found = ffi.new("struct mp_tracked_stream[]", lib.MP_REPAIR_TRACKS)
    count = lib.mp_repair_track_list(region.native, found)
    return {(each.origin, each.stream): each.highest for each in found[0:count]}
