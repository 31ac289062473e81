"""Network under a large simulated overlay: delays of a topology, loss, access links with queues, partitions.

Control messages travel as on TCP connections (`send`).  Packets of the data plane travel as datagrams (`send_packet`,
`send_copies`), with one scheduled call for each hop.  Hosts are known by number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pipeline.sim.clock import Clock
from pipeline.sim.netem import Deliver, Port
from pipeline.sim.topology import Topology

HEADER_BYTES = 28
"""IP and UDP header; each control message is counted as if it were a datagram."""
QUEUE_S = 0.2
"""Length of an access link's queue at the link's rate, as in a home router."""
RTO_MIN_S = 0.2
"""Least retransmission timeout, as in Linux.  The first timeout is two round trips, and each further one is twice as
long (RFC 6298)."""
TRANSMISSIONS_MAX = 6
"""Transmissions of a control message before it is lost: the connection is closed after about 10 s."""

Hop: TypeAlias = tuple[float, Callable[..., None], int]
"""One copy of a packet: its delay in seconds, the receiver's function, and the receiver's host number."""


@dataclass(slots=True)
class AccessLink:
    """One direction of a host's access link."""

    free_at: float = 0.0
    """Time at which the last datagram in its queue has been sent."""
    dropped: int = 0


class Underlay:
    """Paths between numbered hosts."""

    def __init__(
        self,
        clock: Clock,
        generator: random.Random,
        topology: Topology,
        host_numbers: Mapping[str, int],
        *,
        loss: float = 0.0,
        bandwidth_bps: float | None = None,
    ) -> None:
        """`host_numbers` maps each host's endpoint to its number."""
        self.control_bytes = 0
        self.control_messages = 0
        self.packets_lost = 0
        self.loss = loss
        self._clock = clock
        self._random = generator
        self._topology = topology
        self._host_numbers = host_numbers
        self._receivers: dict[Port, Deliver] = {}
        self._delays: list[dict[int, float]] = [{} for _ in host_numbers]
        self._island: list[int] = [0] * len(host_numbers)
        self._only_delays = not loss and bandwidth_bps is None
        """True if packets are only delayed, so that all copies can be scheduled together."""
        self._bandwidth_bps = bandwidth_bps
        self._uplinks = [AccessLink() for _ in host_numbers]
        self._downlinks = [AccessLink() for _ in host_numbers]

    def attach(self, port: Port, deliver: Deliver) -> None:
        """Deliver control messages for this port from now on."""
        self._receivers[port] = deliver

    def detach(self, port: Port) -> None:
        """Lose control messages for this port from now on, those on the way included."""
        self._receivers.pop(port, None)

    def partition(self, hosts: Iterable[int]) -> None:
        """Cut these hosts off from all others."""
        self._only_delays = False
        for host in hosts:
            self._island[host] = 1

    def heal(self) -> None:
        """End the partition."""
        self._island = [0] * len(self._island)
        self._only_delays = not self.loss and self._bandwidth_bps is None

    def delay_s(self, one: int, other: int) -> float:
        """Return the one-way delay between two hosts."""
        row = self._delays[one]
        delay = row.get(other)
        if delay is None:
            delay = row[other] = self._topology.delay_s(one, other)
        return delay

    # ---- control messages

    def send(self, sender: str, to: Port, message: bytes) -> None:
        """Send a control message on a TCP connection: a lost segment is retransmitted, so the message arrives later."""
        one, other = self._host_numbers[sender], self._host_numbers[to[0]]
        size = len(message) + HEADER_BYTES
        self.control_bytes += size
        self.control_messages += 1
        sent_at, rto_s = self._clock.now, max(RTO_MIN_S, 4 * self.delay_s(one, other))
        for _ in range(TRANSMISSIONS_MAX):
            if not self._is_lost():
                break
            sent_at += rto_s
            rto_s *= 2
        else:
            return
        delay_s = self._transfer(one, other, size)
        if delay_s is not None:
            self._clock.call_at(sent_at + delay_s, self._arrive, sender, one, other, to, message)

    def _arrive(self, sender: str, one: int, other: int, to: Port, message: bytes) -> None:
        deliver = self._receivers.get(to)
        if deliver is not None and self._island[one] == self._island[other]:
            deliver(sender, message)

    # ---- packets

    def send_packet(self, one: int, other: int, size: int, deliver: Callable[..., object], *arguments: Any) -> None:
        """Send a packet from host `one` to host `other`: `deliver(*arguments)` runs when it arrives."""
        if self._island[one] != self._island[other]:
            return
        delay_s = None if self._is_lost() else self._transfer(one, other, size)
        if delay_s is None:
            self.packets_lost += 1
        else:
            self._clock.call_at(self._clock.now + delay_s, deliver, *arguments)

    def send_copies(self, one: int, hops: Iterable[Hop], size: int, arguments: tuple[Any, ...]) -> None:
        """Send copies of a packet from host `one` to several hosts; the hops' delays are those of `delay_s`."""
        if self._only_delays:
            self._clock.call_each(hops, arguments)
        else:
            for _, deliver, other in hops:
                self.send_packet(one, other, size, deliver, *arguments)

    # ---- loss and access links

    def _is_lost(self) -> bool:
        return self.loss > 0 and self._random.random() < self.loss

    def _transfer(self, one: int, other: int, size: int) -> float | None:
        """Return the seconds that `size` bytes take between two hosts; None if a queue is full."""
        delay_s = self.delay_s(one, other)
        if self._bandwidth_bps is None:
            return delay_s
        now, airtime_s = self._clock.now, size * 8 / self._bandwidth_bps
        sent_at = _enqueue(self._uplinks[one], now, airtime_s)
        if sent_at is None:
            return None
        # Datagrams enter the receiver's queue in the order of sending, not of arrival.  The error is at most the
        # difference of two delays.
        arrives_at = _enqueue(self._downlinks[other], sent_at + delay_s, airtime_s)
        return None if arrives_at is None else arrives_at - now


def _enqueue(link: AccessLink, at: float, airtime_s: float) -> float | None:
    """Return the time at which a datagram has left the link's queue; None if the queue is full at `at`."""
    if link.free_at - at > QUEUE_S:
        link.dropped += 1
        return None
    link.free_at = max(link.free_at, at) + airtime_s
    return link.free_at
