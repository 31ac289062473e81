"""The roster: all peers that a node knows of, each with its record, its session, its link index and when it is due.

    learn(record) ──NEW────▶ a session, a link index           RecordChanged
                  ──NEWER──▶ the session goes on or restarts   RecordChanged
    signal        ─────────▶ the session's state table         PeerChanged, if its link went up or down
    forget        ─────────▶ grave, link index given back      RecordGone

It says nothing to anybody and decides no time: sessions.py speaks, and asks each peer that is due.  What becomes of a
record is the registry's rule (registry.py), what becomes of a signal the peer's (peer.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from pipeline import limits
from pipeline.address import NodeId
from pipeline.messages import NodeRecord
from pipeline.overlay.directory import Directory, Merge
from pipeline.overlay.events import NodeEvent, Notice, NoticeKind, PeerChanged, RecordChanged, RecordGone
from pipeline.overlay.link import LinkTable
from pipeline.overlay.peer import Pace, Peer, Signal
from pipeline.timers import Deadlines


class PeerTable:
    """Of one node."""

    def __init__(
        self,
        own: NodeRecord,
        *,
        random: Callable[[], float],
        pace: Pace,
        is_sparse: bool = False,
        share: Callable[[NodeRecord], NodeRecord] = lambda record: record,
        needed: Callable[[], Collection[NodeId]] = tuple,
    ) -> None:
        self.registry = Directory(own)
        self.peers: dict[NodeId, Peer] = {}
        self.links = LinkTable()
        self.events: deque[NodeEvent] = deque()
        self.deadlines: Deadlines[NodeId | str] = Deadlines()
        """Of each peer by its id; of seeds, which sessions.py sets, by endpoint."""
        self.pace = pace
        self.is_sparse = is_sparse
        self._random = random
        self._share = share
        self._needed = needed
        """Sparse: nodes whose records are not to be forgotten."""
        self._wanted: set[NodeId] = set()
        self._notices: set[tuple[NoticeKind, str]] = set()
        self._excluded: set[NodeId] = set()
        """Nodes that were left behind by a change of the network key; as many as there were peers at the most."""

    @property
    def own(self) -> NodeRecord:
        """This node's record."""
        return self.registry.own

    def link_of(self, peer: Peer) -> int:
        """The index of a peer's link."""
        link = self.links.get(peer.record.node_id)
        assert link is not None, "every peer has an index"
        return link

    # ---- records

    def update_own(self, now: float, *, newer_than: int = 0, **changes: Any) -> None:
        """Make a new version of this node's record; everybody is due to be told."""
        version = max(newer_than, self.own.version) + 1
        self.registry.own = msgspec.structs.replace(self.own, version=version, **changes)
        for peer in self.peers.values():
            peer.call_now(now)
            self.deadlines.set(peer.record.node_id, peer.due)

    def learn(self, record: NodeRecord, now: float, *, is_direct: bool) -> NodeRecord | None:
        """Take another node's record.  Returns the one that stands in its way, if the sender should be told of it."""
        if is_direct:
            self._excluded.discard(record.node_id)
        elif record.node_id in self._excluded or self._is_known(record, now):
            return None
        peer = self.peers.get(record.node_id)
        if peer is None and self.is_sparse and self.registry.is_full:
            self._thin_out(now)
        is_live = peer is not None and peer.is_heard
        record = self._share(record)
        match self.registry.merge(record, is_live=is_live, is_direct=is_direct):
            case Merge.NEW:
                self.add(record, now)
            case Merge.NEWER:
                assert peer is not None, "a held record has a session"
                self._renew(peer, record, now)
            case Merge.OLDER | Merge.NAMESAKE | Merge.ID_TAKEN as verdict:
                held = self.registry.get(record.node_id)
                if verdict is Merge.NAMESAKE:
                    text = f"a second node {record.name} at {record.endpoint} is refused"
                    self.notice(NoticeKind.NAMESAKE, record.name, text)
                if is_direct and held is not None and held.incarnation != record.incarnation:
                    return held
                if is_direct and verdict is Merge.ID_TAKEN:
                    return held
            case Merge.FULL:
                text = f"{record.name} is left out: {limits.NODES_MAX} nodes are the limit"
                self.notice(NoticeKind.OVERLAY_FULL, record.name, text)
            case Merge.SAME:
                assert peer is not None, "a held record has a session"
                self._refresh(peer, now)
        return None

    def _is_known(self, record: NodeRecord, now: float) -> bool:
        """Most of what is told is known already."""
        peer = self.peers.get(record.node_id)
        if peer is None or (record.stamp, record.name) != (peer.record.stamp, peer.record.name):
            return False
        self._refresh(peer, now)
        return True

    def add(self, record: NodeRecord, now: float) -> None:
        """A session with a node whose record the registry has just taken."""
        is_wanted = not self.is_sparse or record.node_id in self._wanted
        peer = Peer(record, random=self._random, now=now, pace=self.pace, is_wanted=is_wanted)
        self.peers[record.node_id] = peer
        link = self.links.allocate(record.node_id)
        assert link is not None, "as many indices as records"
        self.events.append(RecordChanged(record, link))
        self.deadlines.set(record.node_id, peer.due)

    def _renew(self, peer: Peer, record: NodeRecord, now: float) -> None:
        if (peer.record.incarnation, peer.record.name) != (record.incarnation, record.name):
            peer.number_heard = -1
            peer.told.clear()
            self.signal(peer, Signal.RESTARTED, now, "restarted")
        peer.record = record
        if not peer.is_up:
            peer.away_since = now
            peer.call_now(now)
        self.events.append(RecordChanged(record, self.link_of(peer)))
        self.deadlines.set(record.node_id, peer.due)

    def _refresh(self, peer: Peer, now: float) -> None:
        """Sparse: somebody has mentioned a node that is known: it is not to be forgotten soon."""
        if self.is_sparse and not peer.is_heard:
            peer.away_since = now

    # ---- sessions

    def signal(self, peer: Peer, signal: Signal, now: float, why: str) -> None:
        """Feed a peer's session."""
        if peer.handle(signal, now):
            self.events.append(PeerChanged(peer.record, self.link_of(peer), peer.is_up, why))
        self.deadlines.set(peer.record.node_id, peer.due)

    def want(self, node_id: NodeId, now: float, *, is_wanted: bool) -> None:
        """Sparse: the engine would use a link to a node, or no longer."""
        if not self.is_sparse:
            return
        (self._wanted.add if is_wanted else self._wanted.discard)(node_id)
        peer = self.peers.get(node_id)
        if peer is not None and peer.is_wanted is not is_wanted:
            peer.want(now, is_wanted=is_wanted)
            self.deadlines.set(node_id, peer.due)

    # ---- who goes

    def forget(self, peer: Peer, now: float) -> bool:
        """A peer has stayed away for too long.  False if it is kept, as the engine needs its record."""
        node_id = peer.record.node_id
        if not self.is_sparse:
            self.registry.bury(node_id, now)
        elif node_id in self._wanted or node_id in self._needed():
            peer.away_since = now
            self.deadlines.set(node_id, peer.due)
            return False
        else:
            self.registry.drop(node_id)
        del self.peers[node_id]
        self.deadlines.clear(node_id)
        link = self.links.release(node_id)
        assert link is not None, "every peer has an index"
        self.events.append(RecordGone(peer.record, link))
        return True

    def _thin_out(self, now: float) -> None:
        """Sparse: an eighth goes, of those whom the engine has no use for: whoever has been silent for longest."""
        needed = {*self._wanted, *self._needed()}
        idle = [peer for node_id, peer in self.peers.items() if node_id not in needed]
        for peer in sorted(idle, key=lambda peer: peer.away_since)[: limits.NODES_MAX // 8]:
            self.forget(peer, now)

    def exclude(self, node_id: NodeId) -> None:
        """Believe nobody who tells of a node but itself."""
        self._excluded.add(node_id)

    def notice(self, kind: NoticeKind, peer: str, text: str) -> None:
        """Something for the operator, once a kind and peer."""
        if (kind, peer) not in self._notices and len(self._notices) < limits.NODES_MAX:
            self._notices.add((kind, peer))
            self.events.append(Notice(kind, peer, text))
