"""Levels of the rings, and the stages that their slots wait for.  Read only.

The numbers of a running instance are of about the same time; they are not a snapshot.
"""

from __future__ import annotations

from typing import Any

from pipeline.shm._native import ffi, lib
from pipeline.shm.region import Region
from pipeline.shm.stage import Stage

RINGS = {lib.MP_RING_HOST: "host", lib.MP_RING_OVERLAY: "overlay"}
"""Words of the rings (enum mp_ring_id)."""


def levels(region: Region) -> list[dict[str, Any]]:
    """Return a row for each ring and lane.

    `ring`, `lane`, `slots`; `used`: slots in work now; `published`: slots since the start; `waiting`: slots before each
    stage but the first; `sleeping`: stages that wait at their doorbell.
    """
    view = ffi.new("struct mp_ring_view *")
    rows = []
    for lane in range(region.geometry.lanes):
        for number, name in RINGS.items():
            status = lib.mp_ring_get(region.native, lane, number, view)
            assert status == 0, "lane and ring are in bounds"
            stages = [Stage(view.stage[i]).word for i in range(view.stages)]
            passed = [view.passed[i] for i in range(view.stages)]
            rows.append(
                {
                    "ring": name,
                    "lane": lane,
                    "slots": view.slots,
                    "used": min(passed[0] - passed[-1], view.slots),
                    "published": passed[0],
                    "waiting": {stages[i]: min(passed[i - 1] - passed[i], view.slots) for i in range(1, len(stages))},
                    "sleeping": [stages[i] for i in range(len(stages)) if view.sleeping[i]],
                }
            )
    return rows
