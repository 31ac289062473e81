"""Streams that came steadily and have stopped.

A gap is seen by what comes after it.  Where nothing comes any more there is none, whether the source has ended or
everybody is gone who passed the stream on; so who wants to know which of the two it is has to ask.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

LOOK_S = 1.0
"""Between two looks; a stream has stopped when it has not moved from one to the next."""
STEADY = 3
"""Packets from one look to the next, of a stream whose silence is worth a question."""

K = TypeVar("K", bound=Hashable)


class StreamStallDetector(Generic[K]):
    """Of all streams of a node.  It is told once that a stream has stopped, until it comes steadily again."""

    def __init__(self) -> None:
        self._before: Mapping[K, int] = {}
        self._steady: set[K] = set()

    def look(self, highest: Mapping[K, int]) -> list[K]:
        """The highest number of each stream, each LOOK_S; returns those that have just stopped."""
        stopped = []
        for key, number in highest.items():
            grown = number - self._before.get(key, number)
            if grown >= STEADY:
                self._steady.add(key)
            elif not grown and key in self._steady:
                stopped.append(key)
        self._steady.difference_update(stopped)
        self._steady.intersection_update(highest)
        self._before = highest
        return stopped
