"""Deadlines by key: set, move, clear and expire at a cost that does not grow with their number (a lazy heap).

The heap holds an entry of each key that comes up at its deadline or before.  A deadline that moves to a later time, as
most do, leaves its entry where it is; the entry goes back to its place when it comes up.  Entries of deadlines that
have been cleared, or moved to an earlier time, stay until they come up or until they are half of the heap.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """When each key is due, in the caller's seconds."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._at: dict[K, float] = {}
        """When each key's entry in the heap comes up."""
        self._heap: list[tuple[float, int, K]] = []
        self._ticket = itertools.count()

    def set(self, key: K, due: float) -> None:
        """Set or move a deadline."""
        if self._due.get(key) == due:
            return
        self._due[key] = due
        if due < self._at.get(key, math.inf):
            self._at[key] = due
            heapq.heappush(self._heap, (due, next(self._ticket), key))
            if len(self._heap) > 64 + 2 * len(self._due):
                self._at = dict(self._due)
                self._heap = [(at, next(self._ticket), each) for each, at in self._due.items()]
                heapq.heapify(self._heap)

    def clear(self, key: K) -> None:
        """Forget a deadline, if there is one."""
        self._due.pop(key, None)

    def next_due(self) -> float | None:
        """The earliest deadline."""
        heap = self._heap
        while heap:
            at, _, key = heap[0]
            due = self._due.get(key)
            if due == at:
                return at
            if due is None or self._at[key] != at:
                heapq.heappop(heap)
                if due is None and self._at.get(key) == at:
                    del self._at[key]
            else:
                self._at[key] = due
                heapq.heapreplace(heap, (due, next(self._ticket), key))
        return None

    def pop_expired(self, now: float) -> K | None:
        """A key whose time has come, its deadline cleared; the earliest first."""
        if not self._heap or self._heap[0][0] > now:
            return None
        due = self.next_due()
        if due is None or due > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._due[key], self._at[key]
        return key
