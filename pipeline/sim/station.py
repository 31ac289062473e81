"""A host of a large simulation: the control plane of ControlHost, and a data plane of one call for each hop.

All hosts join one group.  Packets follow the forwarding entries from hop to hop as in the stages: no copy returns to
the host that it came from, duplicates are dropped before the look-up, and packets without a sender key are dropped.
The next hops of a stream are looked up once after each change of the table.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from pipeline.address import ANY_SOURCE, Address, NodeId
from pipeline.engines.api import Resend
from pipeline.forwarding import lookup
from pipeline.forwarding.route import FibDelete, FibEntry
from pipeline.forwarding.stream_stall import TICK_S, StreamStallDetector
from pipeline.overlay.events import NodeEvent, PeerChanged
from pipeline.overlay.node_config import NodeConfig
from pipeline.sim.clock import Clock
from pipeline.sim.host import REPAIR_BUFFER_PACKETS, ControlHost
from pipeline.sim.measures import Measures
from pipeline.sim.packet import Packet
from pipeline.sim.repair_buffer import RepairBuffer
from pipeline.sim.underlay import Hop, Underlay


class NextHops(NamedTuple):
    """Result of a look-up."""

    is_local: bool
    """True if packets are delivered to this host."""
    by_stripe: list[tuple[Hop, ...]]
    """Copies to send, for each stripe."""


class StreamState:
    """State of one origin's stream at a station."""

    __slots__ = ("buffer", "next_hops")

    def __init__(self) -> None:
        self.buffer: RepairBuffer[Packet] = RepairBuffer(REPAIR_BUFFER_PACKETS)
        self.next_hops: dict[int | None, NextHops] = {}
        """By the number of the host that a packet comes from; None for this host's programs."""


class Station(ControlHost):
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
        hosts_by_id: dict[NodeId, int],
        stations: list[Station],
        packet_bytes: int,
        group: Address,
    ) -> None:
        """All stations share `stations` and `hosts_by_id`, to which each adds its own node id."""
        super().__init__(config, clock, underlay, generator)
        self.index = index
        self.started_at = 0.0
        self.joined_at: float | None = None
        """Arrival time of the first packet since the start."""
        self._underlay = underlay
        self._measures = measures
        self._hosts_by_id = hosts_by_id
        self._stations = stations
        self._packet_bytes = packet_bytes
        self._group = group
        self._stream_sequence = -1
        self._streams: dict[tuple[NodeId, int], StreamState] = {}
        """By origin and its incarnation."""
        hosts_by_id[self.node_id] = index

    # ---- control

    def start(self) -> None:
        """Start a new incarnation of the node, and join the group."""
        self.started_at, self.joined_at = self._clock.now, None
        self._stream_sequence = -1
        self._streams = {}
        super().start()
        self.join(self._group, ANY_SOURCE)
        self._clock.call_at(self._clock.now + TICK_S, self._detect_stalls, self.started_at, StreamStallDetector())

    def _write_entry(self, change: FibEntry | FibDelete) -> None:
        super()._write_entry(change)
        for stream in self._streams.values():
            stream.next_hops.clear()

    def _handle_event(self, event: NodeEvent) -> None:
        super()._handle_event(event)
        if isinstance(event, PeerChanged) and event.is_up:  # the stages' probes measure every link that is up
            peer = event.record.node_id
            rtt_s = 2 * self._underlay.delay_s(self.index, self._hosts_by_id[peer])
            self.node.handle_rtt(peer, rtt_s, self._clock.now)

    def _detect_stalls(self, started_at: float, detector: StreamStallDetector[tuple[NodeId, int]]) -> None:
        if not self.is_running or started_at != self.started_at:
            return
        self._clock.call_at(self._clock.now + TICK_S, self._detect_stalls, started_at, detector)
        if detector.tick({key: stream.buffer.highest for key, stream in self._streams.items()}):
            self.node.handle_stream_stall(self._group, self._clock.now)
            self.drain()

    # ---- packets

    def send(self) -> None:
        """Send a packet to the group as a program of this host."""
        if self._look_up_host() is None:
            self.register_source(self._group)
            return
        self._stream_sequence += 1
        packet = Packet(
            origin=self.node_id,
            source=self.index,
            incarnation=self.config.incarnation,
            stream_sequence=self._stream_sequence,
            sent_at=self._clock.now,
            hosts=len(self._stations),
        )
        packet.received[self.index] = 1
        self._measures.record_packet(packet)
        self._forward(packet, None)

    def receive(self, packet: Packet, via: int) -> None:
        """Receive a copy of a packet from host number `via`."""
        if not self.is_running:
            return
        index, received = self.index, packet.received
        if received[index]:
            packet.duplicates += 1
            return
        if packet.origin not in self._keys:
            self.drops["no_key"] += 1
            return
        received[index] = 1
        if not self._forward(packet, via):
            return
        if self.joined_at is None:
            self.joined_at = self._clock.now
            self._measures.record_join(self)
        if packet.is_sampled:
            self._measures.record_arrival(packet, index)

    def _forward(self, packet: Packet, via: int | None) -> bool:
        """Keep a packet for repair and send copies.  Return whether it is delivered to this host."""
        stream = self._streams.get(packet.stream)
        if stream is None:
            stream = self._streams[packet.stream] = StreamState()
        if stream.buffer.add(packet):
            self._report_gap(packet.origin, stream.buffer.missing, via)
        next_hops = stream.next_hops.get(via)
        if next_hops is None:
            next_hops = stream.next_hops[via] = self._look_up(packet.origin, via)
        is_local, by_stripe = next_hops
        hops = by_stripe[packet.stream_sequence % len(by_stripe)] if by_stripe else ()
        if hops:
            self._underlay.send_copies(self.index, hops, self._packet_bytes, (packet, self.index))
            if self._measures.is_on:
                self._measures.record_copies(packet, self.index, hops)
        return is_local

    # ---- look-up

    def _look_up_host(self) -> FibEntry | None:
        source = next(each for each, _ in self.node.record.addresses if len(each) == len(self._group))
        return lookup.host_entry(self.fib, source, self._group)

    def _look_up(self, origin: NodeId, via: int | None) -> NextHops:
        if via is None:
            entry = self._look_up_host()
        else:
            entry = lookup.overlay_entry(self.fib, self._group, origin, self._stations[via].node_id)
        if entry is None:
            return NextHops(False, [])
        served = {via, self._hosts_by_id[origin]}
        stripes = (lookup.stripe_links(self.fib, entry, stripe) for stripe in range(entry.stripes))
        return NextHops(entry.local, [self._hops(links, served) for links in stripes])

    def _hops(self, links: frozenset[int], served: set[int | None]) -> tuple[Hop, ...]:
        receivers = (self._hosts_by_id[self._links[link][0]] for link in sorted(links))
        delay_s = self._underlay.delay_s
        return tuple(
            (delay_s(self.index, receiver), self._stations[receiver].receive, receiver)
            for receiver in receivers
            if receiver not in served
        )

    # ---- repair

    def _report_gap(self, origin: NodeId, missing: set[int], via: int | None) -> None:
        upstream = None if via is None else self._stations[via].node_id
        self.node.handle_gap(self._group, origin, tuple(sorted(missing)), self._clock.now, via=upstream)
        self.drain()

    def _resend(self, request: Resend) -> None:
        receiver = self._hosts_by_id.get(request.peer)
        if receiver is None:
            return
        for (origin, _), stream in self._streams.items():
            for number in request.numbers if origin == request.origin else ():
                packet = stream.buffer.get(number)
                if packet is not None:
                    self._measures.record_resend()
                    receive = self._stations[receiver].receive
                    self._underlay.send_packet(self.index, receiver, self._packet_bytes, receive, packet, self.index)
