"""A few nodes on one network, with a data plane that models each datagram: for tests of the control plane.

The data plane of a Host does with forwarding entries what the stages in C do: look up, replicate, relay, deliver, and
drop duplicates.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from pipeline.address import Address, NodeId, is_link_scope, is_multicast
from pipeline.engines.api import Resend
from pipeline.forwarding import lookup
from pipeline.forwarding.route import FibEntry
from pipeline.overlay.node_config import NodeConfig
from pipeline.sim.clock import Clock
from pipeline.sim.host import REPAIR_BUFFER_PACKETS, ControlHost, endpoint_of
from pipeline.sim.identity import SimulatedIdentity
from pipeline.sim.netem import Impairment, Network
from pipeline.sim.repair_buffer import RepairBuffer

HOP_LIMIT = 16


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram with one inner packet: the header of the wire format, and the packet's addresses."""

    origin: NodeId
    sequence: int
    """Counts the datagrams of the origin."""
    source: Address
    destination: Address
    incarnation: int
    """Incarnation of the origin; each has another sender key."""
    stream_sequence: int
    """Counts the datagrams of this incarnation to the destination."""
    hop_limit: int = HOP_LIMIT


class Host(ControlHost):
    """One node and its data plane."""

    def __init__(self, config: NodeConfig, clock: Clock, network: Network, generator: random.Random) -> None:
        super().__init__(config, clock, network, generator)
        self.delivered: Counter[tuple[NodeId, int]] = Counter()
        """Deliveries of each datagram to this host, by (origin, sequence)."""
        self.received: Counter[Address] = Counter()
        """Datagrams delivered to this host, by destination."""
        self._network = network
        self._sequence = 0
        self._stream_sequences: dict[Address, int] = {}
        self._seen: set[tuple[NodeId, int]] = set()
        self._buffers: dict[tuple[NodeId, int, Address], RepairBuffer[Datagram]] = {}
        """By origin, its incarnation, and group."""

    def start(self) -> None:
        """Start a new incarnation of the node and its data plane."""
        self._seen, self._stream_sequences, self._buffers = set(), {}, {}
        self._network.attach((self.endpoint, "data"), self._receive)
        super().start()

    def crash(self) -> None:
        """Stop the node and its data plane at once."""
        super().crash()
        self._network.detach((self.endpoint, "data"))

    # ---- sending

    def send(self, destination: Address, source: Address | None = None) -> tuple[NodeId, int]:
        """Send a packet as a program of this host.  Return its key in `delivered` of the receivers."""
        self._sequence += 1
        if source is None:
            source = next(each for each, _ in self.node.record.addresses if len(each) == len(destination))
        number = self._stream_sequences[destination] = self._stream_sequences.get(destination, -1) + 1
        datagram = Datagram(self.node_id, self._sequence, source, destination, self.config.incarnation, number)
        entry = lookup.host_entry(self.fib, source, destination)
        if entry is not None:
            self._track(datagram, via=None)
            self._replicate(datagram, entry, via=None)
        else:
            self.drops["no_route"] += 1
            if is_multicast(destination) and not is_link_scope(destination):
                self.register_source(destination)
        return datagram.origin, datagram.sequence

    # ---- receiving

    def _receive(self, sender: str, datagram: Datagram) -> None:
        key = datagram.origin, datagram.sequence
        if datagram.origin not in self._keys:
            self.drops["no_key"] += 1
            return
        if key in self._seen:
            self.drops["duplicate"] += 1
            return
        self._seen.add(key)
        via = next((node for node, endpoint in self._links.values() if endpoint == sender), None)
        if is_multicast(datagram.destination):
            self._track(datagram, via)
        entry = lookup.overlay_entry(self.fib, datagram.destination, datagram.origin, via)
        if entry is None:
            self.drops["no_entry"] += 1
            return
        if entry.local:
            self.delivered[key] += 1
            self.received[datagram.destination] += 1
        if datagram.hop_limit > 1:
            self._replicate(replace(datagram, hop_limit=datagram.hop_limit - 1), entry, via)

    def _replicate(self, datagram: Datagram, entry: FibEntry, via: NodeId | None) -> None:
        """Send copies to the links of the datagram's stripe; its origin and the node that sent it get none."""
        served = {via, datagram.origin}
        for link in sorted(lookup.stripe_links(self.fib, entry, datagram.stream_sequence)):
            node, endpoint = self._links[link]
            if node not in served:
                served.add(node)
                self._network.send(self.endpoint, (endpoint, "data"), datagram)

    # ---- repair

    def _track(self, datagram: Datagram, via: NodeId | None) -> None:
        """Keep a datagram, and report it to the engine if the set of missing ones has changed."""
        stream = datagram.origin, datagram.incarnation, datagram.destination
        buffer = self._buffers.get(stream)
        if buffer is None:
            buffer = self._buffers[stream] = RepairBuffer(REPAIR_BUFFER_PACKETS)
        if buffer.add(datagram):
            missing = tuple(sorted(buffer.missing))
            self.node.handle_gap(datagram.destination, datagram.origin, missing, self._clock.now, via=via)
            self.drain()

    def _resend(self, request: Resend) -> None:
        endpoint = next((endpoint for node, endpoint in self._links.values() if node == request.peer), None)
        for (origin, _, group), buffer in self._buffers.items():
            if (origin, group) == (request.origin, request.group) and endpoint is not None:
                for number in request.numbers:
                    datagram = buffer.get(number)
                    if datagram is not None:
                        self._network.send(self.endpoint, (endpoint, "data"), datagram)


class Cluster:
    """Hosts n0, n1, … on one network; n0 is the seed of all others unless `peers` names other seeds."""

    def __init__(
        self,
        size: int,
        *,
        seed: int,
        impairment: Impairment | None = None,
        engine: str = "mesh",
        peers: dict[int, tuple[int, ...]] | None = None,
        **options: Any,
    ) -> None:
        """`peers` holds the numbers of each host's seeds; `options` are further fields of NodeConfig."""
        generator = random.Random(seed)
        self.clock = Clock()
        self.network = Network(self.clock, generator, impairment)
        self.hosts = [
            Host(
                NodeConfig(
                    name=f"n{index}",
                    identity=SimulatedIdentity(f"n{index}"),
                    endpoint=endpoint_of(index),
                    incarnation=1,
                    sender_key=b"",
                    engine=engine,
                    peers=tuple(endpoint_of(peer) for peer in (peers or {}).get(index, (0,))),
                    **options,
                ),
                self.clock,
                self.network,
                random.Random(generator.random()),
            )
            for index in range(size)
        ]

    def start(self, *, spread_s: float = 0.0) -> None:
        """Start all hosts, evenly spread over this time."""
        for index, host in enumerate(self.hosts):
            self.clock.call_at(self.clock.now + spread_s * index / len(self.hosts), host.start)
        self.run(spread_s)

    def run(self, seconds: float) -> None:
        """Advance virtual time."""
        self.clock.run_until(self.clock.now + seconds)

    def run_until_linked(self, *, limit_s: float) -> float:
        """Advance virtual time until all running hosts have links to each other.  Return the seconds it took."""
        began = self.clock.now
        assert self.clock.run_while(lambda: not self.is_linked(), limit_s=limit_s), "not linked in time"
        return self.clock.now - began

    def is_linked(self) -> bool:
        """Return whether each running host has links to all others."""
        running = [host for host in self.hosts if host.is_running]
        names = {host.name for host in running}
        return all(host.linked_peers() == names - {host.name} for host in running)
