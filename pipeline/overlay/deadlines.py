"""Deadlines by key: set, move, clear and expire at a cost that does not grow with their number (a lazy heap).

A moved or cleared deadline stays in the heap until its time comes or until half of the heap is such leftovers.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """When each key is due, in the caller's seconds."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._ticket = itertools.count()

    def set(self, key: K, due: float) -> None:
        """Set or move a deadline."""
        if self._due.get(key) == due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._ticket), key))
        if len(self._heap) > 64 + 2 * len(self._due):
            self._heap = [(at, next(self._ticket), each) for each, at in self._due.items()]
            heapq.heapify(self._heap)

    def clear(self, key: K) -> None:
        """Forget a deadline, if there is one."""
        self._due.pop(key, None)

    def next_due(self) -> float | None:
        """The earliest deadline."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_expired(self, now: float) -> K | None:
        """A key whose time has come, its deadline cleared; the earliest first."""
        due = self.next_due()
        if due is None or due > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._due[key]
        return key
