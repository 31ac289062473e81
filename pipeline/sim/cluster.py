"""A cluster of nodes made of the daemon's own cores, on virtual time; packets follow the entries that they set.

A Host does what the daemon's control process does around an OverlayNode and a ForwardingTable, and what the C stages
do with the entries: look up, replicate, relay, deliver, drop what was seen.  Entries stand in `fib`, which like shared
memory outlives the control process.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from pipeline.address import Address, NodeId, SourceFilter, is_link_scope, is_multicast
from pipeline.engines.api import Resend
from pipeline.forwarding.route import FibDelete, FibEntry, FibKey, Kind, RouteChanged, Side
from pipeline.forwarding.table import ForwardingTable
from pipeline.overlay.events import (
    AddressMoved,
    AddressOwnersChanged,
    NodeEvent,
    NodeIdMoved,
    Notice,
    PeerChanged,
    RecordChanged,
    RecordGone,
)
from pipeline.overlay.node import NodeConfig, OverlayNode
from pipeline.sim.clock import Clock
from pipeline.sim.history import Stream
from pipeline.sim.netem import Impairment, Network

HOP_LIMIT = 16
HISTORY_PACKETS = 32
"""Of each stream, that can be sent once more."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet on its way: who sealed it, its number there, and its inner addresses."""

    origin: NodeId
    sequence: int
    source: Address
    destination: Address
    life: int = 0
    """Of the origin: its sender key is another in each."""
    number: int = 0
    """Stream sequence: counts the origin's packets to the group in that life."""
    hop_limit: int = HOP_LIMIT


class Host:
    """One node and its data plane."""

    def __init__(self, config: NodeConfig, clock: Clock, network: Network, generator: random.Random) -> None:
        self.config = config
        self.endpoint = config.endpoint
        self.notices: list[Notice] = []
        self.drops: Counter[str] = Counter()
        self.delivered: Counter[tuple[NodeId, int]] = Counter()
        """How often each packet was delivered to this host: (origin, sequence)."""
        self.received: Counter[Address] = Counter()
        """Packets delivered to this host, by destination."""
        self.flaps = 0
        """Links that went down."""
        self.moves = 0
        """Times its derived addresses were another's."""
        self._clock = clock
        self._network = network
        self._random = generator
        self._sequence = 0
        self._wake_at: float | None = None
        self._members: set[Address] = set()
        self._seen: set[tuple[NodeId, int]] = set()
        self._numbers: dict[Address, int] = {}
        self._streams: dict[tuple[NodeId, int, Address], Stream[Packet]] = {}
        self.fib: dict[FibKey, FibEntry] = {}
        self._keys: dict[NodeId, bytes] = {}
        self._links: dict[int, tuple[NodeId, str]] = {}
        self.is_running = False
        self.node = self._new_node()
        self.table = ForwardingTable(has_floods=self.config.view.covers_all_nodes)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.config.name

    @property
    def node_id(self) -> NodeId:
        """The node's id."""
        return self.node.record.node_id

    def give_addresses(self, *addresses: tuple[Address, int]) -> None:
        """`--address`, before the start."""
        self.config = replace(self.config, addresses=addresses)

    # ---- life

    def start(self) -> None:
        """Start a new life: nothing is known, nothing is joined."""
        incarnation = max(self.config.incarnation + 1, int(self._clock.now * 1000))
        self.config = replace(self.config, incarnation=incarnation, sender_key=self._random.randbytes(32))
        self.node, self.table = self._new_node(), ForwardingTable(has_floods=self.config.view.covers_all_nodes)
        self.fib, self._keys, self._links = {}, {}, {}
        self._members, self._seen, self._numbers, self._streams = set(), set(), {}, {}
        self._run()

    def stop(self) -> None:
        """End politely."""
        self.node.stop(self._clock.now)
        self._pump()
        self.crash()

    def crash(self) -> None:
        """End at once."""
        self.is_running = False
        self._network.detach((self.endpoint, "control"))
        self._network.detach((self.endpoint, "data"))

    def crash_control(self) -> bytes:
        """The control process dies; the data plane goes on.  Returns its checkpoint."""
        checkpoint = self.node.snapshot(self._clock.now)
        self.is_running = False
        self._network.detach((self.endpoint, "control"))
        return checkpoint

    def restore_control(self, checkpoint: bytes) -> None:
        """A new control process takes over."""
        self.node, self.table = self._new_node(), ForwardingTable(has_floods=self.config.view.covers_all_nodes)
        self.table.adopt((key, entry.stream) for key, entry in self.fib.items())
        self.node.restore(checkpoint, self._clock.now)
        for group in sorted(self._members):
            self.table.set_local(group, True)
        self._run()

    def _new_node(self) -> OverlayNode:
        return OverlayNode(self.config, random=self._random.random, now=self._clock.now)

    def _run(self) -> None:
        self.is_running = True
        self._network.attach((self.endpoint, "control"), self._on_message)
        self._network.attach((self.endpoint, "data"), self._on_packet)
        self.node.start(self._clock.now)
        self._pump()

    # ---- control

    def join(self, group: Address, sources: SourceFilter) -> None:
        """A program joins."""
        self._members.add(group)
        self.table.set_local(group, True)
        self.node.join(group, sources, self._clock.now)
        self._pump()

    def leave(self, group: Address) -> None:
        """It leaves."""
        self._members.discard(group)
        self.table.set_local(group, False)
        self.node.leave(group, self._clock.now)
        self._pump()

    def up(self) -> set[str]:
        """Names of the peers whose links are up."""
        return {link.name for link in self.node.links() if link.is_up}

    def _on_message(self, sender: str, data: bytes) -> None:
        reason = self.node.handle_message(sender, data, self._clock.now)
        if reason is not None:
            self.drops[reason] += 1
        self._pump()

    def _on_time(self, wake_at: float) -> None:
        if self.is_running and self._wake_at == wake_at:
            self._wake_at = None
            self.node.handle_timeout(self._clock.now)
            self._pump()

    def _pump(self) -> None:
        """Drain events, then entries, then messages; then see when to wake."""
        while (event := self.node.poll_event()) is not None:
            self._on_event(event)
        while (change := self.table.poll_change()) is not None:
            self._note_table_change()
            if isinstance(change, FibDelete):
                del self.fib[change.key]
            else:
                self.fib[change.key] = change
        while (transmit := self.node.poll_transmit()) is not None:
            endpoint, data = transmit
            self._network.send(self.endpoint, (endpoint, "control"), data)
        due = self.node.poll_timeout()
        if due is not None and due != self._wake_at:
            self._wake_at = due
            self._clock.call_at(due, self._on_time, due)

    def _note_table_change(self) -> None:
        """For those who remember what the table says."""

    def _on_event(self, event: NodeEvent) -> None:
        match event:
            case RouteChanged():
                self.table.set_route(event)
            case RecordChanged(record=record, link=link):
                self._keys[record.node_id] = record.sender_key
                self._links[link] = record.node_id, record.endpoint
                self.table.set_link(record.node_id, link)
            case RecordGone(record=record, link=link):
                self._keys.pop(record.node_id, None)
                self._links.pop(link, None)
                self.table.remove_link(record.node_id)
            case PeerChanged(record=record, is_up=is_up):
                self.flaps += not is_up
                self.table.set_up(record.node_id, up=is_up)
            case AddressOwnersChanged(owners=owners):
                self.table.set_address_owners(owners, own=self.node_id)
            case AddressMoved():
                self.moves += 1
            case NodeIdMoved():
                pass
            case Notice():
                self.notices.append(event)
            case Resend():
                self._resend(event)

    # ---- data

    def send(self, destination: Address, source: Address | None = None) -> tuple[NodeId, int]:
        """A program sends a packet.  Returns what `delivered` of the receivers counts it by."""
        self._sequence += 1
        width = len(destination)
        inner_source = source or next(each for each, _ in self.node.record.addresses if len(each) == width)
        number = self._numbers[destination] = self._numbers.get(destination, -1) + 1
        life = self.config.incarnation
        packet = Packet(self.node_id, self._sequence, inner_source, destination, life, number)
        entry = self._in_turn(self._look_up_host(packet), packet)
        if entry is None:
            self.drops["no_route"] += 1
            if is_multicast(destination) and not is_link_scope(destination):
                self.node.register_source(destination, self._clock.now)
                self._pump()
        else:
            self._remember(packet, None)
            self._replicate(packet, entry, came_from=None)
        return packet.origin, packet.sequence

    def _look_up_host(self, packet: Packet) -> FibEntry | None:
        group = packet.destination
        if not is_multicast(group):
            return self.fib.get(FibKey(Side.HOST, Kind.UNICAST, group))
        if is_link_scope(group):
            return self.fib.get(FibKey(Side.HOST, Kind.FLOOD, bytes(len(group))))
        specific = FibKey(Side.HOST, Kind.GROUP, group, packet.source)
        return self.fib.get(specific) or self.fib.get(FibKey(Side.HOST, Kind.GROUP, group))

    def _look_up_overlay(self, packet: Packet, via: NodeId | None) -> FibEntry | None:
        group = packet.destination
        if not is_multicast(group):
            return self.fib.get(FibKey(Side.OVERLAY, Kind.UNICAST, group))
        if is_link_scope(group):
            return self.fib.get(FibKey(Side.OVERLAY, Kind.FLOOD, bytes(len(group))))
        keys = [
            FibKey(Side.OVERLAY, Kind.GROUP, group, None, origin, link)
            for origin in (packet.origin, None)
            for link in (via, None)
        ]
        return next((self.fib[key] for key in keys if key in self.fib), None)

    def _in_turn(self, entry: FibEntry | None, packet: Packet) -> FibEntry | None:
        stripe = packet.number % entry.stripes if entry is not None else 0
        return entry if entry is None or not stripe else self.fib.get(entry.key._replace(stripe=stripe))

    def _remember(self, packet: Packet, via: NodeId | None) -> None:
        name = packet.origin, packet.life, packet.destination
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Stream(HISTORY_PACKETS)
        if stream.add(packet):
            missing = tuple(sorted(stream.missing))
            self.node.handle_gap(packet.destination, packet.origin, missing, self._clock.now, via=via)
            self._pump()

    def _resend(self, order: Resend) -> None:
        """Send what is still known of a stream once more."""
        endpoint = next((endpoint for node, endpoint in self._links.values() if node == order.peer), None)
        for (origin, _, group), stream in self._streams.items():
            if (origin, group) == (order.origin, order.group) and endpoint is not None:
                for number in order.numbers:
                    packet = stream.get(number)
                    if packet is not None:
                        self._network.send(self.endpoint, (endpoint, "data"), packet)

    def _on_packet(self, sender: str, packet: Packet) -> None:
        name = packet.origin, packet.sequence
        if packet.origin not in self._keys:
            self.drops["no_key"] += 1
            return
        if name in self._seen:
            self.drops["duplicate"] += 1
            return
        self._seen.add(name)
        via = next((node for node, endpoint in self._links.values() if endpoint == sender), None)
        if is_multicast(packet.destination):
            self._remember(packet, via)
        entry = self._in_turn(self._look_up_overlay(packet, via), packet)
        if entry is None:
            self.drops["no_entry"] += 1
            return
        if entry.local:
            self.delivered[name] += 1
            self.received[packet.destination] += 1
        if packet.hop_limit > 1:
            self._replicate(replace(packet, hop_limit=packet.hop_limit - 1), entry, came_from=via)

    def _replicate(self, packet: Packet, entry: FibEntry, came_from: NodeId | None) -> None:
        served = {came_from, packet.origin}
        for link in sorted(entry.links):
            node, endpoint = self._links[link]
            if node not in served:
                served.add(node)
                self._network.send(self.endpoint, (endpoint, "data"), packet)


class Cluster:
    """Hosts n0, n1, … on one network; n0 is everybody's seed unless `peers` says otherwise."""

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
        generator = random.Random(seed)
        self.clock = Clock()
        self.network = Network(self.clock, generator, impairment)
        self.hosts = [
            Host(
                NodeConfig(
                    name=f"n{index}",
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
        """Start all hosts, evenly over so many seconds."""
        for index, host in enumerate(self.hosts):
            self.clock.call_at(self.clock.now + spread_s * index / len(self.hosts), host.start)
        self.run(spread_s)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.run_until(self.clock.now + seconds)

    def run_until_linked(self, *, limit_s: float) -> float:
        """Let time pass until all running hosts are linked to each other; the seconds that took."""
        began = self.clock.now
        assert self.clock.run_while(lambda: not self.is_linked(), limit_s=limit_s), "not linked in time"
        return self.clock.now - began

    def is_linked(self) -> bool:
        """Whether each running host has a link to each other."""
        running = [host for host in self.hosts if host.is_running]
        names = {host.name for host in running}
        return all(host.up() == names - {host.name} for host in running)


def endpoint_of(index: int) -> str:
    """The endpoint of the nth host."""
    return f"192.0.{2 + index // 250}.{1 + index % 250}:4747"
