"""Measurements of a large simulation, and the figures computed from them.

A packet counts at the hosts that have joined and are up when it is sent, unless they fail within UP_S.  A host has
joined when its first packet since its start has arrived, or JOIN_MAX_S after its start.  Join times are a figure of
their own.  A packet that arrives more than `late_s` after it was sent is not delivered.  A second copy is a duplicate
at any time; the duplicates of a packet are summed over all hosts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.sim.clock import Clock
from pipeline.sim.packet import Packet
from pipeline.sim.topology import PhysicalLink, Topology
from pipeline.sim.underlay import Hop

UP_S = 1.0
JOIN_MAX_S = 10.0
SAMPLE_EVERY = 10
"""One in this many packets is sampled for latency, stretch and link stress."""


class MeasuredHost(Protocol):
    """State of a host that the measurements read."""

    @property
    def index(self) -> int:
        """Number of the host."""

    @property
    def is_running(self) -> bool:
        """True if the host is up."""

    @property
    def started_at(self) -> float:
        """Time of the last start."""

    @property
    def joined_at(self) -> float | None:
        """Arrival time of the first packet since the start; None before it."""


@dataclass(slots=True)
class Tally:
    """Sums and samples over all measured packets."""

    packets: int = 0
    expected: int = 0
    delivered: int = 0
    duplicates: int = 0
    latencies_s: list[float] = field(default_factory=list)
    stretches: list[float] = field(default_factory=list)
    joins_s: list[float] = field(default_factory=list)
    outages_s: list[float] = field(default_factory=list)
    stresses: list[float] = field(default_factory=list)
    stress_max: int = 0


class Measures:
    """Measurements of one run, between `begin` and `end`."""

    def __init__(self, clock: Clock, topology: Topology, hosts: Sequence[MeasuredHost], late_s: float) -> None:
        """`hosts` may grow until `begin`."""
        self.is_on = False
        self.tally = Tally()
        self.copies: list[int] = []
        """By host: copies of packets that it has sent."""
        self._clock, self._topology, self._hosts, self._late_s = clock, topology, hosts, late_s
        self._resent = 0
        self._failures: dict[int, list[float]] = {}
        """By host: the times at which it failed."""
        self._outages: dict[int, float] = {}
        """By host that misses packets: the time at which the first of them was sent."""
        self._crossings: Counter[PhysicalLink] = Counter()
        """By physical link: copies of sampled packets since the last evaluation of one."""
        self._sent = 0
        self._began_at = self._ended_at = 0.0
        self._control = (0, 0)

    def begin(self, control: tuple[int, int]) -> None:
        """Begin to measure; `control` is the bytes and messages of control that have been sent so far."""
        self.is_on, self._began_at, self._control = True, self._clock.now, control
        self._resent = 0
        self.copies = [0] * len(self._hosts)

    def end(self, control: tuple[int, int]) -> None:
        """Measure no packet that is sent from now on."""
        self.is_on, self._ended_at = False, self._clock.now
        self._control = control[0] - self._control[0], control[1] - self._control[1]

    # ---- events of the simulation

    def record_failure(self, index: int) -> None:
        """A host fails."""
        self._failures.setdefault(index, []).append(self._clock.now)
        self._outages.pop(index, None)

    def record_join(self, host: MeasuredHost) -> None:
        """The first packet since the host's start arrives."""
        if self.is_on:
            self.tally.joins_s.append(self._clock.now - host.started_at)

    def record_packet(self, packet: Packet) -> None:
        """The source sends a packet."""
        if not self.is_on:
            return
        now = self._clock.now
        packet.expected = bytes(
            host.is_running
            and host.index != packet.source
            and (host.joined_at is not None or now - host.started_at > JOIN_MAX_S)
            for host in self._hosts
        )
        self._sent += 1
        packet.is_sampled = self._sent % SAMPLE_EVERY == 1
        self._clock.call_at(now + self._late_s, self._evaluate, packet)

    def record_copies(self, packet: Packet, sender: int, hops: Sequence[Hop]) -> None:
        """A host sends copies of a packet."""
        self.copies[sender] += len(hops)
        if packet.is_sampled:
            for _, _, receiver in hops:
                self._crossings.update(self._topology.path(sender, receiver))

    def record_arrival(self, packet: Packet, index: int) -> None:
        """The first copy of a sampled packet arrives at a host."""
        if packet.expected[index]:
            latency_s = self._clock.now - packet.sent_at
            self.tally.latencies_s.append(latency_s)
            self.tally.stretches.append(latency_s / self._topology.delay_s(packet.source, index))

    def record_resend(self) -> None:
        """A host sends a packet from its repair buffer again."""
        self._resent += 1

    # ---- evaluation of a packet, `late_s` after it was sent

    def _evaluate(self, packet: Packet) -> None:
        tally = self.tally
        size = len(packet.received)
        expected = int.from_bytes(packet.expected)
        missed = expected & ~int.from_bytes(packet.received)
        count = expected.bit_count()
        tally.packets += 1
        tally.duplicates += packet.duplicates
        if missed:
            for index, is_missed in enumerate(missed.to_bytes(size)):
                if is_missed and self._has_failed(index, packet.sent_at):
                    count -= 1
                    missed &= ~(1 << 8 * (size - 1 - index))
        tally.expected += count
        tally.delivered += count - missed.bit_count()
        self._update_outages(packet, missed.to_bytes(size))
        if packet.is_sampled and self._crossings:
            tally.stresses.append(self._crossings.total() / len(self._crossings))
            tally.stress_max = max(tally.stress_max, *self._crossings.values())
            self._crossings.clear()

    def _has_failed(self, index: int, sent_at: float) -> bool:
        """Return whether a host failed within UP_S after a packet was sent."""
        return any(sent_at <= at <= sent_at + UP_S for at in self._failures.get(index, ()))

    def _update_outages(self, packet: Packet, missed: bytes) -> None:
        """End the outages of the hosts that received the packet, and begin those of hosts that missed it."""
        for index in [index for index in self._outages if not missed[index] and packet.received[index]]:
            self.tally.outages_s.append(packet.sent_at - self._outages.pop(index))
        if any(missed):
            for index, is_missed in enumerate(missed):
                host = self._hosts[index]
                if is_missed and host.is_running and host.started_at <= packet.sent_at:
                    self._outages.setdefault(index, packet.sent_at)

    # ---- figures

    def figures(self) -> dict[str, Any]:
        """Return the figures that `pipeline simulate` prints."""
        tally = self.tally
        seconds = self._ended_at - self._began_at
        hosts = len(self._hosts)
        degrees = sorted(copies / max(tally.packets, 1) for copies in self.copies)
        return {
            "delivery_ratio": tally.delivered / tally.expected if tally.expected else None,
            "duplicates_per_packet": tally.duplicates / tally.packets if tally.packets else None,
            "packets": tally.packets,
            "deliveries": tally.delivered,
            "resent_per_packet": self._resent / tally.packets if tally.packets else None,
            "latency_ms": _distribution(tally.latencies_s, 1e3),
            "stretch": _distribution(tally.stretches),
            "link_stress": {"mean": _mean(tally.stresses), "max": tally.stress_max or None},
            "out_degree": {"mean": _mean(degrees), "max": degrees[-1] if degrees else None},
            "forwarding_nothing": sum(degree == 0 for degree in degrees) / hosts,
            "control_bytes_per_node_s": self._control[0] / seconds / hosts if seconds else None,
            "control_messages_per_node_s": self._control[1] / seconds / hosts if seconds else None,
            "join_s": _distribution(tally.joins_s),
            "repair_s": _distribution(tally.outages_s),
        }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _distribution(values: Sequence[float], scale: float = 1.0) -> dict[str, float | int | None]:
    """Return mean, quantiles and number of values; `scale` converts their unit."""
    ordered = sorted(values)

    def quantile(share: float) -> float | None:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * scale if ordered else None

    mean = _mean(ordered)
    return {
        "mean": None if mean is None else mean * scale,
        "p50": quantile(0.5),
        "p99": quantile(0.99),
        "max": quantile(1.0),
        "count": len(ordered),
    }
