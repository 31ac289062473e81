"""Deadlines and lifetimes by key.  Reads no clock.

The heap holds one valid entry for each key, which comes up at the key's deadline or before it.  A deadline that moves
to a later time, as most do, leaves its entry in place; the entry is put back at the real deadline when it comes up.
Entries of deadlines that were cleared, or moved to an earlier time, are stale.  They are dropped when they come up, or
all at once when they outnumber the valid ones.  Reads no clock.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_STALE_MIN = 64
"""Stale entries below this number cost less than a rebuild of the heap."""


class Deadlines(Generic[K]):
    """Deadline of each key, in the caller's seconds.

    Keys with the same deadline expire in the order in which their entries entered the heap.
    """

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._early: dict[K, float] = {}
        """Time of the heap entry, for keys with a deadline that has moved to a later time."""
        self._heap: list[tuple[float, int, K]] = []
        self._ticket = itertools.count()

    def set(self, key: K, due: float) -> None:
        """Set a deadline, or move it to an earlier or a later time."""
        old = self._due.get(key)
        self._due[key] = due
        if old is not None:
            if due > old:
                self._early.setdefault(key, old)
            if due >= old:
                return
            early = self._early.get(key)
            if early is not None:
                if due > early:
                    return
                del self._early[key]
                if due == early:
                    return
        heapq.heappush(self._heap, (due, next(self._ticket), key))
        if len(self._heap) > _STALE_MIN + 2 * len(self._due):
            self._rebuild()

    def bring_forward(self, key: K, due: float) -> None:
        """Set a deadline, or move it to an earlier time; a later time than the present one changes nothing."""
        if due < self._due.get(key, math.inf):
            self.set(key, due)

    def clear(self, key: K) -> None:
        """Remove a deadline, if there is one."""
        self._due.pop(key, None)
        self._early.pop(key, None)

    def next_due(self) -> float | None:
        """Return the earliest deadline, or None if there is none."""
        heap = self._heap
        while heap:
            at, _, key = heap[0]
            due = self._due.get(key)
            if due == at:
                return at
            if due is None or self._early.get(key) != at:
                heapq.heappop(heap)
            else:
                del self._early[key]
                heapq.heapreplace(heap, (due, next(self._ticket), key))
        return None

    def pop_expired(self, now: float) -> K | None:
        """Remove the earliest deadline that is not after `now` and return its key; None if there is none."""
        if not self._heap or self._heap[0][0] > now:
            return None
        due = self.next_due()
        if due is None or due > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._due[key]
        return key

    def _rebuild(self) -> None:
        self._early.clear()
        self._heap = [(due, next(self._ticket), key) for key, due in self._due.items()]
        heapq.heapify(self._heap)


class TtlMap(Generic[K]):
    """Keys that expire, each at a time of its own in the caller's seconds.

    `add` removes all expired keys, so that the map holds no more than the keys added within the longest lifetime.
    """

    __slots__ = ("_expires_at",)

    def __init__(self) -> None:
        self._expires_at: dict[K, float] = {}

    def add(self, key: K, expires_at: float, now: float) -> None:
        """Add a key, or replace the time at which it expires."""
        self._expires_at = {each: at for each, at in self._expires_at.items() if at > now}
        self._expires_at[key] = expires_at

    def has(self, key: K, now: float) -> bool:
        """Return whether the key has been added and has not expired."""
        return self._expires_at.get(key, now) > now

    def discard(self, key: K) -> None:
        """Remove a key, if it is there."""
        self._expires_at.pop(key, None)
