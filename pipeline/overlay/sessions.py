"""Control sessions of one node with all its peers, and the directory that travels on them.

A message: `handle_message` → learn its records → signal the session → reply.  Time: `handle_timeout` → each session or
seed that is due sends, times out or is forgotten.

    A (knows an endpoint)                  B
    Greeting(dialled=endpoint) ──────────▶ learns A's record, without its keys
      learns B ◀────────────────────────── Hello(dialled_by_peer=endpoint)
    Hello(acked_stamp=B's) ──────────────▶ probing: A can open B's datagrams; B has A's keys, and introduces A to all
      probing: B can open A's datagrams ◀─ Heartbeat(acked_stamp=A's), DirectoryUpdate with all others
      up: an echo of B has arrived           up: an echo of A has arrived
    Heartbeats, each with the digest of the directory; a node with another digest sends a DirectorySummary

All but the Greeting is sealed for the receiver (envelopes.py).  Whatever is lost is repeated: a Hello until it is
acknowledged, a record for as long as digests differ.  With a partial view there are no digests: directory_view.py has
the differences.  Nodes of protocol 1 begin with a Hello.  An endpoint that does not answer is called in both protocols.

This module knows no engine, no overlay addresses and no sockets.  Peers stand in peer_table.py, whose events report
changes.  transmitter.py composes and queues messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from pipeline import endpoint as endpoints
from pipeline import limits, messages
from pipeline.address import NodeId
from pipeline.messages import (
    AnyNodeMessage,
    DirectorySummary,
    DirectoryUpdate,
    Goodbye,
    Heartbeat,
    Hello,
    NodeRecord,
    Refusal,
    RefusalReason,
    Stamp,
)
from pipeline.overlay.directory import Merge
from pipeline.overlay.events import NoticeKind, PeerChanged, ProbingChanged
from pipeline.overlay.id_conflicts import may_have_sent
from pipeline.overlay.leads import Leads
from pipeline.overlay.members import Members
from pipeline.overlay.own_identity import OwnIdentity
from pipeline.overlay.peer import Action, Peer, Signal
from pipeline.overlay.peer_table import PeerTable, Refused
from pipeline.overlay.receiver import Greeted
from pipeline.overlay.seeds import Seeds
from pipeline.overlay.transmitter import Transmitter


class PeerSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A peer in a checkpoint."""

    record: NodeRecord
    acked_stamp: Stamp | None = msgspec.field(name="acknowledged")
    """Version of our record that the peer holds; None if the link was not up."""
    last_number: int = msgspec.field(name="number_heard")
    window: int
    """Highest number of its sealed messages."""


class SessionsSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All sessions in a checkpoint."""

    own: NodeRecord
    number: int
    links: dict[NodeId, int]
    peers: list[PeerSnapshot]


class Sessions:
    """Sessions of one node with the peers of its table and with its seeds."""

    def __init__(
        self,
        peer_table: PeerTable,
        transmitter: Transmitter,
        seeds: Iterable[str],
        *,
        members: Members,
        derive_id: Callable[[bytes, int], NodeId],
        random: Callable[[], float],
        now: float,
    ) -> None:
        self._peer_table = peer_table
        self._transmitter = transmitter
        self.seeds = Seeds(
            peer_table, transmitter, seeds, accepts_unsigned=members.accepts_unsigned, random=random, now=now
        )
        self._members = members
        self.own_identity = OwnIdentity(peer_table, transmitter, self.seeds, derive_id=derive_id)
        self._leads = Leads(peer_table, transmitter, self.seeds)

    def start(self, now: float) -> None:
        """Call all seeds and known peers."""
        self.seeds.start(now)
        for node_id in self._peer_table.peers:
            self._peer_table.deadlines.set(node_id, now)

    def stop(self) -> None:
        """Send a Goodbye to every peer that is alive."""
        self._transmitter.send_goodbyes(self._peer_table.peers.values())

    # ---- messages

    def handle_greeting(self, greeted: Greeted, hint: str, now: float) -> None:
        """Take a Greeting.  It proves nothing but that its node made the record at some time."""
        record = msgspec.structs.replace(greeted.record, endpoint=endpoints.fill_in(greeted.record.endpoint, hint))
        own = self._peer_table.own
        if (record.public_key, record.incarnation) == (own.public_key, own.incarnation):
            self.seeds.answered(greeted.dialled, own.node_id)
            return
        if record.public_key == own.public_key:
            refused = self.own_identity.handle_record(record, now, is_direct=True)
            if refused is not None:
                self._refuse(record, refused)
            return
        peer = self._peer_table.peers.get(record.node_id)
        is_new = peer is None
        if is_new and self._peer_table.directory.is_full:
            self._make_room(now)
        refused = self._learn(record, now, is_direct=False, hint=hint)
        if refused is not None:
            self._refuse(record, refused)
            return
        peer = self._peer_table.peers.get(record.node_id)
        if peer is None or peer.record.incarnation != record.incarnation:
            return
        endpoint = peer.endpoint if peer.is_alive else record.endpoint
        if now - peer.replied_at >= limits.GREETING_INTERVAL_S:
            peer.replied_at = now
            if greeted.dialled:
                peer.is_newcomer = True
            self._transmitter.send_hello(peer, now, dialled_by_peer=greeted.dialled, endpoint=endpoint)

    def handle_message(self, message: AnyNodeMessage, hint: str, now: float) -> None:
        """Take a message other than an engine's; `hint` is its source address, or empty if the driver saw none."""
        match message:
            case Hello():
                self._on_hello(message, hint, now)
            case Refusal():
                self.own_identity.handle_refusal(message, hint, now)
            case DirectoryUpdate():
                peer = self.identify_sender(message, hint, now)
                if peer is not None and not peer.record.is_signed:
                    admits = self._peer_table.directory.admits_endpoint
                    self._leads.add([record for record in message.records if admits(record.endpoint, hint)], now)
                elif peer is not None:
                    for record in message.records:
                        self._on_report(message.sender, record, hint, now)
            case Heartbeat() | DirectorySummary() | Goodbye():
                peer = self.identify_sender(message, hint, now)
                if peer is not None:
                    self._on_peer_message(peer, message, now)

    def identify_sender(self, message: AnyNodeMessage, hint: str, now: float) -> Peer | None:
        """Return the peer that sent a message in its present incarnation, and note its sign of life.

        Any other sender gets None.  An unknown one of protocol 1 is called, as receiver.py calls those of protocol 2.
        """
        peer = self._peer_table.peers.get(message.sender)
        if peer is not None and peer.record.incarnation == message.incarnation:
            self._follow_endpoint(peer, message.endpoint, hint, now)
            if peer.is_alive:
                peer.message_received(now)
            return peer
        if peer is None or (not peer.record.is_signed and message.incarnation > peer.record.incarnation):
            endpoint = endpoints.fill_in(message.endpoint, hint)
            if self._peer_table.directory.admits_endpoint(endpoint, hint):
                self._transmitter.call_unsigned(endpoint)
        return None

    def _follow_endpoint(self, peer: Peer, listens: str, hint: str, now: float) -> None:
        """Update the endpoint of a peer that listens on a wildcard address and sends from another one than before."""
        seen = endpoints.fill_in(listens, hint)
        if seen not in (listens, peer.record.endpoint):
            self._learn(msgspec.structs.replace(peer.record, endpoint=seen), now, is_direct=True, hint=hint)

    def _on_hello(self, hello: Hello, hint: str, now: float) -> None:
        assert hello.record is not None, "a Hello without a record is refused when it is read"
        record = msgspec.structs.replace(hello.record, endpoint=endpoints.fill_in(hello.record.endpoint, hint))
        is_new = record.node_id not in self._peer_table.peers
        if is_new and self._peer_table.directory.is_full:
            self._make_room(now)
        refused = self._learn(record, now, is_direct=True, hint=hint)
        if refused is not None:
            self._refuse(record, refused)
            return
        peer = self._peer_table.peers.get(record.node_id)
        if peer is None or hello.number <= peer.last_number:
            return
        peer.last_number = hello.number
        peer.window.take(hello.number)
        self.seeds.answered(hello.dialled_by_peer, record.node_id)
        if not (hello.dialled and peer.is_probed):
            # A caller of an endpoint does not know its node.  Its Hello acknowledges nothing, and does not mean a loss.
            self._on_acknowledgement(peer, hello.acked_stamp, now)
        self._reply_to_hello(peer, hello, now, is_new=is_new)

    def _reply_to_hello(self, peer: Peer, hello: Hello, now: float, *, is_new: bool) -> None:
        own = self._peer_table.own
        if hello.dialled:
            self._transmitter.send_hello(peer, now, dialled_by_peer=hello.dialled)
        elif hello.acked_stamp == own.stamp or peer.holds(own.stamp, now):
            self._transmitter.send_heartbeat(peer)
            peer.hello_lost(now)  # a second Hello from the peer means that ours has not arrived
        else:
            self._transmitter.send_hello(peer, now)
        if peer.is_newcomer or hello.dialled:
            self._peer_table.view.introduce(peer, self._peer_table.peers, is_new=is_new or peer.is_newcomer)
            peer.is_newcomer = False

    def _refuse(self, record: NodeRecord, refused: Refused) -> None:
        """Send the reason to a node that is not taken, and its record to the older clone of it, if there is one."""
        if not record.is_signed:
            return
        self._transmitter.refuse(record, *refused)
        if self._members.is_revoked(record):
            self._transmitter.show_revocations(record, self._members.revocation_list)
        older = self._peer_table.peers.get(record.node_id)
        if refused.reason is RefusalReason.CLONE and older is not None:
            self._transmitter.report_clone(older, record)

    def _on_report(self, reporter: NodeId, record: NodeRecord, hint: str, now: float) -> None:
        """Take a record from another node than its own, and try the endpoint at which that one sees it."""
        if not record.has_keys and record.public_key != self._peer_table.own.public_key:
            return
        if not self._peer_table.directory.admits_endpoint(record.endpoint, hint):
            return
        self._learn(record, now, is_direct=False, hint=hint)
        peer = self._peer_table.peers.get(record.node_id)
        if peer is not None and not peer.is_alive:
            peer.endpoint_reported(reporter, record.endpoint)

    def _on_peer_message(self, peer: Peer, message: Heartbeat | DirectorySummary | Goodbye, now: float) -> None:
        if isinstance(message, DirectorySummary):
            self._on_summary(peer, message)
            return
        if message.number <= peer.last_number:
            return
        peer.last_number = message.number
        if isinstance(message, Goodbye):
            self._peer_table.signal(peer, Signal.GOODBYE, now, "goodbye")
            return
        self._on_acknowledgement(peer, message.acked_stamp, now)
        if message.acked_stamp == self._peer_table.own.stamp:
            self._peer_table.view.answer_heartbeat(peer, message, now)
        elif not peer.holds(self._peer_table.own.stamp, now):
            self._transmitter.send_hello(peer, now)

    def _on_summary(self, peer: Peer, summary: DirectorySummary) -> None:
        directory = self._peer_table.directory
        self._transmitter.send_records(peer, directory.newer_than(summary.entries))
        if summary.is_reply_requested and directory.lacks(summary.entries):
            self._transmitter.send_summary(peer, is_reply_requested=False)

    def _on_acknowledgement(self, peer: Peer, acked_stamp: Stamp | None, now: float) -> None:
        """Signal which version of our record the peer holds.  Without the peer's keys no link can be up."""
        if not peer.record.has_keys:
            acked_stamp = None
        if acked_stamp is None or acked_stamp[0] != self._peer_table.own.incarnation:
            if peer.is_probed and not peer.record.is_signed and peer.may_mean_former_node(now):
                self._transmitter.send_hello(peer, now)
                return
            peer.acked_stamp = None
            self._peer_table.signal(peer, Signal.UNKNOWN, now, "the peer lost this node")
            return
        if may_have_sent(self._peer_table.own, acked_stamp[1]):
            # This node was restored from a checkpoint that is older than the last version it had sent.
            self._peer_table.update_own(now, newer_than=acked_stamp[1])
        peer.acked(acked_stamp)
        is_current = acked_stamp == self._peer_table.own.stamp
        self._peer_table.signal(peer, Signal.ACKNOWLEDGED if is_current else Signal.OUTDATED, now, "acknowledged")

    def handle_probes(self, node_id: NodeId, now: float, *, are_answered: bool) -> None:
        """Note that the data plane received a peer's probes; `are_answered`: and the peer's answers to its own."""
        peer = self._peer_table.peers.get(node_id)
        if peer is not None and peer.is_up:
            heartbeat_s = max(limits.PROBED_HEARTBEAT_S, len(self._peer_table.peers) / limits.HEARTBEATS_PER_S)
            peer.probes_received(now, heartbeat_s=heartbeat_s, are_answered=are_answered)
            self._peer_table.deadlines.set(node_id, peer.due)

    def handle_echo(self, node_id: NodeId, now: float) -> None:
        """Note that an endpoint of a peer has answered a probe of the data plane, so datagrams arrive there."""
        peer = self._peer_table.peers.get(node_id)
        if peer is not None:
            self._peer_table.signal(peer, Signal.ECHO, now, "linked")

    # ---- records

    def _learn(self, record: NodeRecord, now: float, *, is_direct: bool, hint: str = "") -> Refused | None:
        """Take a record that came from address `hint`.  Returns why it was refused, if its node has to learn that."""
        own = self._peer_table.own
        if not self._peer_table.directory.admits_endpoint(record.endpoint, hint):
            return None
        if record.node_id == own.node_id or record.public_key == own.public_key:
            return self.own_identity.handle_record(record, now, is_direct=is_direct, hint=hint)
        return self._peer_table.learn(record, now, is_direct=is_direct, reporter=hint)

    def _make_room(self, now: float) -> None:
        """Forget a peer that is known only from other nodes: a node that sends for itself has precedence."""
        unconfirmed = next((peer for peer in self._peer_table.peers.values() if peer.last_number < 0), None)
        if unconfirmed is not None:
            self._forget(unconfirmed, now)

    def exclude(self, node_id: NodeId, now: float) -> None:
        """Forget a peer at once, and accept its record from then on only from the node itself."""
        peer = self._peer_table.peers[node_id]
        self._peer_table.signal(peer, Signal.GOODBYE, now, "excluded")
        self._forget(peer, now)
        self._peer_table.exclude(node_id)

    def _forget(self, peer: Peer, now: float) -> None:
        if self._peer_table.forget(peer, now):
            self.seeds.forget(peer.record.node_id)

    def send_revocations(self, revocation_list: bytes, node_id: NodeId | None = None) -> None:
        """Send the authority's revocation list to one peer, or to all that are alive."""
        for peer in self._peer_table.peers.values():
            if peer.is_alive and node_id in (None, peer.record.node_id):
                self._transmitter.send_revocations(peer, revocation_list)

    # ---- time

    def poll_timeout(self) -> float | None:
        """Return the time at which `handle_timeout` is due."""
        return self._peer_table.deadlines.next_due()

    def handle_timeout(self, now: float) -> None:
        """Serve each seed and session that is due."""
        self._peer_table.directory.expire_tombstones(now)
        while (key := self._peer_table.deadlines.pop_expired(now)) is not None:
            if isinstance(key, str):
                self._call(key, now)
            else:
                self._serve(self._peer_table.peers[key], now)

    def _call(self, endpoint: str, now: float) -> None:
        if endpoint in self.seeds:
            self.seeds.call(endpoint, now)
        else:
            self._leads.call(endpoint, now)

    def _serve(self, peer: Peer, now: float) -> None:
        match peer.next_action(now):
            case Action.TIME_OUT:
                self._peer_table.signal(peer, Signal.TIMEOUT, now, "silent")
            case Action.FORGET:
                self._forget(peer, now)
                return
            case Action.SEND:
                if peer.is_probed and peer.acked_stamp == self._peer_table.own.stamp:
                    self._transmitter.send_heartbeat(peer)
                else:
                    self._transmitter.send_hello(peer, now)
                if not peer.record.is_signed and not peer.is_alive:
                    self._transmitter.greet(peer.endpoint, dialled=peer.endpoint)  # it may have been upgraded
                peer.keepalive_sent(now)
                if peer.has_no_echo(now):
                    text = f"{peer.record.name} answers no probe at {peer.record.endpoint}: is its UDP port open?"
                    self._peer_table.notice(NoticeKind.NO_ECHO, peer.record.name, text)
            case Action.NOTHING:
                pass
        self._peer_table.deadlines.set(peer.record.node_id, peer.due)

    # ---- the engine's messages

    def send_engine(self, peer: Peer, message: messages.EngineMessage, mentions: Iterable[NodeId], now: float) -> None:
        """Queue an engine's message, which names the nodes in `mentions`."""
        self._peer_table.view.precede_engine_message(peer, mentions, now)
        self._transmitter.send(peer, message)

    # ---- a restart of the control process

    def snapshot(self) -> SessionsSnapshot:
        """Return the state that a restarted control process needs so that no peer notices the restart."""
        peers = [
            PeerSnapshot(
                record=peer.record,
                acked_stamp=peer.acked_stamp if peer.is_up else None,
                last_number=peer.last_number,
                window=peer.window.highest,
            )
            for peer in self._peer_table.peers.values()
        ]
        number, links = self._transmitter.number, dict(self._peer_table.links.as_mapping())
        return SessionsSnapshot(own=self._peer_table.own, number=number, links=links, peers=peers)

    def restore(self, snapshot: SessionsSnapshot, now: float) -> None:
        """Take over a snapshot, before `start`.  Versions and numbers jump beyond all that may have been sent since."""
        assert not self._peer_table.peers, "a snapshot is restored into a new node"
        self._peer_table.links.restore(snapshot.links)
        self._transmitter.number = snapshot.number + limits.RESTORE_STEP
        self._peer_table.directory.own = snapshot.own
        for saved in snapshot.peers:
            node_id = saved.record.node_id
            if self._peer_table.directory.merge(saved.record, is_alive=False, is_direct=True) is not Merge.NEW:
                raise ValueError(f"the snapshot has node {node_id} twice")
            self._peer_table.add(saved.record, now)
            peer = self._peer_table.peers[node_id]
            peer.last_number = saved.last_number
            peer.window.restart(saved.window)
            if saved.acked_stamp is not None:
                peer.resume(saved.acked_stamp, now)
                link = self._peer_table.link_of(peer)
                self._peer_table.events.append(ProbingChanged(peer.record, link, is_probed=True))
                self._peer_table.events.append(PeerChanged(peer.record, link, is_up=True, why="restored"))
        self._peer_table.update_own(now, newer_than=snapshot.own.version + limits.RESTORE_STEP)
