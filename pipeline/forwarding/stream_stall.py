"""Detector of stream stalls: streams that were steady and have stopped.

A gap is seen by the packet after it.  Where no packet arrives any more no gap is seen, whether the source has ended or
every node that forwarded the stream has failed.  An engine that repairs streams has to find out which it is.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

TICK_S = 1.0
"""Time between two ticks; a stream has stalled when no packet arrived from one tick to the next."""
STEADY_PACKETS = 3
"""Packets between two ticks that make a stream steady; a rare packet more or less is no stall."""

K = TypeVar("K", bound=Hashable)


class StreamStallDetector(Generic[K]):
    """Detector for all streams of a node.  It reports a stall once, until the stream is steady again."""

    def __init__(self) -> None:
        self._previous: Mapping[K, int] = {}
        self._steady: set[K] = set()

    def tick(self, highest: Mapping[K, int]) -> list[K]:
        """Return the streams that have just stalled, given the highest sequence number of each, every TICK_S."""
        stalled = []
        for key, number in highest.items():
            packets = number - self._previous.get(key, number)
            if packets >= STEADY_PACKETS:
                self._steady.add(key)
            elif not packets and key in self._steady:
                stalled.append(key)
        self._steady.difference_update(stalled)
        self._steady.intersection_update(highest)
        self._previous = highest
        return stalled
