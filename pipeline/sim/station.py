"""A host of a big simulation: the daemon's control plane as in cluster.Host, and a data plane of one call a hop.

Packets follow the forwarding entries that the engine has set, hop by hop, as the stages do: look up by (origin, via),
origin, via, then the group; take turns by stream sequence; never back to where it came from; a second copy is dropped
before it is looked up; what has no key is dropped.  Entries are resolved once after each change of the table.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from pipeline.address import ANY_SOURCE, Address, NodeId
from pipeline.engines.api import Resend
from pipeline.forwarding.route import FibEntry, FibKey, Kind, Side
from pipeline.forwarding.stream_stall import TICK_S, StreamStallDetector
from pipeline.overlay.events import NodeEvent, PeerChanged
from pipeline.overlay.node import NodeConfig
from pipeline.sim.clock import Clock
from pipeline.sim.cluster import HISTORY_PACKETS, Host
from pipeline.sim.history import Stream
from pipeline.sim.underlay import Underlay

if TYPE_CHECKING:
    from pipeline.sim.measures import Measures


Hops: TypeAlias = tuple[tuple[float, Callable[..., None], int], ...]
"""Of each copy of a packet: how long it is under way, what it does there, and the number of the host."""


class Flight:
    """One packet and what becomes of it."""

    __slots__ = ("duplicates", "expected", "got", "is_sampled", "number", "origin", "sent_at", "start", "stream")

    def __init__(self, *, origin: NodeId, start: int, life: int, number: int, sent_at: float, hosts: int) -> None:
        self.origin, self.start, self.number, self.sent_at = origin, start, number, sent_at
        self.stream = origin, life
        self.got = bytearray(hosts)
        self.expected = b""
        self.duplicates = 0
        self.is_sampled = False


class Course:
    """One origin's stream at a station: what has come of it, and where it goes."""

    __slots__ = ("history", "ways")

    def __init__(self) -> None:
        self.history: Stream[Flight] = Stream(HISTORY_PACKETS)
        self.ways: dict[int, tuple[bool, list[Hops]]] = {}
        """By the host that a packet comes from: whether it is delivered here, and its copies in each turn."""


class Station(Host):
    """Host number `index`."""

    def __init__(
        self,
        index: int,
        config: NodeConfig,
        clock: Clock,
        underlay: Underlay,
        generator: random.Random,
        *,
        measures: Measures,
        numbers: dict[NodeId, int],
        stations: list[Station],
        packet_bytes: int,
        group: Address,
    ) -> None:
        super().__init__(config, clock, underlay, generator)
        self.index = index
        self.copies = 0
        """Packets sent on, in the time that is measured."""
        self.started_at = 0.0
        self.heard_at: float | None = None
        """When the first packet since the start came."""
        self._underlay = underlay
        self._measures = measures
        self._hosts_by_id = numbers
        self._stations = stations
        self._packet_bytes = packet_bytes
        self._group = group
        self._number = -1
        self._courses: dict[tuple[NodeId, int], Course] = {}
        """By origin and its life."""
        numbers[self.node_id] = index

    # ---- life

    def begin(self) -> None:
        """Start and join."""
        self.started_at, self.heard_at = self._clock.now, None
        self._number = -1
        self._courses = {}
        self.start()
        self.join(self._group, ANY_SOURCE)
        self._clock.call_at(self._clock.now + TICK_S, self._look_for_silence, self.started_at, StreamStallDetector())

    def _note_table_change(self) -> None:
        for course in self._courses.values():
            course.ways.clear()

    def _on_event(self, event: NodeEvent) -> None:
        super()._on_event(event)
        if isinstance(event, PeerChanged) and event.is_up:  # the stages' probes measure every link that is up
            peer = event.record.node_id
            rtt_s = 2 * self._underlay.delay_s(self.index, self._hosts_by_id[peer])
            self.node.handle_rtt(peer, rtt_s, self._clock.now)

    def _look_for_silence(self, life: float, watch: StreamStallDetector[tuple[NodeId, int]]) -> None:
        if not self.is_running or life != self.started_at:
            return
        self._clock.call_at(self._clock.now + TICK_S, self._look_for_silence, life, watch)
        if watch.tick({stream: course.history.highest for stream, course in self._courses.items()}):
            self.node.handle_stream_stall(self._group, self._clock.now)
            self._pump()

    # ---- packets

    def emit(self) -> Flight | None:
        """A program of this host sends a packet to the group."""
        now = self._clock.now
        if not self._host_entry():
            self.announce()
            return None
        self._number += 1
        flight = Flight(
            origin=self.node_id,
            start=self.index,
            life=self.config.incarnation,
            number=self._number,
            sent_at=now,
            hosts=len(self._stations),
        )
        flight.got[self.index] = 1
        self._measures.sent(flight)
        self._take(flight, -1)
        return flight

    def _host_entry(self) -> bool:
        return FibKey(Side.HOST, Kind.GROUP, self._group) in self.fib

    def announce(self) -> None:
        """Register as a source before the first packet."""
        self.node.register_source(self._group, self._clock.now)
        self._pump()

    def arrive(self, flight: Flight, via: int) -> None:
        """A packet comes from host number `via`."""
        if not self.is_running:
            return
        index, got = self.index, flight.got
        if got[index]:
            flight.duplicates += 1
            return
        if flight.origin not in self._keys:
            self.drops["no_key"] += 1
            return
        got[index] = 1
        if not self._take(flight, via):
            return
        if self.heard_at is None:
            self.heard_at = self._clock.now
            self._measures.heard(self)
        if flight.is_sampled:
            self._measures.delivered(flight, index, self._clock.now)

    def _take(self, flight: Flight, via: int) -> bool:
        """Keep it and send it on; returns whether it is delivered here."""
        course = self._courses.get(flight.stream)
        if course is None:
            course = self._courses[flight.stream] = Course()
        if course.history.add(flight):
            self._note_gap(flight.origin, course.history.missing, via)
        way = course.ways.get(via)
        if way is None:
            way = course.ways[via] = self._resolve(flight.origin, via)
        is_local, stripes = way
        hops = stripes[flight.number % len(stripes)] if stripes else ()
        if hops:
            self._underlay.spread(self.index, hops, self._packet_bytes, (flight, self.index))
            if self._measures.is_on:
                self.copies += len(hops)
                if flight.is_sampled:
                    for _, _, index in hops:
                        self._measures.crossed(self.index, index)
        return is_local

    def _resolve(self, origin: NodeId, via: int) -> tuple[bool, list[Hops]]:
        """Whether packets are delivered here, and the hosts they are sent on to in each turn."""
        if via < 0:
            keys = [FibKey(Side.HOST, Kind.GROUP, self._group)]
        else:
            node = self._stations[via].node_id
            keys = [
                FibKey(Side.OVERLAY, Kind.GROUP, self._group, None, each, link)
                for each in (origin, None)
                for link in (node, None)
            ]
        entry = next((self.fib[key] for key in keys if key in self.fib), None)
        if entry is None:
            return False, []
        stripes = [entry, *(self.fib.get(_of_turn(entry.key, stripe)) for stripe in range(1, entry.stripes))]
        own_way = {via, self._hosts_by_id[origin]}
        return entry.local, [self._hops(each, own_way) for each in stripes]

    def _hops(self, entry: FibEntry | None, but: set[int]) -> Hops:
        links = sorted(entry.links) if entry is not None else ()
        found = (self._hosts_by_id[self._links[link][0]] for link in links)
        delay_s = self._underlay.delay_s
        return tuple(
            (delay_s(self.index, index), self._stations[index].arrive, index) for index in found if index not in but
        )

    # ---- repair

    def _note_gap(self, origin: NodeId, missing: set[int], via: int) -> None:
        upstream = self._stations[via].node_id if via >= 0 else None
        self.node.handle_gap(self._group, origin, tuple(sorted(missing)), self._clock.now, via=upstream)
        self._pump()

    def _resend(self, order: Resend) -> None:
        index = self._hosts_by_id.get(order.peer)
        if index is None:
            return
        for (origin, _), course in self._courses.items():
            for number in order.numbers if origin == order.origin else ():
                flight = course.history.get(number)
                if flight is not None:
                    self._measures.resent += 1
                    arrive = self._stations[index].arrive
                    self._underlay.carry(self.index, index, self._packet_bytes, arrive, flight, self.index)


def _of_turn(key: FibKey, stripe: int) -> FibKey:
    return FibKey(key.side, key.kind, key.group, key.source, key.origin, key.via, stripe)
