"""Churn traces: the times at which hosts fail and return.  Engines that are compared run with the same trace.

Up times and down times are exponentially distributed.  As text, a trace has one event a line: seconds, host, `up` or
`down`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ChurnEvent:
    """A host fails, or returns if `is_up`."""

    at_s: float
    host: int
    is_up: bool


def exponential(
    hosts: Iterable[int], *, begin_s: float, end_s: float, mttf_s: float, mttr_s: float, generator: random.Random
) -> list[ChurnEvent]:
    """Return a trace in which up times have the mean `mttf_s` and down times the mean `mttr_s`."""
    events = []
    for host in hosts:
        at, is_up = begin_s, True
        while True:
            at += generator.expovariate(1 / (mttf_s if is_up else mttr_s))
            if at >= end_s:
                break
            is_up = not is_up
            events.append(ChurnEvent(at, host, is_up))
    return sorted(events)


def write(events: Collection[ChurnEvent]) -> str:
    """Return a trace as text."""
    return "".join(f"{event.at_s:.6f} {event.host} {'up' if event.is_up else 'down'}\n" for event in events)


def read(text: str, hosts: int) -> list[ChurnEvent]:
    """Return the trace for this number of hosts; ValueError names the line that is wrong."""
    events = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            at, host, state = words
            event = ChurnEvent(float(at), int(host), state == "up")
        except ValueError:
            state = ""
        if state not in ("up", "down"):
            raise ValueError(f"line {number}: expected seconds, host and up or down")
        if not 0 <= event.at_s < math.inf:
            raise ValueError(f"line {number}: {words[0]} is no time")
        if not 0 < event.host < hosts:
            raise ValueError(f"line {number}: host {event.host} is none of 1 … {hosts - 1} (0 is the source)")
        events.append(event)
    return sorted(events)
