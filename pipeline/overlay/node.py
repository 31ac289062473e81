"""OverlayNode: the control plane of one node without the membership router.  It does no I/O and reads no clock.

    control sockets ──handle_message──▶ Sessions ──links, records──▶ Engine ──▶ RouteChanged
    membership ─────────join, leave──────────────────────────────────▲  │
                        Addresses ◀──────records of linked nodes     │  └─Transmit──▶ EngineMessage to a peer

One law: call inputs, then drain `poll_event`, and only then `poll_transmit`; then call `poll_timeout`.  An
acknowledgement that is sent before the key it acknowledges is in shared memory would invite packets that cannot be
opened.  Changes of many inputs before a drain travel together: two thousand joins are one message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pipeline import engines, limits, messages
from pipeline.address import Address, NodeId, SourceFilter, derive_node_id
from pipeline.engines.api import Engine, EngineContext, LinkState, LinkWanted, Resend, RouteChanged, Transmit
from pipeline.errors import WireError
from pipeline.messages import EngineMessage, NodeRecord, Revocations
from pipeline.overlay.addresses import Addresses
from pipeline.overlay.directory import Directory
from pipeline.overlay.envelopes import Envelopes
from pipeline.overlay.events import (
    AddressMoved,
    AddressOwnersChanged,
    NodeEvent,
    NodeIdMoved,
    NoticeKind,
    PeerChanged,
    RecordChanged,
    RecordGone,
    RevocationsChanged,
)
from pipeline.overlay.node_config import LinkView, NodeConfig, NodeSnapshot, first_record, link_view
from pipeline.overlay.peer_table import PeerTable
from pipeline.overlay.receiver import Greeted, Receiver
from pipeline.overlay.sessions import Sessions
from pipeline.overlay.transmitter import Transmitter


class OverlayNode:
    """Directory, links, addresses and engine of one node."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        random: Callable[[], float],
        now: float,
        derive_id: Callable[[bytes, int], NodeId] = derive_node_id,
    ) -> None:
        assert len(config.peers) <= limits.SEEDS_MAX, "the configuration has checked this"
        self._config = config
        self._random = random
        self._addresses = Addresses(config.claims, config.members)
        node_id = derive_id(config.identity.public_key, 0)
        own_addresses = config.addresses or self._addresses.first(config.name, node_id)
        self.directory = directory = Directory(first_record(config, node_id, own_addresses))
        self._envelopes = Envelopes(config.identity)
        self._transmitter = Transmitter(directory, self._envelopes)
        self._view = config.view(
            directory,
            self._transmitter,
            engine_options=config.engine_options,
            engine_nodes=lambda: self._engine.nodes(),  # noqa: PLW0108 (the engine is made later, and may be replaced)
        )
        self._peer_table = PeerTable(
            directory,
            self._view,
            members=config.members,
            envelopes=self._envelopes,
            random=random,
            share=config.share,
        )
        self._sessions = Sessions(
            self._peer_table,
            self._transmitter,
            config.peers,
            members=config.members,
            derive_id=derive_id,
            random=random,
            now=now,
        )
        self.receiver = Receiver(self._peer_table, self._transmitter, self._envelopes, config.members, now=now)
        self._engine = self._new_engine(now)
        self._now = now
        """Time of the last input."""
        self._is_drained = False
        """True if all outputs of the engine have been taken since the last input."""
        self.proven_sender: NodeId | None = None
        """Node that has proved by a seal to be the sender of the last message; the driver charges it for the cost."""
        self._incarnations: dict[NodeId, int] = {}
        self._proven_keys: dict[NodeId, int] = {}
        """Number of the newest network key that each peer has proved to know."""
        self._events: deque[NodeEvent] = deque()

    def _new_engine(self, now: float) -> Engine:
        context = EngineContext(
            node_id=self.record.node_id,
            random=self._random,
            options=self._config.engine_options,
            view=self._view,
        )
        return engines.load(self._config.engine)(context, now)

    # ---- lifecycle

    def start(self, now: float) -> None:
        """Begin to call peers."""
        self._begin_input(now)
        self._addresses.set(self.record)
        self._sessions.start(now)
        self._settle(now)
        self._publish_owners(now)

    def stop(self, now: float) -> None:  # noqa: ARG002 (as every input)
        """Send a Goodbye to all peers; drain `poll_transmit` once more, then drop the object."""
        self._sessions.stop()

    # ---- inputs from other nodes

    def handle_message(
        self, endpoint_hint: str, data: bytes, now: float, *, network_key: int = 0, speaks: int = 0
    ) -> str | None:
        """Take a message from a peer.

        `endpoint_hint` is its source address, or empty; `network_key` is the number of the network key that its sender
        has proved to know; `speaks` is the newest protocol that it speaks, 0 if that is unknown.  Returns a reason word
        if it is refused: the driver logs it once and cuts the peer off.
        """
        self._begin_input(now)
        self.proven_sender = None
        if messages.protocol_of(data) < min(speaks, messages.SIGNED_PROTOCOL):
            return None  # the sender tried an older protocol, as it did not know this node
        try:
            message = self.receiver.read(data, endpoint_hint, now)
        except WireError as error:
            return str(error)
        if message is None:
            return None
        if messages.protocol_of(data) >= messages.SIGNED_PROTOCOL and not isinstance(message, Greeted):
            self.proven_sender = message.sender
        reason = None
        if isinstance(message, Greeted):
            self._sessions.handle_greeting(message, endpoint_hint, now)
        elif isinstance(message, Revocations):
            reason = self.take_revocations(message.revocation_list, now)
        elif isinstance(message, EngineMessage):
            reason = self._handle_engine_message(message, endpoint_hint, now)
        else:
            self._sessions.handle_message(message, endpoint_hint, now)
        if not isinstance(message, Greeted) and message.sender in self._peer_table.peers:
            self._proven_keys[message.sender] = max(network_key, self._proven_keys.get(message.sender, 0))
        self._settle(now)
        return reason

    def _begin_input(self, now: float) -> None:
        self._now, self._is_drained = now, False

    def _handle_engine_message(self, message: EngineMessage, hint: str, now: float) -> str | None:
        peer = self._sessions.identify_sender(message, hint, now)
        if peer is None or message.engine != self._config.engine:
            return None
        return self._engine.handle_message(message.sender, message.body, now)

    def handle_timeout(self, now: float) -> None:
        """Act on the time that `poll_timeout` returned."""
        self._begin_input(now)
        self._sessions.handle_timeout(now)
        due = self._engine.poll_timeout()
        if due is not None and due <= now:
            self._engine.handle_timeout(now)
        self._settle(now)

    # ---- inputs from the membership router

    def join(self, group: Address, sources: SourceFilter, now: float) -> None:
        """This host joins the group, or its source filter has changed."""
        self._begin_input(now)
        if sources.is_empty:
            self._engine.leave(group, now)
        else:
            self._engine.join(group, sources, now)

    def leave(self, group: Address, now: float) -> None:
        """This host leaves the group."""
        self._begin_input(now)
        self._engine.leave(group, now)

    # ---- inputs from the data plane

    def register_source(self, group: Address, now: float) -> None:
        """A program of this host sends to the group."""
        self._begin_input(now)
        self._engine.register_source(group, now)

    def deregister_source(self, group: Address, now: float) -> None:
        """No program of this host sends to the group any more."""
        self._begin_input(now)
        self._engine.deregister_source(group, now)

    def handle_gap(
        self, group: Address, origin: NodeId, numbers: tuple[int, ...], now: float, *, via: NodeId | None = None
    ) -> None:
        """The missing datagrams of a stream have changed; all of them are listed."""
        self._begin_input(now)
        self._engine.handle_gap(group, origin, numbers, now, via=via)

    def handle_stream_stall(self, group: Address, now: float) -> None:
        """A steady stream has stopped."""
        self._begin_input(now)
        self._engine.handle_stream_stall(group, now)

    def handle_probes(self, peer: NodeId, now: float, *, are_answered: bool) -> None:
        """The data plane has received a peer's probes since the last call; `are_answered`: and answers to its own."""
        self._begin_input(now)
        self._sessions.handle_probes(peer, now, are_answered=are_answered)

    def handle_echo(self, peer: NodeId, now: float) -> None:
        """An endpoint of a peer has answered a probe: datagrams arrive there."""
        self._begin_input(now)
        self._sessions.handle_echo(peer, now)
        self._settle(now)

    def handle_rtt(self, peer: NodeId, rtt_s: float, now: float) -> None:
        """The round-trip time of a link was measured; ignored while the link is down."""
        self._begin_input(now)
        held = self._peer_table.peers.get(peer)
        if held is not None and held.is_up:
            self._engine.handle_link(peer, LinkState.UP, now, rtt_s=rtt_s)

    # ---- members

    def set_certificate(self, certificate: bytes, now: float) -> None:
        """Put a renewed certificate into this node's record and send it to the peers."""
        self._begin_input(now)
        if certificate != self.record.certificate:
            self._peer_table.update_own(now, certificate=certificate)

    def take_revocations(self, revocation_list: bytes, now: float) -> str | None:
        """Take a revocation list of the authority, and pass it on if it is newer than the present one.

        Returns a reason word if the authority has not signed it.
        """
        self._begin_input(now)
        members = self._config.members
        try:
            is_newer = bool(revocation_list) and members.take_revocations(revocation_list)
        except WireError as error:
            return str(error)
        if is_newer:
            self._sessions.send_revocations(revocation_list)
            excluded = self.exclude_objectionable(now)
            self._events.append(RevocationsChanged(revocation_list, tuple(excluded)))
            objection = members.objection(self.record)
            if objection is not None:
                text = f"this node is no member any more: {objection.detail}"
                self._peer_table.notice(NoticeKind.EXCLUDED, self.record.name, text)
        self._settle(now)
        return None

    def exclude_objectionable(self, now: float) -> list[str]:
        """Forget all peers that may not be members any more, and return their names."""
        self._begin_input(now)
        peers, members = self._peer_table.peers, self._config.members
        return self._exclude([node_id for node_id, peer in peers.items() if members.objection(peer.record)], now)

    def _exclude(self, excluded: list[NodeId], now: float) -> list[str]:
        """Forget peers, and return their names.  Their records are then accepted only from the nodes themselves."""
        names = sorted(self.name_of(node_id) for node_id in excluded)
        for node_id in excluded:
            self._proven_keys.pop(node_id, None)
            self._sessions.exclude(node_id, now)
        self._settle(now)
        return names

    # ---- keys

    def set_keys(self, now: float, **keys: Any) -> None:
        """Put other sender keys into this node's record and send it to the peers; `keys`: the fields of KeyChange."""
        self._begin_input(now)
        self._peer_table.update_own(now, **keys)

    def begin_incarnation(self, incarnation: int, sender_key: bytes, now: float) -> None:
        """Continue as after a start, with new keys: this host was restored, so its numbers have been used before."""
        self._begin_input(now)
        epoch = (self.record.key_epoch + 1) % 256
        self._sessions.own_identity.begin_incarnation(
            now,
            incarnation=max(incarnation, self.record.incarnation + 1),
            sender_key=sender_key if self.record.sender_key else b"",
            key_epoch=epoch,
            second_epoch=None,
            second_key=b"",
        )
        self._settle(now)

    def has_proved(self, network_key: int) -> int:
        """Return the number of nodes that have proved to know this network key or a newer one."""
        return sum(number >= network_key for number in self._proven_keys.values())

    def exclude_older(self, network_key: int, now: float) -> list[str]:
        """Forget all peers that have not proved to know this network key, and return their names."""
        self._begin_input(now)
        peers, proven = self._peer_table.peers, self._proven_keys
        return self._exclude([node_id for node_id in peers if proven.get(node_id, 0) < network_key], now)

    @property
    def is_acknowledged(self) -> bool:
        """True if every peer that can open this node's datagrams has this node's present record, and so its keys."""
        return all(peer.acked_stamp == self.record.stamp for peer in self._peer_table.peers.values() if peer.is_probed)

    # ---- outputs

    def poll_event(self) -> NodeEvent | None:
        """Return the next event, or None."""
        if not self._events and not self._is_drained:
            self._drain_engine()
        return self._events.popleft() if self._events else None

    def poll_transmit(self) -> tuple[str, bytes] | None:
        """Return the next message as (endpoint, bytes), or None."""
        transmits = self._transmitter.transmits
        if not transmits and not self._is_drained:
            self._drain_engine()
        return transmits.popleft() if transmits else None

    def _drain_engine(self) -> None:
        self._is_drained = True
        while (output := self._engine.poll_output()) is not None:
            match output:
                case RouteChanged() | Resend():
                    self._events.append(output)
                case Transmit():
                    self._transmit(output)
                case LinkWanted(peer=node_id, is_wanted=is_wanted):
                    self._peer_table.set_link_wanted(node_id, self._now, is_wanted=is_wanted)

    def _transmit(self, output: Transmit) -> None:
        peer = self._peer_table.peers.get(output.peer)
        if peer is not None:
            message = EngineMessage(engine=self._config.engine, body=output.message, **self._transmitter.header())
            self._sessions.send_engine(peer, message, output.mentions, self._now)

    def poll_timeout(self) -> float | None:
        """Return the time at which `handle_timeout` is due."""
        due = self._sessions.poll_timeout(), self._engine.poll_timeout()
        return min((each for each in due if each is not None), default=None)

    # ---- between sessions, engine and addresses

    def _settle(self, now: float) -> None:
        """Pass changes of sessions to engine and address owners, then report them."""
        events = self._peer_table.events
        owners_may_change = False
        while events:
            event = self._accept_addresses(events.popleft())
            match event:
                case RecordChanged(record=record):
                    self._on_record_changed(record, now)
                    peer = self._peer_table.peers.get(record.node_id)
                    owners_may_change |= peer is not None and peer.is_up and self._addresses.set(record)
                case RecordGone(record=record):
                    self._incarnations.pop(record.node_id, None)
                    self._proven_keys.pop(record.node_id, None)
                    self._engine.handle_link(record.node_id, LinkState.GONE, now)
                case PeerChanged(record=record, is_up=is_up):
                    if is_up and self._config.members.revocation_list:
                        self._sessions.send_revocations(self._config.members.revocation_list, record.node_id)
                    addresses = self._addresses
                    owners_may_change |= addresses.set(record) if is_up else addresses.remove(record.node_id)
                    self._engine.handle_link(record.node_id, LinkState.UP if is_up else LinkState.DOWN, now)
                case NodeIdMoved(old=old):
                    self._addresses.remove(old)
                    self._renumber_engine(now)
                    owners_may_change = True
                case _:
                    pass
            self._events.append(event)
        if owners_may_change:
            self._settle_addresses(now)
            self._publish_owners(now)

    def _accept_addresses(self, event: NodeEvent) -> NodeEvent:
        """Return an event in which the record has only the addresses that its node may have."""
        if isinstance(event, RecordChanged | PeerChanged) and (refusal := self._addresses.refusal(event.record)):
            self._peer_table.notice(NoticeKind.ADDRESS_REFUSED, event.record.name, refusal)
            return msgspec.structs.replace(event, record=self._addresses.accepted(event.record))
        return event

    def _on_record_changed(self, record: NodeRecord, now: float) -> None:
        """Drop the engine's state of a node that has restarted; give notice of one that runs another engine."""
        if self._incarnations.get(record.node_id, record.incarnation) != record.incarnation:
            self._engine.handle_link(record.node_id, LinkState.GONE, now)
        self._incarnations[record.node_id] = record.incarnation
        if record.engine != self._config.engine:
            text = f"{record.name} runs the engine {record.engine}, this node {self._config.engine}: no packets pass"
            self._peer_table.notice(NoticeKind.ENGINE_MISMATCH, record.name, text)

    def _renumber_engine(self, now: float) -> None:
        """Replace the engine by one with the new node id and the same state."""
        state = self._engine.snapshot(now)
        self._engine = self._new_engine(now)
        self._engine.restore(state, now)
        self._addresses.owners = {}

    def _settle_addresses(self, now: float) -> None:
        """Take other derived addresses if another node owns ours; give notice of conflicts of explicit ones."""
        own = self.record
        if addresses := self._addresses.next_derived(own):
            self._peer_table.update_own(now, addresses=addresses)
            self._events.append(AddressMoved(addresses))
        for rival, text in self._addresses.conflicts(own):
            self._peer_table.notice(NoticeKind.ADDRESS_CONFLICT, rival, text)
        self._events.extend(self._peer_table.events)
        self._peer_table.events.clear()

    def _publish_owners(self, now: float) -> None:
        if self._view.covers_all_nodes and self._addresses.update_owners(self.record):
            self._engine.handle_addresses(self._addresses.owners, now)
            self._events.append(AddressOwnersChanged(self._addresses.owners))

    # ---- views

    @property
    def record(self) -> NodeRecord:
        """This node's own record, with its id and its addresses."""
        return self._peer_table.own

    def links(self) -> list[LinkView]:
        """Return all known peers by name, then the seeds that have not answered."""
        peers = sorted(self._peer_table.peers.values(), key=lambda peer: peer.record.name)
        known = [
            link_view(self._addresses.accepted(peer.record), self._peer_table.link_of(peer), is_up=peer.is_up)
            for peer in peers
        ]
        reached = {peer.record.endpoint for peer in peers}
        unanswered = [endpoint for endpoint in self._sessions.seeds.unanswered() if endpoint not in reached]
        return known + [LinkView(None, "", endpoint, (), is_up=False, link=None) for endpoint in unanswered]

    def records(self) -> list[NodeRecord]:
        """Return the directory without this node's own record."""
        return list(self._peer_table.directory.others())

    def address_owners(self) -> Mapping[Address, NodeId]:
        """Return the owner of each overlay address of this node and of those with a link up."""
        return self._addresses.owners

    def members(self, group: Address) -> list[str]:
        """Return the names of the members of the group that the engine knows of, without this node."""
        return sorted(map(self.name_of, self._engine.members(group)))

    def groups(self) -> set[Address]:
        """Return the groups that the engine knows of."""
        return set(self._engine.groups())

    def name_of(self, node_id: NodeId) -> str:
        """Return a node's name, or its id in hexadecimal if it is not known."""
        record = self.record if node_id == self.record.node_id else self._peer_table.directory.get(node_id)
        return f"{node_id:08x}" if record is None else record.name

    def link_of(self, node_id: NodeId) -> int | None:
        """Return the link index of a node, or None if it is not known."""
        return self._peer_table.links.get(node_id)

    # ---- a restart of the control process

    def snapshot(self, now: float) -> bytes:
        """Return a checkpoint.  It holds the sender keys of all nodes: let no other instance read it."""
        state = NodeSnapshot(
            sessions=self._sessions.snapshot(),
            address_attempt=self._addresses.attempt,
            engine=self._config.engine,
            engine_state=self._engine.snapshot(now),
        )
        return msgspec.msgpack.encode(state)

    def restore(self, data: bytes, now: float) -> None:
        """Continue as the node of the checkpoint, with its id, incarnation and keys; before `start`, on a new object.

        ValueError if it is no checkpoint of this node and engine: then drop this object and start with another one.
        """
        try:
            state = msgspec.msgpack.decode(data, type=NodeSnapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"no checkpoint: {error}") from error
        own = state.sessions.own
        if (own.public_key, state.engine) != (self._config.identity.public_key, self._config.engine):
            raise ValueError("the checkpoint is another node's or another engine's")
        self._addresses.attempt = state.address_attempt
        self._sessions.restore(state.sessions, now)
        self._engine = self._new_engine(now)
        self._engine.restore(state.engine_state, now)
        self._incarnations = {each.record.node_id: each.record.incarnation for each in state.sessions.peers}
