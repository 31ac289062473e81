"""Network of impaired paths: datagrams are delayed, lost, duplicated, reordered or cut off, all from one seed.

A datagram may be any object: the receiver's `deliver` is called with it.  The network knows neither nodes nor packets.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pipeline.sim.clock import Clock

Port: TypeAlias = tuple[str, str]
"""(endpoint, service): a node has one endpoint for control and data."""

Deliver: TypeAlias = Callable[[str, Any], object]
"""Receiver of a port: called with the sender's endpoint and the datagram."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """Impairment of a path.  Jitter is uniform: datagrams closer together than that may be reordered."""

    delay_s: float = 0.001
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Share of datagrams that are delayed by another `reorder_s`."""
    reorder_s: float = 0.05


class Network:
    """Paths between endpoints."""

    def __init__(self, clock: Clock, generator: random.Random, impairment: Impairment | None = None) -> None:
        self.impairment = impairment or Impairment()
        """Impairment of every path that has none of its own."""
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._random = generator
        self._receivers: dict[Port, Deliver] = {}
        self._paths: dict[tuple[str, str], Impairment] = {}
        self._islands: dict[str, int] = {}

    def attach(self, port: Port, deliver: Deliver) -> None:
        """Deliver datagrams for this port from now on."""
        self._receivers[port] = deliver

    def detach(self, port: Port) -> None:
        """Lose datagrams for this port from now on, those on the way included."""
        self._receivers.pop(port, None)

    def impair(self, sender: str, receiver: str, impairment: Impairment) -> None:
        """Give one direction of one path its own impairment."""
        self._paths[sender, receiver] = impairment

    def partition(self, *islands: Iterable[str]) -> None:
        """Carry datagrams only within an island from now on.  Endpoints in none of them form another island."""
        self._islands = {endpoint: number for number, island in enumerate(islands, 1) for endpoint in island}

    def heal(self) -> None:
        """End the partition."""
        self._islands = {}

    def send(self, sender: str, to: Port, datagram: Any) -> None:
        """Send a datagram."""
        path = self._paths.get((sender, to[0]), self.impairment)
        self.counters["sent"] += 1
        copies = 2 if self._random.random() < path.duplicate else 1
        for _ in range(copies):
            if self._random.random() < path.loss:
                self.counters["lost"] += 1
                continue
            delay_s = path.delay_s + path.jitter_s * self._random.random()
            if self._random.random() < path.reorder:
                delay_s += path.reorder_s
            self._clock.call_at(self._clock.now + delay_s, self._arrive, sender, to, datagram)

    def _arrive(self, sender: str, to: Port, datagram: Any) -> None:
        deliver = self._receivers.get(to)
        if deliver is None or self._islands.get(sender, 0) != self._islands.get(to[0], 0):
            self.counters["unreachable"] += 1
            return
        deliver(sender, datagram)
