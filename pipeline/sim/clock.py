"""Virtual time: calls run in the order of their times; calls of equal time run in the order in which they were made."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Any


class Clock:
    """Queue of future calls, and the time of the last call that ran."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._queue: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._serial = itertools.count()

    def call_at(self, time: float, function: Callable[..., object], *arguments: Any) -> None:
        """Schedule a call; a time in the past means now."""
        heapq.heappush(self._queue, (max(time, self.now), next(self._serial), function, arguments))

    def call_each(
        self, calls: Iterable[tuple[float, Callable[..., object], object]], arguments: tuple[Any, ...]
    ) -> None:
        """Schedule several functions with the same arguments.

        A call is a delay in seconds, a function, and a third value, which belongs to the caller and is ignored.
        """
        now, queue, serial, push = self.now, self._queue, self._serial, heapq.heappush
        for delay_s, function, _ in calls:
            push(queue, (now + delay_s, next(serial), function, arguments))

    def run_until(self, time: float) -> None:
        """Run all calls up to and including this time."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= time:
            self.now, _, function, arguments = pop(queue)
            function(*arguments)
        self.now = max(self.now, time)

    def run_while(self, condition: Callable[[], bool], *, limit_s: float) -> bool:
        """Run calls while the condition holds.  Return whether it ended within the limit."""
        end = self.now + limit_s
        while condition():
            if not self._queue or self._queue[0][0] > end:
                self.now = end
                return False
            self.run_until(self._queue[0][0])
        return True
