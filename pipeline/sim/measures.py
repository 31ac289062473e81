"""What is counted in a simulation, and the figures that become of it.

A packet counts at those hosts that are up and have joined when it is sent, and stay up for UP_S more.  A host has
joined with the first packet that it gets after its start, or JOIN_MAX_S after it at the latest: until then it is the
join time that counts, which is given by itself.  A packet that comes more than `late_s` after it was sent has not been
delivered.  A second copy is a duplicate whenever it comes; duplicates are summed over all hosts for each packet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.sim.clock import Clock
from pipeline.sim.station import Flight, Station
from pipeline.sim.topology import PhysicalLink, Topology

UP_S = 1.0
JOIN_MAX_S = 10.0
SAMPLE = 10
"""Every 10th packet is followed in detail."""


@dataclass(slots=True)
class Outage:
    """A host misses packets."""

    since: float
    packets: int = 1


@dataclass(slots=True)
class Tally:
    """Sums over packets."""

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
    """Of one run, from `begin` on."""

    def __init__(self, clock: Clock, topology: Topology, hosts: int, late_s: float) -> None:
        self.is_on = False
        self.tally = Tally()
        self.resent = 0
        self._clock, self._topology, self._late_s = clock, topology, late_s
        self._stations: Sequence[Station] = ()
        self._downs: list[list[float]] = [[] for _ in range(hosts)]
        self._outages: dict[int, Outage] = {}
        self._crossings: Counter[PhysicalLink] = Counter()
        self._flights = 0
        self._began_at = 0.0
        self._control = (0, 0)
        self._ended_at = 0.0

    def watch(self, stations: Sequence[Station]) -> None:
        """Whose packets they are."""
        self._stations = stations

    def begin(self, control: tuple[int, int]) -> None:
        """From now on it counts; `control` bytes and messages have been sent so far."""
        self.is_on, self._began_at, self._control = True, self._clock.now, control
        self.resent = 0
        for station in self._stations:
            station.copies = 0

    def end(self, control: tuple[int, int]) -> None:
        """No more packets."""
        self.is_on, self._ended_at = False, self._clock.now
        self._control = control[0] - self._control[0], control[1] - self._control[1]

    # ---- what happens

    def went_down(self, index: int) -> None:
        """A host has failed."""
        self._downs[index].append(self._clock.now)
        self._outages.pop(index, None)

    def sent(self, flight: Flight) -> None:
        """A packet starts."""
        if not self.is_on:
            return
        now = self._clock.now
        flight.expected = bytes(
            station.is_running
            and station.index != flight.start
            and (station.heard_at is not None or now - station.started_at > JOIN_MAX_S)
            for station in self._stations
        )
        self._flights += 1
        flight.is_sampled = self._flights % SAMPLE == 1
        self._clock.call_at(now + self._late_s, self._conclude, flight)

    def crossed(self, one: int, other: int) -> None:
        """A copy of a packet that is followed goes from host to host."""
        self._crossings.update(self._topology.path(one, other))

    def heard(self, station: Station) -> None:
        """A host has got its first packet."""
        if self.is_on:
            self.tally.joins_s.append(self._clock.now - station.started_at)

    def delivered(self, flight: Flight, index: int, now: float) -> None:
        """A packet has come."""
        if flight.is_sampled and flight.expected[index]:
            latency_s = now - flight.sent_at
            self.tally.latencies_s.append(latency_s)
            self.tally.stretches.append(latency_s / self._topology.delay_s(flight.start, index))

    def _conclude(self, flight: Flight) -> None:
        tally = self.tally
        expected = int.from_bytes(flight.expected)
        missed = expected & ~int.from_bytes(flight.got)
        count = expected.bit_count()
        tally.packets += 1
        tally.duplicates += flight.duplicates
        if missed:
            for index, is_missed in enumerate(missed.to_bytes(len(flight.got))):
                if is_missed and self._was_down(index, flight.sent_at):
                    count -= 1
                    missed &= ~(1 << 8 * (len(flight.got) - 1 - index))
        tally.expected += count
        tally.delivered += count - missed.bit_count()
        self._note_outages(flight, missed)
        if flight.is_sampled and self._crossings:
            tally.stresses.append(self._crossings.total() / len(self._crossings))
            tally.stress_max = max(tally.stress_max, *self._crossings.values())
            self._crossings.clear()

    def _was_down(self, index: int, sent_at: float) -> bool:
        return any(sent_at <= at <= sent_at + UP_S for at in self._downs[index])

    def _note_outages(self, flight: Flight, missed: int) -> None:
        bits = missed.to_bytes(len(flight.got))
        for index in [index for index in self._outages if not bits[index] and flight.got[index]]:
            self.tally.outages_s.append(flight.sent_at - self._outages.pop(index).since)
        if missed:
            for index, is_missed in enumerate(bits):
                station = self._stations[index]
                if is_missed and station.is_running and station.started_at <= flight.sent_at:
                    self._outages.setdefault(index, Outage(flight.sent_at))

    # ---- figures

    def figures(self) -> dict[str, Any]:
        """What `pipeline simulate` prints."""
        tally = self.tally
        seconds = self._ended_at - self._began_at
        hosts = len(self._stations)
        degrees = sorted(station.copies / max(tally.packets, 1) for station in self._stations)
        return {
            "delivery_ratio": tally.delivered / tally.expected if tally.expected else None,
            "duplicates_per_packet": tally.duplicates / tally.packets if tally.packets else None,
            "packets": tally.packets,
            "deliveries": tally.delivered,
            "resent_per_packet": self.resent / tally.packets if tally.packets else None,
            "latency_ms": _spread(tally.latencies_s, 1e3),
            "stretch": _spread(tally.stretches),
            "link_stress": {"mean": _mean(tally.stresses), "max": tally.stress_max or None},
            "out_degree": {"mean": _mean(degrees), "max": degrees[-1] if degrees else None},
            "forwarding_nothing": sum(degree == 0 for degree in degrees) / hosts,
            "control_bytes_per_node_s": self._control[0] / seconds / hosts if seconds else None,
            "control_messages_per_node_s": self._control[1] / seconds / hosts if seconds else None,
            "join_s": _spread(tally.joins_s),
            "repair_s": _spread(tally.outages_s),
        }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _spread(values: Sequence[float], scale: float = 1.0) -> dict[str, float | int | None]:
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


Progress = Callable[[float, float], object]
"""Called now and then with virtual seconds done and in all."""
