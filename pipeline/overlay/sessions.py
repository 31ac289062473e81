"""The control sessions with all peers, and the directory that travels on them.

A message's way: `handle_message` → learn records → signal the session → answer.  Time's way: `handle_timeout` → each
session or seed that is due speaks, goes down or is forgotten.

    A (knows an endpoint)                 B
    Hello(to=endpoint) ─────────────────▶ learns A's record, passes it on to its peers
      learns B, learns all ◀───────────── Hello(known=A's record, reached=endpoint), DirectoryUpdate
      up: B can open what A sends
    Heartbeat(known=B's record) ────────▶ up: A can open what B sends
    Heartbeats, each with the digest of the directory; who sees another digest sends a DirectorySummary

Whatever is lost is said again: a Hello until it is acknowledged, a record for as long as digests differ.  It knows no
engine, no addresses and no sockets: who is known stands in the roster (roster.py), whose events tell of changes, and
what is said is queued by the speaker (speaker.py).

All that is for an overlay in which everybody has a link to everybody: flooded groups and unicast need one, and to
1,024 nodes it costs each node some 100 kB/s.  A *sparse* one of many thousands knows no whole directory:

    sessions    with those that this node's engine wants, or whose engines want this node; others are answered
    records     of those it has had to do with, and of nodes that an engine's message mentions: they are sent along
                with the message to who may not have them, and forgotten when nobody has needed them for a while
    heartbeats  only where the engine has nothing to say

It has no flooded groups but among neighbours and no unicast but to them, so daemons do not use it.
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
    Stamp,
)
from pipeline.overlay.directory import Merge
from pipeline.overlay.events import NodeIdMoved, NoticeKind, PeerChanged
from pipeline.overlay.id_conflicts import Finding, IdConflicts, may_have_told
from pipeline.overlay.peer import Action, Peer, Seed, Signal
from pipeline.overlay.peer_table import PeerTable
from pipeline.overlay.transmitter import Transmitter

TOLD_SHARE = 0.9
"""Of the time after which a record is forgotten: so long it is not told again."""


class PeerSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A peer in a checkpoint."""

    record: NodeRecord
    acknowledged: Stamp | None
    """Our record as the peer holds it; None if the link was not up."""
    number_heard: int


class SessionsSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All sessions in a checkpoint."""

    own: NodeRecord
    number: int
    links: dict[NodeId, int]
    peers: list[PeerSnapshot]


class Sessions:
    """Of one node with all whom its roster and its seeds name."""

    def __init__(
        self,
        roster: PeerTable,
        seeds: Iterable[str],
        *,
        derive_id: Callable[[str, int], NodeId],
        random: Callable[[], float],
        now: float,
    ) -> None:
        self._roster = roster
        self.speaker = Transmitter(roster.registry)
        self.seeds = {seed: Seed(seed, random=random, now=now) for seed in seeds if seed != roster.own.endpoint}
        self._derive_id = derive_id
        self._identity = IdConflicts()
        self._summary_at = now

    def start(self, now: float) -> None:
        """Call everybody known."""
        for seed in self.seeds.values():
            self._roster.deadlines.set(seed.endpoint, now)
        for node_id in self._roster.peers:
            self._roster.deadlines.set(node_id, now)

    def stop(self) -> None:
        """Say goodbye."""
        for peer in self._roster.peers.values():
            if peer.is_heard:
                self.speaker.goodbye(peer)

    def handle_probes(self, node_id: NodeId, now: float, *, are_answered: bool) -> None:
        """The data plane has heard a peer's probes, or echoes of its own (`are_answered`: as it should)."""
        peer = self._roster.peers.get(node_id)
        if peer is not None and peer.is_up:
            rest_s = max(limits.PROBED_HEARTBEAT_S, len(self._roster.peers) / limits.HEARTBEATS_PER_S)
            peer.probed(now, rest_s=rest_s, are_answered=are_answered)
            self._roster.deadlines.set(node_id, peer.due)

    # ---- messages

    def handle_message(self, message: AnyNodeMessage, hint: str, now: float) -> None:
        """One message other than the engine's; `hint` is the address it came from, if the driver saw one."""
        match message:
            case Hello():
                self._on_hello(message, hint, now)
            case DirectoryUpdate():
                # Also from strangers: a node whose Hello is refused is told by it, before it knows who refuses.
                for record in message.records:
                    self._learn(record, now, is_direct=False)
            case Heartbeat() | DirectorySummary() | Goodbye():
                peer = self.sender(message, hint, now)
                if peer is not None:
                    self._on_known(peer, message, now)

    def sender(self, message: AnyNodeMessage, hint: str, now: float) -> Peer | None:
        """The peer that sent a message in its present life, a sign of which it is; a stranger is sent a Hello."""
        peer = self._roster.peers.get(message.sender)
        if peer is not None and peer.record.incarnation == message.incarnation:
            self._follow(peer, message.endpoint, hint, now)
            if peer.is_heard:
                peer.heard(now)
            return peer
        is_stranger = peer is None or message.incarnation > peer.record.incarnation
        if is_stranger and message.sender != self._roster.own.node_id:
            self.speaker.hello(endpoints.fill_in(message.endpoint, hint), known=None)
        return None

    def _follow(self, peer: Peer, listens: str, hint: str, now: float) -> None:
        """A peer that listens on any address of its host is where it was seen last."""
        seen = endpoints.fill_in(listens, hint)
        if seen not in (listens, peer.record.endpoint):
            self._learn(msgspec.structs.replace(peer.record, endpoint=seen), now, is_direct=True)

    def _on_hello(self, hello: Hello, hint: str, now: float) -> None:
        record = msgspec.structs.replace(hello.record, endpoint=endpoints.fill_in(hello.record.endpoint, hint))
        own = self._roster.own
        if (record.node_id, record.name, record.incarnation) == (own.node_id, own.name, own.incarnation):
            if hello.to in self.seeds:
                self.seeds[hello.to].node_id = own.node_id
            return
        is_new = record.node_id not in self._roster.peers
        if is_new and self._roster.registry.is_full:
            self._make_room(now)
        held = self._learn(record, now, is_direct=True)
        if held is not None:
            self.speaker.records(record.endpoint, [held])
            return
        peer = self._roster.peers.get(record.node_id)
        if peer is None or hello.number <= peer.number_heard:
            return
        peer.number_heard = hello.number
        if hello.reached in self.seeds:
            self.seeds[hello.reached].node_id = record.node_id
        if not (hello.to and peer.is_up):
            # Who calls an endpoint does not know whom it calls: that is no word that it has lost us.
            self._hear(peer, hello.known, now)
        if hello.to:
            self._greet(peer, now, reached=hello.to)
            if self._roster.is_sparse:
                return
            others = [other for other in self._roster.registry.others() if other is not peer.record]
            self.speaker.records(record.endpoint, others)
            if is_new:
                self._introduce(peer)
        elif hello.known == self._roster.own.stamp or peer.holds(self._roster.own.stamp, now):
            self.speaker.heartbeat(peer)
            peer.greeted(None, now)  # if it says Hello again, ours has not come
        else:
            self._greet(peer, now)

    def _on_known(self, peer: Peer, message: Heartbeat | DirectorySummary | Goodbye, now: float) -> None:
        if isinstance(message, DirectorySummary):
            self.speaker.records(peer.record.endpoint, self._roster.registry.newer_than(message.entries))
            if message.asked and self._roster.registry.lacks(message.entries):
                self.speaker.summary(peer, asked=False)
            return
        if message.number <= peer.number_heard:
            return
        peer.number_heard = message.number
        if isinstance(message, Goodbye):
            self._roster.signal(peer, Signal.GOODBYE, now, "goodbye")
            return
        self._hear(peer, message.known, now)
        if message.known != self._roster.own.stamp:
            self._greet(peer, now)
        elif self._roster.is_sparse:
            if not peer.is_wanted and peer.may_echo(now):
                self.speaker.heartbeat(peer)
                peer.spoke(now)
        elif message.directory != self._roster.registry.digest and now >= self._summary_at:
            self._summary_at = now + limits.DIRECTORY_SYNC_INTERVAL_S
            self.speaker.summary(peer, asked=True)

    def _hear(self, peer: Peer, known: Stamp | None, now: float) -> None:
        """Signal what the peer says it holds of our record."""
        if known is None or known[0] != self._roster.own.incarnation:
            peer.acknowledged = None
            self._roster.signal(peer, Signal.UNKNOWN, now, "the peer lost this node")
            return
        if may_have_told(self._roster.own, known[1]):
            # We are restored from a snapshot that is older than what we had told.
            self._roster.update_own(now, newer_than=known[1])
        peer.acknowledged = known
        is_current = known == self._roster.own.stamp
        self._roster.signal(peer, Signal.ACKNOWLEDGED if is_current else Signal.OUTDATED, now, "linked")

    # ---- records

    def _learn(self, record: NodeRecord, now: float, *, is_direct: bool) -> NodeRecord | None:
        """Take a record.  Returns the record that stands in its way, if the sender should be told of one."""
        if record.node_id == self._roster.own.node_id:
            return self._act_on_own(record, now)
        return self._roster.learn(record, now, is_direct=is_direct)

    def _make_room(self, now: float) -> None:
        """Who speaks for himself comes before those of whom others have told and who have never been heard."""
        rumour = next((peer for peer in self._roster.peers.values() if peer.number_heard < 0), None)
        if rumour is not None:
            self._forget(rumour, now)

    def _act_on_own(self, record: NodeRecord, now: float) -> NodeRecord | None:
        """Somebody holds a record of our node id that we have not written just so.  Returns ours if he is to know."""
        own = self._roster.own
        has_links = any(peer.is_up for peer in self._roster.peers.values())
        match self._identity.judge(own, record, now, has_links=has_links):
            case Finding.NOTHING:
                pass
            case Finding.ID_IS_OURS:
                return own
            case Finding.ID_IS_THEIRS:
                self._move_id(now)
                self._learn(record, now, is_direct=False)
            case Finding.TOLD_BEFORE:
                self._roster.update_own(now, newer_than=record.version)
            case Finding.CLOCK_WAS_AHEAD:
                self._roster.update_own(now, incarnation=record.incarnation + 1)
            case Finding.NAMESAKE:
                text = f"another node {own.name} has been started at {record.endpoint}"
                self._roster.notice(NoticeKind.NAMESAKE, own.name, text)
                return own
            case Finding.NAME_TAKEN:
                text = f"the name {own.name} is in use by the node at {record.endpoint}"
                self._roster.notice(NoticeKind.NAME_TAKEN, own.name, text)
        return None

    def _move_id(self, now: float) -> None:
        """Another node keeps our id: take the next free one, under which nobody knows us yet."""
        old_id, name = self._roster.own.node_id, self._roster.own.name
        taken = {old_id, *self._roster.peers}
        self.stop()
        candidates = (self._derive_id(name, attempt) for attempt in range(1, limits.NODE_ID_ATTEMPTS_MAX))
        new_id = next((candidate for candidate in candidates if candidate not in taken), None)
        assert new_id is not None, "no free node id in NODE_ID_ATTEMPTS_MAX attempts"
        self._roster.update_own(now, node_id=new_id)
        for peer in self._roster.peers.values():
            self._roster.signal(peer, Signal.RESTARTED, now, "this node's id moved")
        for seed in self.seeds.values():
            seed.node_id = None
        self._roster.events.append(NodeIdMoved(old_id, new_id))

    def _forget(self, peer: Peer, now: float) -> None:
        if self._roster.forget(peer, now):
            for seed in self.seeds.values():
                if seed.node_id == peer.record.node_id:
                    seed.node_id = None

    def exclude(self, node_id: NodeId, now: float) -> None:
        """Forget a peer at once, and believe nobody who tells of it."""
        peer = self._roster.peers[node_id]
        self._roster.signal(peer, Signal.GOODBYE, now, "excluded")
        self._forget(peer, now)
        self._roster.exclude(node_id)

    # ---- time

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` is due."""
        return self._roster.deadlines.next_due()

    def handle_timeout(self, now: float) -> None:
        """Speak where it is time to, give up who is silent, forget who stays away."""
        self._roster.registry.expire_graves(now)
        while (key := self._roster.deadlines.pop_expired(now)) is not None:
            if isinstance(key, str):
                self._call_seed(self.seeds[key], now)
            else:
                self._serve(self._roster.peers[key], now)

    def _serve(self, peer: Peer, now: float) -> None:
        match peer.next_action(now):
            case Action.SILENT:
                self._roster.signal(peer, Signal.SILENCE, now, "silent")
            case Action.FORGET:
                self._forget(peer, now)
                return
            case Action.SPEAK:
                if peer.is_up and peer.acknowledged == self._roster.own.stamp:
                    self.speaker.heartbeat(peer)
                else:
                    self._greet(peer, now)
                peer.spoke(now)
            case Action.NOTHING:
                pass
        self._roster.deadlines.set(peer.record.node_id, peer.due)

    def _call_seed(self, seed: Seed, now: float) -> None:
        if seed.node_id == self._roster.own.node_id:
            return
        peer = self._roster.peers.get(seed.node_id) if seed.node_id is not None else None
        if peer is not None and peer.is_heard:
            seed.backoff.restart(now, delay_s=self._roster.pace.silence_s)
        else:
            self.speaker.hello(seed.endpoint, known=None, to=seed.endpoint)
            if seed.node_id is None and now - seed.backoff.since >= limits.ANSWER_EXPECTED_S:
                text = f"no answer from {seed.endpoint}: is a node there, has it this network key, is its port open?"
                self._roster.notice(NoticeKind.NO_ANSWER, seed.endpoint, text)
            seed.backoff.called(now)
        self._roster.deadlines.set(seed.endpoint, seed.backoff.next_at)

    # ---- a restart of the control process

    def snapshot(self) -> SessionsSnapshot:
        """What a restarted control process needs so that no peer notices."""
        peers = [
            PeerSnapshot(
                record=peer.record,
                acknowledged=peer.acknowledged if peer.is_up else None,
                number_heard=peer.number_heard,
            )
            for peer in self._roster.peers.values()
        ]
        number, links = self.speaker.number, dict(self._roster.links.as_mapping())
        return SessionsSnapshot(own=self._roster.own, number=number, links=links, peers=peers)

    def restore(self, snapshot: SessionsSnapshot, now: float) -> None:
        """Go on where the snapshot was taken, before `start`.  Numbers jump ahead of all that may have been said."""
        assert not self._roster.peers, "a snapshot is restored into a new node"
        self._roster.links.restore(snapshot.links)
        self.speaker.number = snapshot.number + limits.RESTORE_STEP
        self._roster.registry.own = snapshot.own
        for each in snapshot.peers:
            if self._roster.registry.merge(each.record, is_live=False, is_direct=True) is not Merge.NEW:
                raise ValueError(f"the snapshot has node {each.record.node_id} twice")
            self._roster.add(each.record, now)
            peer = self._roster.peers[each.record.node_id]
            peer.number_heard = each.number_heard
            if each.acknowledged is not None:
                peer.resume(each.acknowledged, now)
                link = self._roster.link_of(peer)
                self._roster.events.append(PeerChanged(peer.record, link, up=True, why="restored"))
        self._roster.update_own(now, newer_than=snapshot.own.version + limits.RESTORE_STEP)

    # ---- what is said

    def send_engine(self, peer: Peer, message: messages.EngineMessage, mentions: Iterable[NodeId], now: float) -> None:
        """Queue an engine's message; sparse: after what the peer must know to understand it."""
        if self._roster.is_sparse:
            if not peer.holds(self._roster.own.stamp, now):
                self._greet(peer, now)
            self.speaker.tell_of(peer, mentions, now, again_s=self._roster.pace.forget_s * TOLD_SHARE)
            peer.said_more(now)
        self.speaker.send(peer.record.endpoint, message)

    def _greet(self, peer: Peer, now: float, *, reached: str = "") -> None:
        self.speaker.hello(peer.record.endpoint, known=peer.known_to_peer, reached=reached)
        peer.greeted(self._roster.own.stamp, now)

    def _introduce(self, newcomer: Peer) -> None:
        """A node that knew nobody but us: the others need not wait for a difference of digests."""
        for peer in self._roster.peers.values():
            if peer is not newcomer and peer.is_heard:
                self.speaker.records(peer.record.endpoint, [newcomer.record])
