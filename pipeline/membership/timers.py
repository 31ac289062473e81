"""When which group needs a look: a heap with one live entry a group and lazy deletion.

A report moves timers later far more often than earlier, so it costs nothing here: the entry stays where it is, comes
up early, and is put back at the group's next real deadline.  What a report costs does not depend on the number of
groups.  Stale entries (their deadline is no longer the group's `scheduled`) are dropped when they come up, or all at
once when they outnumber the live ones.  Reads no clock.
"""

from __future__ import annotations

import heapq
import itertools

from pipeline.membership.state import NEVER, GroupState

_STALE_MIN = 1024
"""Below this many entries cleaning up is not worth its cost."""


class TimerQueue:
    """The groups by their next deadline."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, GroupState]] = []
        self._order = itertools.count()  # groups due at once are served in the order in which they were scheduled
        self._live = 0

    def __len__(self) -> int:
        """Entries held, stale ones included."""
        return len(self._heap)

    def schedule(self, record: GroupState, deadline: float) -> None:
        """Have the group looked at by `deadline`; a later one than is known already changes nothing."""
        if deadline >= record.scheduled:
            return
        if record.scheduled == NEVER:
            self._live += 1
        record.scheduled = deadline
        heapq.heappush(self._heap, (deadline, next(self._order), record))
        if len(self._heap) > 2 * self._live + _STALE_MIN:
            self._heap = [entry for entry in self._heap if entry[0] == entry[2].scheduled]
            heapq.heapify(self._heap)

    def forget(self, record: GroupState) -> None:
        """The group is gone or just came up: its entry counts no more."""
        if record.scheduled != NEVER:
            self._live -= 1
            record.scheduled = NEVER

    def pop_due(self, now: float) -> GroupState | None:
        """A group whose entry is due by now, to be scheduled again by the caller; None if there is none."""
        while self._heap and self._heap[0][0] <= now:
            deadline, _, record = heapq.heappop(self._heap)
            if deadline == record.scheduled:
                self.forget(record)
                return record
        return None

    def next_deadline(self) -> float | None:
        """When `pop_due` may have something; None if no group waits for anything."""
        while self._heap and self._heap[0][0] != self._heap[0][2].scheduled:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
