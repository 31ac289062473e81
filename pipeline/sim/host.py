"""The control plane of one simulated node: it drives an OverlayNode and a ForwardingTable as the control process does.

Subclasses add a data plane.  It forwards by the entries in `fib`, which outlive the control process, as the entries in
shared memory do.
"""

from __future__ import annotations

import abc
import random
from collections import Counter
from dataclasses import replace
from typing import Any, Protocol

from pipeline.address import Address, NodeId, SourceFilter
from pipeline.engines.api import Resend
from pipeline.forwarding.route import FibDelete, FibEntry, FibKey, RouteChanged
from pipeline.forwarding.table import ForwardingTable
from pipeline.messages import SIGNED_PROTOCOL
from pipeline.overlay.events import (
    AddressMoved,
    AddressOwnersChanged,
    NodeEvent,
    NodeIdMoved,
    Notice,
    PeerChanged,
    ProbingChanged,
    RecordChanged,
    RecordGone,
)
from pipeline.overlay.node import OverlayNode
from pipeline.overlay.node_config import NodeConfig
from pipeline.sim.clock import Clock
from pipeline.sim.netem import Deliver, Port

REPAIR_BUFFER_PACKETS = 32
"""Datagrams of each stream that a node can send again."""
PROBE_WAITS_S = (0.25, 0.5, 1.0)
"""Time after each probe without an answer; the last one repeats.  In mp_probe.h it grows, but the probes that an honest
peer sends each second cause one as well."""
PROBE_BYTES = 52
"""Length of a probe and of an echo."""


def endpoint_of(index: int) -> str:
    """Return the endpoint of host number `index`."""
    return f"192.0.{2 + index // 250}.{1 + index % 250}:4747"


class ControlNetwork(Protocol):
    """Network that carries control messages."""

    def attach(self, port: Port, deliver: Deliver) -> None:
        """Deliver messages for this port from now on."""

    def detach(self, port: Port) -> None:
        """Lose messages for this port from now on."""

    def send(self, sender: str, to: Port, message: Any) -> None:
        """Send a message."""


class ControlHost(abc.ABC):
    """One node without its data plane."""

    def __init__(self, config: NodeConfig, clock: Clock, network: ControlNetwork, generator: random.Random) -> None:
        self.config = config
        self.endpoint = config.endpoint
        self.is_running = False
        """True if the control process runs."""
        self.fib: dict[FibKey, FibEntry] = {}
        self.notices: list[Notice] = []
        self.drops: Counter[str] = Counter()
        self.flaps = 0
        """Number of times a link went down."""
        self.moves = 0
        """Number of times this node gave up its derived addresses."""
        self._clock = clock
        self._control_network = network
        self._random = generator
        self._wake_at: float | None = None
        self._members: set[Address] = set()
        """Groups that programs of this host have joined."""
        self._keys: dict[NodeId, bytes] = {}
        """Sender keys of the nodes whose packets can be opened."""
        self._links: dict[int, tuple[NodeId, str]] = {}
        """By link index: the node and its endpoint."""
        self._probed: dict[NodeId, str] = {}
        """Endpoints that have not answered a probe yet."""
        self.node, self.table = self._new_control()

    @property
    def name(self) -> str:
        """The node's name."""
        return self.config.name

    @property
    def node_id(self) -> NodeId:
        """The node's id."""
        return self.node.record.node_id

    def give_addresses(self, *addresses: tuple[Address, int]) -> None:
        """Set the addresses of `--address`; call it before the start."""
        self.config = replace(self.config, addresses=addresses)

    # ---- start and stop

    def start(self) -> None:
        """Start a new incarnation of the node, which knows no other node and has joined no group."""
        incarnation = max(self.config.incarnation + 1, int(self._clock.now * 1000))
        self.config = replace(self.config, incarnation=incarnation, sender_key=self._random.randbytes(32))
        self.node, self.table = self._new_control()
        self.fib, self._keys, self._links = {}, {}, {}
        self._control_network.attach((self.endpoint, "probe"), self._receive_probe)
        self._control_network.attach((self.endpoint, "echo"), self._receive_echo)
        self._members = set()
        self._start_control()

    def stop(self) -> None:
        """Stop the node; its peers are notified."""
        self.node.stop(self._clock.now)
        self.drain()
        self.crash()

    def crash(self) -> None:
        """Stop the node at once."""
        self.is_running = False
        for service in ("control", "probe", "echo"):
            self._control_network.detach((self.endpoint, service))

    def crash_control(self) -> bytes:
        """Stop the control process alone, and return its checkpoint; the data plane continues."""
        checkpoint = self.node.snapshot(self._clock.now)
        self.is_running = False
        self._control_network.detach((self.endpoint, "control"))
        return checkpoint

    def restore_control(self, checkpoint: bytes) -> None:
        """Start a new control process from a checkpoint."""
        self.node, self.table = self._new_control()
        self.table.adopt((key, entry.stream) for key, entry in self.fib.items())
        self.node.restore(checkpoint, self._clock.now)
        for group in sorted(self._members):
            self.table.set_local(group, True)
        self._start_control()

    def _new_control(self) -> tuple[OverlayNode, ForwardingTable]:
        node = OverlayNode(self.config, random=self._random.random, now=self._clock.now)
        return node, ForwardingTable(has_floods=self.config.view.covers_all_nodes)

    def _start_control(self) -> None:
        self.is_running = True
        self._control_network.attach((self.endpoint, "control"), self._receive_message)
        self.node.start(self._clock.now)
        self.drain()

    # ---- inputs

    def join(self, group: Address, sources: SourceFilter) -> None:
        """A program of this host joins a group."""
        self._members.add(group)
        self.table.set_local(group, True)
        self.node.join(group, sources, self._clock.now)
        self.drain()

    def leave(self, group: Address) -> None:
        """The last program of this host leaves a group."""
        self._members.discard(group)
        self.table.set_local(group, False)
        self.node.leave(group, self._clock.now)
        self.drain()

    def register_source(self, group: Address) -> None:
        """A program of this host sends to a group for which no entry stands."""
        self.node.register_source(group, self._clock.now)
        self.drain()

    def _receive_message(self, sender: str, message: bytes) -> None:
        reason = self.node.handle_message(sender, message, self._clock.now, speaks=SIGNED_PROTOCOL)
        if reason is not None:
            self.drops[reason] += 1
        self.drain()

    def _handle_timeout(self, wake_at: float) -> None:
        if self.is_running and self._wake_at == wake_at:
            self._wake_at = None
            self.node.handle_timeout(self._clock.now)
            self.drain()

    # ---- probes

    def _probe(self, node_id: NodeId, endpoint: str, attempts: int) -> None:
        """Probe an endpoint until it answers."""
        if self._probed.get(node_id) != endpoint:
            return
        self._control_network.send(self.endpoint, (endpoint, "probe"), bytes(PROBE_BYTES))
        wait_s = PROBE_WAITS_S[min(attempts, len(PROBE_WAITS_S) - 1)]
        self._clock.call_at(self._clock.now + wait_s, self._probe, node_id, endpoint, attempts + 1)

    def _receive_probe(self, sender: str, probe: bytes) -> None:
        if any(endpoint == sender for _, endpoint in self._links.values()):  # else the sender's key is not known
            self._control_network.send(self.endpoint, (sender, "echo"), probe)

    def _receive_echo(self, sender: str, _echo: bytes) -> None:
        for node_id in [node_id for node_id, endpoint in self._probed.items() if endpoint == sender]:
            del self._probed[node_id]
            if self.is_running:
                self.node.handle_echo(node_id, self._clock.now)
                self.drain()

    # ---- outputs

    def linked_peers(self) -> set[str]:
        """Return the names of the peers whose links are up."""
        return {link.name for link in self.node.links() if link.is_up}

    def drain(self) -> None:
        """Drain events, then entries, then messages, and schedule the next timeout."""
        while (event := self.node.poll_event()) is not None:
            self._handle_event(event)
        while (change := self.table.poll_change()) is not None:
            self._write_entry(change)
        while (transmit := self.node.poll_transmit()) is not None:
            endpoint, message = transmit
            self._control_network.send(self.endpoint, (endpoint, "control"), message)
        due = self.node.poll_timeout()
        if due is not None and due != self._wake_at:
            self._wake_at = due
            self._clock.call_at(due, self._handle_timeout, due)

    def _write_entry(self, change: FibEntry | FibDelete) -> None:
        if isinstance(change, FibDelete):
            del self.fib[change.key]
        else:
            self.fib[change.key] = change

    def _handle_event(self, event: NodeEvent) -> None:
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
            case ProbingChanged(record=record, is_probed=is_probed):
                self._probed.pop(record.node_id, None)
                if is_probed:
                    self._probed[record.node_id] = record.endpoint
                    self._probe(record.node_id, record.endpoint, 0)
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

    @abc.abstractmethod
    def _resend(self, request: Resend) -> None:
        """Send datagrams from the repair buffer to a node again."""
