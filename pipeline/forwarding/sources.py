"""Groups to which local programs send.

Control learns of a new group from a punt, the first packet without a forwarding entry.  It learns at each sweep which
entries have been used since the last one.  This module reads no clock: the caller of the sweep does.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from pipeline import limits
from pipeline.address import Address

IDLE_SWEEPS = 2
"""A group has no local source any more when its entry has not been used for this number of sweeps."""


class LocalSources:
    """Groups with a local source."""

    def __init__(self) -> None:
        self._idle_sweeps: dict[Address, int] = {}

    def add(self, group: Address) -> bool:
        """Note a punted packet to the group; return whether the group is new and within the limit."""
        is_new = group not in self._idle_sweeps and len(self._idle_sweeps) < limits.GROUPS_MAX
        if is_new or group in self._idle_sweeps:
            self._idle_sweeps[group] = 0
        return is_new

    def expire_idle(self, used: AbstractSet[Address]) -> list[Address]:
        """Remove and return the idle groups; `used` are the groups to which packets were sent since the last sweep."""
        expired = []
        for group, sweeps in list(self._idle_sweeps.items()):
            if group in used:
                self._idle_sweeps[group] = 0
            elif sweeps + 1 >= IDLE_SWEEPS:
                del self._idle_sweeps[group]
                expired.append(group)
            else:
                self._idle_sweeps[group] = sweeps + 1
        return expired

    def __len__(self) -> int:
        return len(self._idle_sweeps)
