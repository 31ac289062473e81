"""Virtual time: things happen in the order of their times, and in the order they were planned where times are equal."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Any


class Clock:
    """A queue of calls to come, and the time of the last one."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._queue: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._ticket = itertools.count()

    def call_at(self, time: float, function: Callable[..., object], *arguments: Any) -> None:
        """Plan a call; a time that has passed means now."""
        heapq.heappush(self._queue, (max(time, self.now), next(self._ticket), function, arguments))

    def call_each(
        self, calls: Iterable[tuple[float, Callable[..., object], object]], arguments: tuple[Any, ...]
    ) -> None:
        """Plan calls of several functions with the same arguments, each in so many seconds from now; what else stands
        with them is not looked at.
        """
        now, queue, ticket, push = self.now, self._queue, self._ticket, heapq.heappush
        for delay_s, function, _ in calls:
            push(queue, (now + delay_s, next(ticket), function, arguments))

    def run_until(self, time: float) -> None:
        """Let everything happen up to and including that time."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= time:
            self.now, _, function, arguments = pop(queue)
            function(*arguments)
        self.now = max(self.now, time)

    def run_while(self, condition: Callable[[], bool], *, limit_s: float) -> bool:
        """Let time pass while the condition holds.  Returns whether it ended within the limit."""
        end = self.now + limit_s
        while condition():
            if not self._queue or self._queue[0][0] > end:
                self.now = end
                return False
            self.run_until(self._queue[0][0])
        return True
