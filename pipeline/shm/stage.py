"""Stages of the data plane, as the shared memory and the workers number them."""

from __future__ import annotations

import enum

from pipeline.shm._native import lib


class Stage(enum.IntEnum):
    """Stage of the data plane (enum mp_stage_id)."""

    TUN_INGRESS = lib.MP_TUN_INGRESS
    CLASSIFY = lib.MP_CLASSIFY
    OVERLAY_EGRESS = lib.MP_OVERLAY_EGRESS
    OVERLAY_INGRESS = lib.MP_OVERLAY_INGRESS

    @property
    def word(self) -> str:
        """The stage in words that users see: `tun_ingress`."""
        return self.name.lower()


assert len(Stage) == lib.MP_STAGES
