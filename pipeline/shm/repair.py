"""Repair between control and the stages: gaps that overlay_ingress sees, how far its streams have come, and what
overlay_egress is to send once more.

It knows streams by their numbers (forwarding/table.py) and peers by their links, and decides nothing.
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
    """What a stream lacks now, oldest first; nothing: it is whole again."""

    origin: NodeId
    stream: int
    via: int | None
    """The link by which its last datagram came; None: from nobody known."""
    numbers: tuple[int, ...]


def read_gap(punt: bytes) -> Gap:
    """The gap in a punt; WireError if there is none."""
    gap = ffi.new("struct mp_repair_gap *")
    if len(punt) != ffi.sizeof("struct mp_repair_gap"):
        raise WireError("no gap")
    ffi.memmove(gap, punt, len(punt))
    if gap.count > len(gap.number):
        raise WireError("no gap")
    via = None if gap.via == lib.MP_NO_LINK else gap.via
    return Gap(gap.origin, gap.stream, via, tuple(gap.number[0 : gap.count]))


def resend(region: Region, *, link: int, origin: NodeId, stream: int, numbers: Sequence[int]) -> bool:
    """Orders the stages to send these datagrams to that link; False if they are behind, which is counted."""
    status = 0
    for at in range(0, len(numbers), lib.MP_REPAIR_REQUEST_NUMBERS):
        part = numbers[at : at + lib.MP_REPAIR_REQUEST_NUMBERS]
        status |= lib.mp_repair_request_add(region.native, link, origin, stream, part, len(part))
    return status == 0


def tracked_streams(region: Region) -> dict[tuple[NodeId, int], int]:
    """The highest number of each stream that the stages follow, by origin and stream; numbers wrap at 32 bits."""
    found = ffi.new("struct mp_tracked_stream[]", lib.MP_REPAIR_TRACKS)
    count = lib.mp_repair_track_list(region.native, found)
    return {(each.origin, each.stream): each.highest for each in found[0:count]}
