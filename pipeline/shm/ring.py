"""How full the rings are and which stage the slots wait for.  Read only.

Numbers of a running instance are of about the same time, never of one instant.
"""

from __future__ import annotations

from typing import Any

from pipeline.shm._native import ffi, lib
from pipeline.shm.region import Region

RINGS = ("host", "overlay")
"""As enum mp_ring_id."""
STAGES = ("tun_ingress", "classify", "overlay_egress", "overlay_ingress")
"""As enum mp_stage_id."""


def levels(region: Region) -> list[dict[str, Any]]:
    """One row a ring and lane: `ring`, `lane`, `slots`, `used` (now under way), `published` (since the start),
    `waiting` (slots before each stage that follows the first), `sleeping` (stages that wait at their doorbell).
    """
    view = ffi.new("struct mp_ring_view *")
    rows = []
    for lane in range(region.geometry.lanes):
        for number, name in enumerate(RINGS):
            status = lib.mp_ring_get(region.native, lane, number, view)
            assert status == 0, "lane and ring are in bounds"
            stages = [STAGES[view.stage[i]] for i in range(view.stages)]
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
