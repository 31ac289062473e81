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
engine, no addresses and no sockets: outputs are `events` and what the speaker has queued (speaker.py).

All that is for an overlay in which everybody has a link to everybody: flooded groups and unicast need one, and to
1,024 nodes it costs each node some 100 kB/s.  A *sparse* one of many thousands knows no whole directory:

    sessions    with those that this node's engine wants, or whose engines want this node; others are answered
    records     of those it has had to do with, and of nodes that an engine's message mentions: they are sent along
                with the message to who may not have them, and forgotten when nobody has needed them for a while
    heartbeats  only where the engine has nothing to say

It has no flooded groups but among neighbours and no unicast but to them, so daemons do not use it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

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
from pipeline.overlay import endpoint as endpoints
from pipeline.overlay.deadlines import Deadlines
from pipeline.overlay.events import NodeEvent, NodeIdMoved, Notice, NoticeKind, PeerChanged, RecordChanged, RecordGone
from pipeline.overlay.link import LinkTable
from pipeline.overlay.peer import Action, Pace, Peer, Seed, Signal
from pipeline.overlay.registry import Merge, Registry
from pipeline.overlay.speaker import Speaker


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
    """Peers, seeds and directory of one node."""

    def __init__(
        self,
        own: NodeRecord,
        seeds: Iterable[str],
        *,
        derive_id: Callable[[str, int], NodeId],
        random: Callable[[], float],
        now: float,
        pace: Pace | None = None,
        is_sparse: bool = False,
        needed: Callable[[], Collection[NodeId]] = tuple,
    ) -> None:
        self._pace = pace or Pace()
        self._is_sparse = is_sparse
        self._needed = needed
        """Sparse: nodes whose records are not to be forgotten."""
        self._wanted: set[NodeId] = set()
        self.registry = Registry(own)
        self.speaker = Speaker(self.registry)
        self.peers: dict[NodeId, Peer] = {}
        self.links = LinkTable()
        self.events: deque[NodeEvent] = deque()
        self.seeds = {seed: Seed(seed, random=random, now=now) for seed in seeds if seed != own.endpoint}
        self._derive_id = derive_id
        self._random = random
        self._deadlines: Deadlines[NodeId | str] = Deadlines()
        self._notices: set[tuple[NoticeKind, str]] = set()
        self._excluded: set[NodeId] = set()
        """Nodes that were left behind by a change of the network key; as many as there were peers at the most."""
        self._summary_at = now
        self._older_life: tuple[int, float] | None = None
        """Incarnation of a node that is said to have our name, and since when."""

    @property
    def own(self) -> NodeRecord:
        """This node's record."""
        return self.registry.own

    def start(self, now: float) -> None:
        """Call everybody known."""
        for seed in self.seeds.values():
            self._deadlines.set(seed.endpoint, now)
        for node_id in self.peers:
            self._deadlines.set(node_id, now)

    def stop(self) -> None:
        """Say goodbye."""
        for peer in self.peers.values():
            if peer.is_heard:
                self.speaker.goodbye(peer)

    def want(self, node_id: NodeId, now: float, *, is_wanted: bool) -> None:
        """Sparse: the engine would use a link to a node, or no longer."""
        if not self._is_sparse:
            return
        (self._wanted.add if is_wanted else self._wanted.discard)(node_id)
        peer = self.peers.get(node_id)
        if peer is not None and peer.is_wanted is not is_wanted:
            peer.is_wanted = is_wanted
            if is_wanted and not peer.is_up:
                peer.call_now(now)
            self._deadlines.set(node_id, peer.due)

    def handle_probes(self, node_id: NodeId, now: float, *, are_answered: bool) -> None:
        """The data plane has heard a peer's probes, or echoes of its own (`are_answered`: as it should)."""
        peer = self.peers.get(node_id)
        if peer is not None and peer.is_up:
            rest_s = max(limits.PROBED_HEARTBEAT_S, len(self.peers) / limits.HEARTBEATS_PER_S)
            peer.probed(now, rest_s=rest_s if are_answered else None)
            self._deadlines.set(node_id, peer.due)

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
        peer = self.peers.get(message.sender)
        if peer is not None and peer.record.incarnation == message.incarnation:
            if peer.is_heard:
                peer.heard(now)
            return peer
        if (peer is None or message.incarnation > peer.record.incarnation) and message.sender != self.own.node_id:
            self.speaker.hello(endpoints.fill_in(message.endpoint, hint), known=None)
        return None

    def _on_hello(self, hello: Hello, hint: str, now: float) -> None:
        record = msgspec.structs.replace(hello.record, endpoint=endpoints.fill_in(hello.record.endpoint, hint))
        if (record.node_id, record.name, record.incarnation) == (self.own.node_id, self.own.name, self.own.incarnation):
            if hello.to in self.seeds:
                self.seeds[hello.to].node_id = self.own.node_id
            return
        is_new = record.node_id not in self.peers
        if is_new and self.registry.is_full:
            self._make_room(now)
        held = self._learn(record, now, is_direct=True)
        if held is not None:
            self.speaker.records(record.endpoint, [held])
            return
        peer = self.peers.get(record.node_id)
        if peer is None or hello.number <= peer.number_heard:
            return
        peer.number_heard = hello.number
        if hello.reached in self.seeds:
            self.seeds[hello.reached].node_id = record.node_id
        if not (hello.to and peer.is_up):
            # Who calls an endpoint does not know whom it calls: that is no word that it has lost us.
            self._hear(peer, hello.known, now)
        if hello.to:
            self.speaker.hello(record.endpoint, known=peer.record.stamp, reached=hello.to)
            if self._is_sparse:
                return
            others = [other for other in self.registry.others() if other is not peer.record]
            self.speaker.records(record.endpoint, others)
            if is_new:
                self._introduce(peer)
        elif hello.known == self.own.stamp:
            self.speaker.heartbeat(peer)
        else:
            self.speaker.hello(record.endpoint, known=peer.record.stamp)

    def _on_known(self, peer: Peer, message: Heartbeat | DirectorySummary | Goodbye, now: float) -> None:
        if isinstance(message, DirectorySummary):
            self.speaker.records(peer.record.endpoint, self.registry.newer_than(message.entries))
            if message.asked and self.registry.lacks(message.entries):
                self.speaker.summary(peer, asked=False)
            return
        if message.number <= peer.number_heard:
            return
        peer.number_heard = message.number
        if isinstance(message, Goodbye):
            self._signal(peer, Signal.GOODBYE, now, "goodbye")
            return
        self._hear(peer, message.known, now)
        if message.known != self.own.stamp:
            self.speaker.hello(peer.record.endpoint, known=peer.record.stamp)
        elif self._is_sparse:
            if not peer.is_wanted and peer.may_echo(now):
                self.speaker.heartbeat(peer)
                peer.spoke(now)
        elif message.directory != self.registry.digest and now >= self._summary_at:
            self._summary_at = now + limits.DIRECTORY_SYNC_INTERVAL_S
            self.speaker.summary(peer, asked=True)

    def _hear(self, peer: Peer, known: Stamp | None, now: float) -> None:
        """Signal what the peer says it holds of our record."""
        if known is None or known[0] != self.own.incarnation:
            peer.acknowledged = None
            self._signal(peer, Signal.UNKNOWN, now, "the peer lost this node")
            return
        if self._may_have_told(known[1]):
            # We are restored from a snapshot that is older than what we had told.
            self.update_own(now, newer_than=known[1])
        peer.acknowledged = known
        is_current = known == self.own.stamp
        self._signal(peer, Signal.ACKNOWLEDGED if is_current else Signal.OUTDATED, now, "linked")

    def _signal(self, peer: Peer, signal: Signal, now: float, why: str) -> None:
        if peer.handle(signal, now):
            self.events.append(PeerChanged(peer.record, self._link(peer), peer.is_up, why))
        self._deadlines.set(peer.record.node_id, peer.due)

    # ---- records

    def update_own(self, now: float, *, newer_than: int = 0, **changes: Any) -> None:
        """Make a new version of this node's record and tell everybody."""
        version = max(newer_than, self.own.version) + 1
        self.registry.own = msgspec.structs.replace(self.own, version=version, **changes)
        for peer in self.peers.values():
            peer.call_now(now)
            self._deadlines.set(peer.record.node_id, peer.due)

    def _learn(self, record: NodeRecord, now: float, *, is_direct: bool) -> NodeRecord | None:
        """Take a record.  Returns the record that stands in its way, if the sender should be told of one."""
        if record.node_id == self.own.node_id:
            return self._judge_own(record, now)
        if is_direct:
            self._excluded.discard(record.node_id)
        elif record.node_id in self._excluded:
            return None
        peer = self.peers.get(record.node_id)
        is_live = peer is not None and peer.is_heard
        match self.registry.merge(record, is_live=is_live, is_direct=is_direct):
            case Merge.NEW:
                self._add_peer(record, now)
            case Merge.NEWER:
                assert peer is not None, "a held record has a session"
                self._renew_peer(peer, record, now)
            case Merge.OLDER | Merge.NAMESAKE | Merge.ID_TAKEN as verdict:
                held = self.registry.get(record.node_id)
                if verdict is Merge.NAMESAKE:
                    text = f"a second node {record.name} at {record.endpoint} is refused"
                    self._notice(NoticeKind.NAMESAKE, record.name, text)
                if is_direct and held is not None and held.incarnation != record.incarnation:
                    return held
                if is_direct and verdict is Merge.ID_TAKEN:
                    return held
            case Merge.FULL:
                text = f"{record.name} is left out: {limits.NODES_MAX} nodes are the limit"
                self._notice(NoticeKind.OVERLAY_FULL, record.name, text)
            case Merge.SAME:
                self._refresh(peer, now)
        return None

    def _make_room(self, now: float) -> None:
        """Who speaks for himself comes before those of whom others have told and who have never been heard."""
        rumour = next((peer for peer in self.peers.values() if peer.number_heard < 0), None)
        if rumour is not None:
            self._forget(rumour, now)

    def _refresh(self, peer: Peer | None, now: float) -> None:
        """Sparse: somebody has mentioned a node that is known: it is not to be forgotten soon."""
        if self._is_sparse and peer is not None and not peer.is_heard:
            peer.away_since = now

    def _judge_own(self, record: NodeRecord, now: float) -> NodeRecord | None:
        """Somebody holds a record of our node id that we have not written just so."""
        own = self.own
        if record.name != own.name:
            if record.name < own.name:
                self._move_id(now)
                self._learn(record, now, is_direct=False)
                return None
            return own
        if record.incarnation == own.incarnation:
            if self._may_have_told(record.version):
                self.update_own(now, newer_than=record.version)
        elif record.incarnation == limits.INCARNATION_MAX:
            pass  # nobody was born then: a lie, after which we could tell of no newer life
        elif record.incarnation > own.incarnation and endpoints.may_be_same(own.endpoint, record.endpoint):
            # Our own former life, started by a clock that was ahead of today's.
            self.update_own(now, incarnation=record.incarnation + 1)
        elif record.incarnation > own.incarnation:
            text = f"another node {own.name} has been started at {record.endpoint}"
            self._notice(NoticeKind.NAMESAKE, own.name, text)
            return own
        elif endpoints.may_be_same(own.endpoint, record.endpoint):
            pass  # our own former life: our Hello replaces it
        elif self._is_name_taken(record.incarnation, now):
            text = f"the name {own.name} is in use by the node at {record.endpoint}"
            self._notice(NoticeKind.NAME_TAKEN, own.name, text)
        return None

    def _may_have_told(self, version: int) -> bool:
        """Whether that is a version of our record which we told before we were restored from an older snapshot.

        What is further ahead is a lie: after it our own count would overflow, and nobody would take our record.
        """
        return self.own.version < version <= self.own.version + limits.RESTORE_STEP

    def _is_name_taken(self, incarnation: int, now: float) -> bool:
        """Whether we have been told of an older life elsewhere for longer than a dead one is remembered.

        Who holds a link under the name has it, whatever a member says: an older life would have kept him out.
        """
        if any(peer.is_up for peer in self.peers.values()):
            return False
        if self._older_life is None or self._older_life[0] != incarnation:
            self._older_life = incarnation, now
        return now - self._older_life[1] >= limits.NAME_TAKEN_S

    def _move_id(self, now: float) -> None:
        """Another node keeps our id: take the next free one, under which nobody knows us yet."""
        old_id = self.own.node_id
        taken = {old_id, *self.peers}
        self.stop()
        candidates = (self._derive_id(self.own.name, attempt) for attempt in range(1, limits.NODE_ID_ATTEMPTS_MAX))
        new_id = next((candidate for candidate in candidates if candidate not in taken), None)
        assert new_id is not None, "no free node id in NODE_ID_ATTEMPTS_MAX attempts"
        self.update_own(now, node_id=new_id)
        for peer in self.peers.values():
            self._signal(peer, Signal.RESTARTED, now, "this node's id moved")
        for seed in self.seeds.values():
            seed.node_id = None
        self.events.append(NodeIdMoved(old_id, new_id))

    def _add_peer(self, record: NodeRecord, now: float) -> None:
        is_wanted = not self._is_sparse or record.node_id in self._wanted
        peer = Peer(record, random=self._random, now=now, pace=self._pace, is_wanted=is_wanted)
        self.peers[record.node_id] = peer
        link = self.links.allocate(record.node_id)
        assert link is not None, "as many indices as records"
        self.events.append(RecordChanged(record, link))
        self._deadlines.set(record.node_id, peer.due)

    def _renew_peer(self, peer: Peer, record: NodeRecord, now: float) -> None:
        if (peer.record.incarnation, peer.record.name) != (record.incarnation, record.name):
            peer.number_heard = -1
            self._signal(peer, Signal.RESTARTED, now, "restarted")
        peer.record = record
        if not peer.is_up:
            peer.away_since = now
            peer.call_now(now)
        self.events.append(RecordChanged(record, self._link(peer)))
        self._deadlines.set(record.node_id, peer.due)

    def _forget(self, peer: Peer, now: float) -> None:
        node_id = peer.record.node_id
        if not self._is_sparse:
            self.registry.bury(node_id, now)
        elif node_id in self._needed():
            peer.away_since = now
            self._deadlines.set(node_id, peer.due)
            return
        else:
            self.registry.drop(node_id)
        del self.peers[node_id]
        self._deadlines.clear(node_id)
        link = self.links.release(node_id)
        assert link is not None, "every peer has an index"
        self.events.append(RecordGone(peer.record, link))
        for seed in self.seeds.values():
            if seed.node_id == node_id:
                seed.node_id = None

    def exclude(self, node_id: NodeId, now: float) -> None:
        """Forget a peer at once, and believe nobody who tells of it."""
        peer = self.peers[node_id]
        self._signal(peer, Signal.GOODBYE, now, "excluded")
        self._forget(peer, now)
        self._excluded.add(node_id)

    def _notice(self, kind: NoticeKind, peer: str, text: str) -> None:
        if (kind, peer) not in self._notices and len(self._notices) < limits.NODES_MAX:
            self._notices.add((kind, peer))
            self.events.append(Notice(kind, peer, text))

    # ---- time

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` is due."""
        return self._deadlines.next_due()

    def handle_timeout(self, now: float) -> None:
        """Speak where it is time to, give up who is silent, forget who stays away."""
        self.registry.expire_graves(now)
        while (key := self._deadlines.pop_expired(now)) is not None:
            if isinstance(key, str):
                self._call_seed(self.seeds[key], now)
            else:
                self._serve(self.peers[key], now)

    def _serve(self, peer: Peer, now: float) -> None:
        match peer.next_action(now):
            case Action.SILENT:
                self._signal(peer, Signal.SILENCE, now, "silent")
            case Action.FORGET:
                self._forget(peer, now)
                return
            case Action.SPEAK:
                if peer.is_up and peer.acknowledged == self.own.stamp:
                    self.speaker.heartbeat(peer)
                else:
                    self.speaker.hello(peer.record.endpoint, known=peer.known_to_peer)
                peer.spoke(now)
            case Action.NOTHING:
                pass
        self._deadlines.set(peer.record.node_id, peer.due)

    def _call_seed(self, seed: Seed, now: float) -> None:
        if seed.node_id == self.own.node_id:
            return
        peer = self.peers.get(seed.node_id) if seed.node_id is not None else None
        if peer is not None and peer.is_heard:
            seed.backoff.restart(now, delay_s=self._pace.silence_s)
        else:
            self.speaker.hello(seed.endpoint, known=None, to=seed.endpoint)
            seed.backoff.called(now)
        self._deadlines.set(seed.endpoint, seed.backoff.next_at)

    # ---- a restart of the control process

    def snapshot(self) -> SessionsSnapshot:
        """What a restarted control process needs so that no peer notices."""
        peers = [
            PeerSnapshot(
                record=peer.record,
                acknowledged=peer.acknowledged if peer.is_up else None,
                number_heard=peer.number_heard,
            )
            for peer in self.peers.values()
        ]
        number, links = self.speaker.number, dict(self.links.as_mapping())
        return SessionsSnapshot(own=self.own, number=number, links=links, peers=peers)

    def restore(self, snapshot: SessionsSnapshot, now: float) -> None:
        """Go on where the snapshot was taken, before `start`.  Numbers jump ahead of all that may have been said."""
        assert not self.peers, "a snapshot is restored into a new node"
        self.links.restore(snapshot.links)
        self.speaker.number = snapshot.number + limits.RESTORE_STEP
        self.registry.own = snapshot.own
        for each in snapshot.peers:
            if self.registry.merge(each.record, is_live=False, is_direct=True) is not Merge.NEW:
                raise ValueError(f"the snapshot has node {each.record.node_id} twice")
            self._add_peer(each.record, now)
            peer = self.peers[each.record.node_id]
            peer.number_heard = each.number_heard
            if each.acknowledged is not None:
                peer.resume(each.acknowledged, now)
                self.events.append(PeerChanged(peer.record, self._link(peer), up=True, why="restored"))
        self.update_own(now, newer_than=snapshot.own.version + limits.RESTORE_STEP)

    # ---- what is said

    def send_engine(self, peer: Peer, message: messages.EngineMessage, mentions: Iterable[NodeId], now: float) -> None:
        """Queue an engine's message; sparse: after what the peer must know to understand it."""
        if self._is_sparse:
            if peer.acknowledged != self.own.stamp:
                self.speaker.hello(peer.record.endpoint, known=peer.known_to_peer)
            self.speaker.tell_of(peer, mentions, now, again_s=self._pace.forget_s / 2)
            peer.said_more(now)
        self.speaker.send(peer.record.endpoint, message)

    def _introduce(self, newcomer: Peer) -> None:
        """A node that knew nobody but us: the others need not wait for a difference of digests."""
        for peer in self.peers.values():
            if peer is not newcomer and peer.is_heard:
                self.speaker.records(peer.record.endpoint, [newcomer.record])

    def _link(self, peer: Peer) -> int:
        link = self.links.get(peer.record.node_id)
        assert link is not None, "every peer has an index"
        return link
