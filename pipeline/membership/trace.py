"""A trace of membership for those who watch: the last rules that fired, kept only while somebody reads them.

    idle       the router has no hook: a rule that fires costs one look at None
    listening  the hook fills a bounded ring; who reads too slowly is told how much was lost

The reader polls with the number of the next event it wants; the first poll starts the trace, and silence ends it.
Several readers share it.  Reads no clock and knows no packet.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.membership.views import TraceEvent

EVENTS_MAX = 16_384
"""Events kept: most of a second at the rate that reports are limited to, and some 4 MB."""

EVENTS_PER_POLL_MAX = 4096
"""Events in one answer: a second of them at two polls in ten would be more than anybody reads."""

SILENCE_S = 3.0
"""A reader that has not polled for so long is gone."""


class Traced(Protocol):
    """What can be traced: the membership router."""

    trace: Callable[[TraceEvent], None] | None


@dataclass(frozen=True, slots=True)
class TracePart:
    """What one poll brings: `next_number` is what to ask for next; `lost` events came and went since the last poll."""

    events: tuple[TraceEvent, ...]
    next_number: int
    lost: int


class TraceBuffer:
    """The ring between a router's hook and the polls of the command line."""

    def __init__(self, router: Traced) -> None:
        self._router = router
        self._events: deque[TraceEvent] = deque(maxlen=EVENTS_MAX)
        self._end = 0  # the number of the next event
        self._polled_at = 0.0

    def poll(self, wanted: int | None, now: float) -> TracePart:
        """Events from number `wanted` on; None, or a number that is of another process, begins with what comes now."""
        if self._router.trace is None:
            self._router.trace = self._take
        self._polled_at = now
        if wanted is None or wanted > self._end:
            return TracePart((), self._end, 0)
        begin = self._end - len(self._events)
        first = max(wanted, begin)
        last = min(self._end, first + EVENTS_PER_POLL_MAX)
        events = tuple(itertools.islice(self._events, first - begin, last - begin))
        return TracePart(events, last, first - wanted)

    def _take(self, event: TraceEvent) -> None:
        if event.now > self._polled_at + SILENCE_S:
            self._router.trace = None
            self._events.clear()
            return
        self._events.append(event)
        self._end += 1
