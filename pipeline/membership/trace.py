"""A trace of membership: the last rules that fired, recorded only while a reader polls for them.

    idle       the router has no hook: a rule that fires costs one comparison with None
    recording  the hook fills a bounded ring; a reader that is too slow gets the number of events that it has missed

A reader polls with the number of the next event that it needs.  The first poll starts the trace; SILENCE_S without a
poll ends it.  Several readers share it.  Reads no clock and knows no packets.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.membership.views import TraceEvent

EVENTS_MAX = 16_384
"""Events in the ring: those of somewhat less than a second at the largest rate of reports, some 4 MB."""

EVENTS_PER_POLL_MAX = 4096
"""Events in one reply: at ten polls a second more than anybody reads."""

SILENCE_S = 3.0
"""A reader that has not polled for this time has ended."""


class Traced(Protocol):
    """An object with a trace hook: the membership router."""

    trace: Callable[[TraceEvent], None] | None


@dataclass(frozen=True, slots=True)
class TracePart:
    """Reply to one poll: `next_number` is for the next poll; `lost` events have left the ring before this one."""

    events: tuple[TraceEvent, ...]
    next_number: int
    lost: int


class TraceBuffer:
    """The ring between a router's hook and the polls of the command line."""

    def __init__(self, router: Traced) -> None:
        self._router = router
        self._events: deque[TraceEvent] = deque(maxlen=EVENTS_MAX)
        self._end = 0  # number of the next event
        self._polled_at = 0.0

    def poll(self, number: int | None, now: float) -> TracePart:
        """Return the events from this number on.

        With None, or with a number that another process has given, the trace begins at the next event.
        """
        if self._router.trace is None:
            self._router.trace = self._record
        self._polled_at = now
        if number is None or number > self._end:
            return TracePart((), self._end, 0)
        begin = self._end - len(self._events)
        first = max(number, begin)
        last = min(self._end, first + EVENTS_PER_POLL_MAX)
        events = tuple(itertools.islice(self._events, first - begin, last - begin))
        return TracePart(events, last, first - number)

    def _record(self, event: TraceEvent) -> None:
        if event.now > self._polled_at + SILENCE_S:
            self._router.trace = None
            self._events.clear()
            return
        self._events.append(event)
        self._end += 1
