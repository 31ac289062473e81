"""The network under a big simulated overlay: delays of a topology, loss, access links with queues, partitions.

As netem.Network, whose control messages it carries; packets of the data plane go `carry`'s shorter way, one call a
hop.  Hosts are known by number, their endpoints by `endpoint_of`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.sim.clock import Clock
from pipeline.sim.netem import Network, Port
from pipeline.sim.topology import Topology

HEADER_BYTES = 28
"""IP and UDP; control is counted as if it travelled in datagrams of its own."""
QUEUE_S = 0.2
"""What an access link's queue holds at its rate, as a home router's."""
RTO_MIN_S = 0.2
"""TCP sends a lost segment again after this or two round trips, and after twice as long each time more (RFC 6298; the
least is Linux's)."""
TRANSMISSIONS = 6
"""Of a control message: as a connection is given up after some 10 s."""


@dataclass(slots=True)
class Access:
    """One direction of a host's access link."""

    free_at: float = 0.0
    dropped: int = 0


class Underlay(Network):
    """Paths between numbered hosts."""

    def __init__(
        self,
        clock: Clock,
        generator: random.Random,
        topology: Topology,
        numbers: dict[str, int],
        *,
        loss: float = 0.0,
        bandwidth_bps: float | None = None,
    ) -> None:
        super().__init__(clock, generator)
        self.control_bytes = 0
        self.control_messages = 0
        self.packets_lost = 0
        self.loss = loss
        self._topology = topology
        self._numbers = numbers
        self._delays: list[dict[int, float]] = [{} for _ in numbers]
        self._island: list[int] = [0] * len(numbers)
        self._is_plain = not loss and bandwidth_bps is None
        """Nothing happens to packets but delay."""
        self._bandwidth_bps = bandwidth_bps
        self._up_links = [Access() for _ in numbers]
        self._down_links = [Access() for _ in numbers]

    def separate(self, hosts: Iterable[int]) -> None:
        """Cut these off from all others."""
        self._is_plain = False
        for host in hosts:
            self._island[host] = 1

    def reunite(self) -> None:
        """End the partition."""
        self._island = [0] * len(self._island)
        self._is_plain = not self.loss and self._bandwidth_bps is None

    def delay_s(self, one: int, other: int) -> float:
        """One way."""
        row = self._delays[one]
        delay = row.get(other)
        if delay is None:
            delay = row[other] = self._topology.delay_s(one, other)
        return delay

    def send(self, sender: str, to: Port, datagram: Any) -> None:
        """A control message: bytes, on a TCP connection, so what is lost on the way comes later."""
        one, other = self._numbers[sender], self._numbers[to[0]]
        size = len(datagram) + HEADER_BYTES
        self.control_bytes += size
        self.control_messages += 1
        sent_at, rto_s = self._clock.now, max(RTO_MIN_S, 4 * self.delay_s(one, other))
        for _ in range(TRANSMISSIONS):
            if not self._is_lost():
                break
            sent_at += rto_s
            rto_s *= 2
        else:
            return
        delay_s = self._transfer(one, other, size)
        if delay_s is not None:
            self._clock.call_at(sent_at + delay_s, self._reach, sender, one, other, to, datagram)

    def _reach(self, sender: str, one: int, other: int, to: Port, datagram: Any) -> None:
        deliver = self._receivers.get(to)
        if deliver is not None and self._island[one] == self._island[other]:
            deliver(sender, datagram)

    def carry(self, one: int, other: int, size: int, deliver: Callable[..., object], *arguments: Any) -> None:
        """A packet: `deliver(*arguments)` when it arrives."""
        if self._island[one] != self._island[other]:
            return
        delay_s = None if self._is_lost() else self._transfer(one, other, size)
        if delay_s is None:
            self.packets_lost += 1
        else:
            self._clock.call_at(self._clock.now + delay_s, deliver, *arguments)

    def spread(
        self,
        one: int,
        hops: Iterable[tuple[float, Callable[..., object], int]],
        size: int,
        arguments: tuple[Any, ...],
    ) -> None:
        """A packet's copies to several hosts, each with the delay to it (as of `delay_s`) and its `deliver`."""
        if self._is_plain:
            self._clock.call_each(hops, arguments)
        else:
            for _, deliver, other in hops:
                self.carry(one, other, size, deliver, *arguments)

    def _is_lost(self) -> bool:
        return self.loss > 0 and self._random.random() < self.loss

    def _transfer(self, one: int, other: int, size: int) -> float | None:
        """Seconds on the way; None if a queue is full."""
        delay_s = self.delay_s(one, other)
        if self._bandwidth_bps is None:
            return delay_s
        now, airtime_s = self._clock.now, size * 8 / self._bandwidth_bps
        sent_at = _queue(self._up_links[one], now, airtime_s)
        if sent_at is None:
            return None
        # The receiver's queue is entered in the order of sending: what that misplaces is less than a delay's spread.
        come_at = _queue(self._down_links[other], sent_at + delay_s, airtime_s)
        return None if come_at is None else come_at - now


def _queue(link: Access, at: float, airtime_s: float) -> float | None:
    if link.free_at - at > QUEUE_S:
        link.dropped += 1
        return None
    link.free_at = max(link.free_at, at) + airtime_s
    return link.free_at
