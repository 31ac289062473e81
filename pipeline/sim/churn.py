"""Which host goes down and comes back when: one trace for all engines that are to be compared.

Up and down times are exponential.  A trace is text too, one event a line: seconds, host, `up` or `down`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """One event."""

    at_s: float
    host: int
    up: bool


def exponential(
    hosts: Iterable[int], *, begin_s: float, end_s: float, mttf_s: float, mttr_s: float, generator: random.Random
) -> list[Turn]:
    """Each host fails after an exponential time of the mean `mttf_s`, comes back after one of `mttr_s`, and so on."""
    turns = []
    for host in hosts:
        at, up = begin_s, True
        while True:
            at += generator.expovariate(1 / (mttf_s if up else mttr_s))
            if at >= end_s:
                break
            up = not up
            turns.append(Turn(at, host, up))
    return sorted(turns)


def write(turns: Collection[Turn]) -> str:
    """The text of a trace."""
    return "".join(f"{turn.at_s:.6f} {turn.host} {'up' if turn.up else 'down'}\n" for turn in turns)


def read(text: str, hosts: int) -> list[Turn]:
    """A trace of so many hosts out of its text; ValueError with the line that is wrong."""
    turns = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            at, host, word = words
            turn = Turn(float(at), int(host), word == "up")
        except ValueError:
            word = ""
        if word not in ("up", "down"):
            raise ValueError(f"line {number}: expected seconds, host and up or down")
        if not 0 <= turn.at_s < math.inf:
            raise ValueError(f"line {number}: {words[0]} is no time")
        if not 0 < turn.host < hosts:
            raise ValueError(f"line {number}: host {turn.host} is none of 1 … {hosts - 1} (0 is the source)")
        turns.append(turn)
    return sorted(turns)
