"""Assignment of stages and lanes to worker processes.

    workers   lanes   processes of a lane
    1         1       all
    2         1       sender (tun_ingress, classify, overlay_egress), receiver (overlay_ingress)
    4·n       n       one for each stage

A packet's path: tun_ingress → classify → overlay_egress → the network → overlay_ingress → TUN of the next host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.shm.stage import Stage

STAGES = len(Stage)


@dataclass(frozen=True, slots=True)
class Worker:
    """Worker process; `role` is its word in `show workers`."""

    role: str
    lane: int
    stages: tuple[Stage, ...]

    @property
    def inline_stages(self) -> tuple[Stage, ...]:
        """Later stages of a packet's path, which the worker runs itself while their processes sleep (mp_hand_off.h)."""
        later = {after for stage in self.stages for after in _LATER_STAGES[stage]}
        return tuple(sorted(later - set(self.stages)))

    @property
    def process(self) -> int:
        """Index in the region's process table; 0 is control."""
        return 1 + STAGES * self.lane + min(self.stages)


def mask(stages: Iterable[Stage]) -> int:
    """Return the bit set of stages, as C has it."""
    return sum(1 << stage for stage in stages)


_LATER_STAGES = {
    Stage.TUN_INGRESS: (Stage.CLASSIFY, Stage.OVERLAY_EGRESS),
    Stage.CLASSIFY: (Stage.OVERLAY_EGRESS,),
    Stage.OVERLAY_EGRESS: (),
    Stage.OVERLAY_INGRESS: (Stage.OVERLAY_EGRESS,),
}
_SENDER = (Stage.TUN_INGRESS, Stage.CLASSIFY, Stage.OVERLAY_EGRESS)


def workers(count: int) -> list[Worker]:
    """Return the worker processes of `--workers count`, which is 1, 2 or a multiple of 4 (config_checks.py)."""
    if count == 1:
        return [Worker("all", 0, tuple(Stage))]
    if count == 2:
        return [Worker("sender", 0, _SENDER), Worker("receiver", 0, (Stage.OVERLAY_INGRESS,))]
    return [Worker(stage.word, lane, (stage,)) for lane in range(count // STAGES) for stage in Stage]
