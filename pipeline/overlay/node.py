"""OverlayNode: a node's whole control plane but the membership querier, without I/O and without a clock.

    control sockets ──handle_message──▶ Sessions ──links, records──▶ Engine ──▶ RouteChanged
    membership ─────────join, leave──────────────────────────────────▲  │
                        Claims ◀──records within reach── Sessions    │  └─Transmit──▶ EngineMessage to a peer

One law: call inputs, then drain `poll_event` and only then `poll_transmit`, then ask `poll_timeout`.  (An
acknowledgement that leaves before the key it acknowledges stands in shared memory would invite packets that cannot be
opened.)  What many inputs change before a drain travels together: two thousand joins are one message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline import engines, limits, messages
from pipeline.address import Address, NodeId, SourceFilter, derive_node_id, show
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import Engine, EngineContext, LinkState, LinkWanted, Resend, RouteChanged, Transmit, Watchful
from pipeline.errors import ConfigError, WireError
from pipeline.messages import EngineMessage, NodeRecord
from pipeline.overlay.address_owners import AddressOwners
from pipeline.overlay.events import (
    AddressMoved,
    AddressOwnersChanged,
    NodeEvent,
    NodeIdMoved,
    Notice,
    NoticeKind,
    PeerChanged,
    RecordChanged,
    RecordGone,
)
from pipeline.overlay.peer import Pace
from pipeline.overlay.peer_table import PeerTable
from pipeline.overlay.sessions import Sessions, SessionsSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What a node is told about itself."""

    name: str
    endpoint: str
    """Where it listens, "ADDR:PORT"; with a wildcard address peers fill in what they see."""
    incarnation: int
    """Greater at each start of the node: milliseconds of the wall clock do."""
    sender_key: bytes
    """32 random bytes; empty if packets are not sealed."""
    key_epoch: int = 0
    lanes: int = 1
    engine: str = "mesh"
    engine_options: Mapping[str, object] = field(default_factory=dict)
    peers: tuple[str, ...] = ()
    addresses: tuple[tuple[Address, int], ...] = ()
    """(address, prefix length) given by hand; without any a pair is derived from the name."""
    is_sparse: bool = False
    """An overlay of many thousands, in simulations: see sessions.py for what it lacks."""
    pace: Pace = field(default_factory=Pace)
    share: Callable[[NodeRecord], NodeRecord] = lambda record: record
    """Of equal records the one to hold: nodes of one process, in simulations, need one copy."""


@dataclass(frozen=True, slots=True)
class LinkView:
    """One row of `show links`: a known peer, or a seed (`node_id` None, no name) that has not answered yet."""

    node_id: NodeId | None
    name: str
    endpoint: str
    addresses: tuple[tuple[Address, int], ...]
    is_up: bool
    link: int | None
    """Link index, the row of the link counters in shared memory."""


class NodeSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A checkpoint of a node."""

    sessions: SessionsSnapshot
    address_attempt: int
    engine: str
    engine_state: bytes


class OverlayNode:
    """Directory, links, addresses and engine of one node."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        random: Callable[[], float],
        now: float,
        derive_id: Callable[[str, int], NodeId] = derive_node_id,
    ) -> None:
        if len(config.peers) > limits.SEEDS_MAX:
            raise ConfigError(
                f"{len(config.peers)} peers are given, {limits.SEEDS_MAX} are enough: nodes learn the rest"
            )
        self._config = config
        self._random = random
        self._claims = AddressOwners()
        self._address_attempt = 0
        own_id = derive_id(config.name, 0)
        addresses = config.addresses or self._claims.derive(config.name, own_id, 0)[1]
        own = NodeRecord(
            node_id=own_id,
            name=config.name,
            incarnation=config.incarnation,
            version=1,
            addresses=addresses,
            endpoint=config.endpoint,
            lanes=config.lanes,
            key_epoch=config.key_epoch,
            sender_key=config.sender_key,
            engine=config.engine,
            explicit_addresses=bool(config.addresses),
        )
        self._roster = PeerTable(
            own,
            random=random,
            pace=config.pace,
            is_sparse=config.is_sparse,
            share=config.share,
            needed=lambda: set(self._engine.nodes()),
        )
        self._sessions = Sessions(self._roster, config.peers, derive_id=derive_id, random=random, now=now)
        self._engine = self._new_engine(now)
        self._now = now
        """Of the last input."""
        self._is_drained = False
        """Whether the engine has said all that it has to say of the inputs so far."""
        self._incarnations: dict[NodeId, int] = {}
        self._proven: dict[NodeId, int] = {}
        """The newest network key that each peer has proved to know."""
        self._events: deque[NodeEvent] = deque()
        self._hosts: dict[Address, NodeId] = {}
        self._conflicts: set[NodeId] = set()
        self._mismatches: set[NodeId] = set()

    # ---- inputs

    def _begin(self, now: float) -> None:
        """An input comes."""
        self._now, self._is_drained = now, False

    def start(self, now: float) -> None:
        """Begin to call peers."""
        self._begin(now)
        self._claims.set(self.record)
        self._sessions.start(now)
        self._settle(now)
        self._publish_hosts(now)

    def stop(self, now: float) -> None:  # noqa: ARG002 (as every input)
        """Say goodbye to all peers; drain `poll_transmit` once more and end."""
        self._sessions.stop()

    def handle_message(self, endpoint_hint: str, data: bytes, now: float, *, network_key: int = 0) -> str | None:
        """A message from a peer; `endpoint_hint` is the address it came from, or empty, `network_key` the number of the
        key that its sender has proved to know.

        Returns a reason word if it is nonsense: the driver logs it once and cuts the peer off.
        """
        self._begin(now)
        try:
            message = messages.decode_node(data)
        except WireError as error:
            return str(error)
        reason = None
        if isinstance(message, EngineMessage):
            reason = self._handle_engine_message(message, endpoint_hint, now)
        elif any(bool(told.sender_key) is not bool(self.record.sender_key) for told in messages.records_of(message)):
            return MessageRefusal.RECORD_UNSEALED
        else:
            self._sessions.handle_message(message, endpoint_hint, now)
        if message.sender in self._roster.peers and self._proven.get(message.sender, 0) < network_key:
            self._proven[message.sender] = network_key
        self._settle(now)
        return reason

    def handle_timeout(self, now: float) -> None:
        """The time of `poll_timeout` has come."""
        self._begin(now)
        self._sessions.handle_timeout(now)
        due = self._engine.poll_timeout()
        if due is not None and due <= now:
            self._engine.handle_timeout(now)
        self._settle(now)

    def join(self, group: Address, sources: SourceFilter, now: float) -> None:
        """This host wants the group from these sources; again when they change."""
        self._begin(now)
        if sources.is_empty:
            self._engine.leave(group, now)
        else:
            self._engine.join(group, sources, now)

    def leave(self, group: Address, now: float) -> None:
        """This host wants the group no longer."""
        self._begin(now)
        self._engine.leave(group, now)

    def register_source(self, group: Address, now: float) -> None:
        """A program of this host sends to the group."""
        self._begin(now)
        self._engine.register_source(group, now)

    def deregister_source(self, group: Address, now: float) -> None:
        """None does any more."""
        self._begin(now)
        self._engine.deregister_source(group, now)

    def handle_gap(
        self, group: Address, origin: NodeId, numbers: tuple[int, ...], now: float, *, via: NodeId | None = None
    ) -> None:
        """The data plane has seen that these datagrams of a stream are missing."""
        self._begin(now)
        self._engine.handle_gap(group, origin, numbers, now, via=via)

    def handle_stream_stall(self, group: Address, now: float) -> None:
        """The data plane got packets of a stream steadily, and for a while none."""
        self._begin(now)
        if isinstance(self._engine, Watchful):
            self._engine.handle_stream_stall(group, now)

    def handle_probes(self, peer: NodeId, now: float, *, are_answered: bool) -> None:
        """The data plane has heard a peer since this was last said; `are_answered`: and the peer hears this node."""
        self._begin(now)
        self._sessions.handle_probes(peer, now, are_answered=are_answered)

    def handle_rtt(self, peer: NodeId, rtt_s: float, now: float) -> None:
        """A link's measured round-trip time; only of links that are up."""
        self._begin(now)
        held = self._roster.peers.get(peer)
        if held is not None and held.is_up:
            self._engine.handle_link(peer, LinkState.UP, now, rtt_s=rtt_s)

    # ---- keys

    def set_keys(self, now: float, **keys: Any) -> None:
        """This node's record has other keys from now on, and the peers are told: the fields of rotation.KeyChange."""
        self._begin(now)
        self._roster.update_own(now, **keys)

    def has_proved(self, network_key: int) -> int:
        """How many nodes have sent a message by that network key or a newer one."""
        return sum(number >= network_key for number in self._proven.values())

    def exclude_older(self, network_key: int, now: float) -> list[str]:
        """Forgets all peers that have not proved to know that network key; their names.

        What others tell of them is not believed any more, until they come themselves.
        """
        self._begin(now)
        left = [node_id for node_id in self._roster.peers if self._proven.get(node_id, 0) < network_key]
        names = sorted(self.name_of(node_id) for node_id in left)
        for node_id in left:
            self._proven.pop(node_id, None)
            self._sessions.exclude(node_id, now)
        self._settle(now)
        return names

    @property
    def is_acknowledged(self) -> bool:
        """Whether every peer with a link up has this node's present record, and so its keys."""
        return all(peer.acknowledged == self.record.stamp for peer in self._roster.peers.values() if peer.is_up)

    # ---- outputs

    def poll_event(self) -> NodeEvent | None:
        """The next event."""
        if not self._events and not self._is_drained:
            self._drain_engine()
        return self._events.popleft() if self._events else None

    def poll_transmit(self) -> tuple[str, bytes] | None:
        """The next message: the endpoint it is for, and its bytes."""
        transmits = self._sessions.speaker.transmits
        if not transmits and not self._is_drained:
            self._drain_engine()
        return transmits.popleft() if transmits else None

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` is due."""
        sessions, engine = self._sessions.poll_timeout(), self._engine.poll_timeout()
        if sessions is None or engine is None:
            return engine if sessions is None else sessions
        return min(sessions, engine)

    # ---- views

    @property
    def record(self) -> NodeRecord:
        """This node's own record: its id, its addresses."""
        return self._roster.own

    def links(self) -> list[LinkView]:
        """All known peers by name, then the seeds that have not answered."""
        peers = sorted(self._roster.peers.values(), key=lambda peer: peer.record.name)
        views = [
            LinkView(
                node_id=peer.record.node_id,
                name=peer.record.name,
                endpoint=peer.record.endpoint,
                addresses=peer.record.addresses,
                is_up=peer.is_up,
                link=self._roster.links.get(peer.record.node_id),
            )
            for peer in peers
        ]
        reached = {peer.record.endpoint for peer in peers}
        silent = [seed.endpoint for seed in self._sessions.seeds.values() if seed.node_id is None]
        return views + [
            LinkView(None, "", endpoint, (), is_up=False, link=None) for endpoint in silent if endpoint not in reached
        ]

    def records(self) -> list[NodeRecord]:
        """The directory without this node's own record."""
        return list(self._roster.registry.others())

    def hosts(self) -> Mapping[Address, NodeId]:
        """The owner of each overlay address within reach, this node's own included."""
        return self._hosts

    def members(self, group: Address) -> list[str]:
        """Names of the other nodes within reach that want the group."""
        return sorted(self.name_of(node_id) for node_id in self._engine.members(group))

    def groups(self) -> set[Address]:
        """Groups that this node or one within reach wants."""
        return set(self._engine.groups())

    def name_of(self, node_id: NodeId) -> str:
        """A node's name, or its id in hexadecimal if it is not known."""
        record = self.record if node_id == self.record.node_id else self._roster.registry.get(node_id)
        return f"{node_id:08x}" if record is None else record.name

    def link_of(self, node_id: NodeId) -> int | None:
        """The link index of a known node."""
        return self._roster.links.get(node_id)

    # ---- a restart of the control process

    def snapshot(self, now: float) -> bytes:
        """A checkpoint.  It holds the sender keys of all nodes: keep it where only this instance can read it."""
        state = NodeSnapshot(
            sessions=self._sessions.snapshot(),
            address_attempt=self._address_attempt,
            engine=self._config.engine,
            engine_state=self._engine.snapshot(now),
        )
        return msgspec.msgpack.encode(state)

    def restore(self, data: bytes, now: float) -> None:
        """Go on as the node of the checkpoint, same id, incarnation and keys; call it before `start`, on a new object.

        ValueError if it is no checkpoint of this node and engine: then make a new object and start afresh.
        """
        try:
            state = msgspec.msgpack.decode(data, type=NodeSnapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"no checkpoint: {error}") from error
        if (state.sessions.own.name, state.engine) != (self._config.name, self._config.engine):
            raise ValueError("the checkpoint is another node's or another engine's")
        self._address_attempt = state.address_attempt
        self._sessions.restore(state.sessions, now)
        self._engine = self._new_engine(now)
        self._engine.restore(state.engine_state, now)
        self._incarnations = {each.record.node_id: each.record.incarnation for each in state.sessions.peers}

    # ---- between the parts

    def _new_engine(self, now: float) -> Engine:
        factory = engines.load(self._config.engine)
        options = self._config.engine_options
        context = EngineContext(
            node_id=self.record.node_id, random=self._random, options=options, is_sparse=self._config.is_sparse
        )
        return factory(context, now)

    def _handle_engine_message(self, message: EngineMessage, hint: str, now: float) -> str | None:
        peer = self._sessions.sender(message, hint, now)
        if peer is None or message.engine != self._config.engine:
            return None
        return self._engine.handle_message(message.sender, message.body, now)

    def _settle(self, now: float) -> None:
        """Let engine and claims know what the sessions have found, then hand it on."""
        events = self._roster.events
        may_move = False
        while events:
            event = events.popleft()
            match event:
                case RecordChanged(record=record):
                    self._note_life(record, now)
                    peer = self._roster.peers.get(record.node_id)
                    may_move |= peer is not None and peer.is_up and self._claims.set(record)
                case RecordGone(record=record):
                    self._incarnations.pop(record.node_id, None)
                    self._proven.pop(record.node_id, None)
                    self._engine.handle_link(record.node_id, LinkState.GONE, now)
                case PeerChanged(record=record, up=up):
                    may_move |= self._claims.set(record) if up else self._claims.remove(record.node_id)
                    self._engine.handle_link(record.node_id, LinkState.UP if up else LinkState.DOWN, now)
                case NodeIdMoved(old=old):
                    self._claims.remove(old)
                    self._renumber_engine(now)
                    may_move = True
                case _:
                    pass
            self._events.append(event)
        if may_move:
            self._settle_addresses(now)
            self._publish_hosts(now)

    def _note_life(self, record: NodeRecord, now: float) -> None:
        """A node that has restarted must say everything anew; one with another engine is told of once."""
        if self._incarnations.get(record.node_id, record.incarnation) != record.incarnation:
            self._engine.handle_link(record.node_id, LinkState.GONE, now)
        self._incarnations[record.node_id] = record.incarnation
        is_told = record.node_id in self._mismatches or len(self._mismatches) >= limits.NODES_MAX
        if record.engine != self._config.engine and not is_told:
            self._mismatches.add(record.node_id)
            text = f"{record.name} runs the engine {record.engine}, this node {self._config.engine}: no packets pass"
            self._events.append(Notice(NoticeKind.ENGINE_MISMATCH, record.name, text))

    def _renumber_engine(self, now: float) -> None:
        state = self._engine.snapshot(now)
        self._engine = self._new_engine(now)
        self._engine.restore(state, now)
        self._hosts = {}

    def _settle_addresses(self, now: float) -> None:
        """Give way if our derived addresses are another's; tell of those that nobody can give up."""
        own = self.record
        if self._claims.must_move(own):
            self._address_attempt, addresses = self._claims.derive(own.name, own.node_id, self._address_attempt + 1)
            self._roster.update_own(now, addresses=addresses)
            self._events.append(AddressMoved(addresses))
        elif own.explicit_addresses:
            for rival in self._claims.rivals(own):
                is_told = rival.node_id in self._conflicts or len(self._conflicts) >= limits.NODES_MAX
                if rival.explicit_addresses and not is_told:
                    self._conflicts.add(rival.node_id)
                    theirs = dict(rival.addresses)
                    shared = ", ".join(show(address) for address, _ in own.addresses if address in theirs)
                    keeper = self.name_of(min(own.node_id, rival.node_id))
                    text = f"{own.name} and {rival.name} were both given {shared}: unicast goes to {keeper}"
                    self._events.append(Notice(NoticeKind.ADDRESS_CONFLICT, rival.name, text))

    def _publish_hosts(self, now: float) -> None:
        if self._config.is_sparse:
            return
        self._claims.set(self.record)
        hosts = self._claims.owners()
        if hosts != self._hosts:
            self._hosts = hosts
            self._engine.handle_addresses(hosts, now)
            self._events.append(AddressOwnersChanged(hosts))

    def _drain_engine(self) -> None:
        self._is_drained = True
        while (output := self._engine.poll_output()) is not None:
            match output:
                case RouteChanged() | Resend():
                    self._events.append(output)
                case Transmit():
                    self._transmit(output)
                case LinkWanted(peer=peer_id, wanted=is_wanted):
                    # Unless the overlay is sparse, every node has a link to every other anyway.
                    self._roster.want(peer_id, self._now, is_wanted=is_wanted)

    def _transmit(self, output: Transmit) -> None:
        peer = self._roster.peers.get(output.peer)
        if peer is not None:
            message = EngineMessage(engine=self._config.engine, body=output.message, **self._sessions.speaker.header())
            self._sessions.send_engine(peer, message, output.mentions, self._now)
