"""Which groups local programs send to, as far as control is told: the first packet without an entry is punted.

A group is a source's until its forwarding entry has not been used for two sweeps.  It knows no time: the sweep's
caller does.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from pipeline import limits
from pipeline.address import Address

IDLE_SWEEPS = 2


class LocalSources:
    """Groups with a local source."""

    def __init__(self) -> None:
        self._idle: dict[Address, int] = {}

    def add(self, group: Address) -> bool:
        """A packet to the group was punted.  True if this is a new source, within the bound on groups."""
        is_new = group not in self._idle and len(self._idle) < limits.GROUPS_MAX
        if is_new or group in self._idle:
            self._idle[group] = 0
        return is_new

    def expire_idle(self, used: AbstractSet[Address]) -> list[Address]:
        """A sweep: `used` are the groups sent to since the last.  Returns those given up, which are forgotten."""
        gone = []
        for group, sweeps in list(self._idle.items()):
            if group in used:
                self._idle[group] = 0
            elif sweeps + 1 >= IDLE_SWEEPS:
                del self._idle[group]
                gone.append(group)
            else:
                self._idle[group] = sweeps + 1
        return gone

    def __len__(self) -> int:
        return len(self._idle)
