"""Peer table: every peer of a node with its record, its session, its link index and its next deadline.

    learn(record) ──NEW────▶ new session, new link index           RecordChanged
                  ──NEWER──▶ the session continues or restarts     RecordChanged
    signal        ─────────▶ state table of the session            PeerChanged, if its link went up or down;
                                                                   ProbingChanged, if probes begin or end
    forget        ─────────▶ record removed, link index released   RecordGone

The table sends nothing and chooses no time: sessions.py sends, and serves each peer that is due.  directory.py decides
whether a record is taken, peer.py what a signal does to a session, and directory_view.py what is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from pipeline import limits
from pipeline.address import NodeId
from pipeline.messages import NodeRecord, RefusalReason
from pipeline.overlay import records, refusals
from pipeline.overlay.directory import Directory, Merge
from pipeline.overlay.directory_view import DirectoryView
from pipeline.overlay.envelopes import Envelopes
from pipeline.overlay.events import (
    NodeEvent,
    Notice,
    NoticeKind,
    PeerChanged,
    ProbingChanged,
    RecordChanged,
    RecordGone,
)
from pipeline.overlay.link import LinkTable
from pipeline.overlay.members import Members, Objection
from pipeline.overlay.peer import Peer, Signal
from pipeline.timers import Deadlines


class Refused(NamedTuple):
    """Why a record was not taken, and the record in its way."""

    reason: RefusalReason
    held: NodeRecord | None
    detail: str = ""


class PeerTable:
    """Table of one node's peers; changes are queued as events."""

    def __init__(
        self,
        directory: Directory,
        view: DirectoryView,
        *,
        members: Members,
        envelopes: Envelopes,
        random: Callable[[], float],
        share: Callable[[NodeRecord], NodeRecord] = lambda record: record,
    ) -> None:
        self.directory = directory
        self._members = members
        self._envelopes = envelopes
        self.view = view
        self.peers: dict[NodeId, Peer] = {}
        self.links = LinkTable()
        self.events: deque[NodeEvent] = deque()
        self.deadlines: Deadlines[NodeId | str] = Deadlines()
        """Deadlines of peers by node id, and of seeds, which sessions.py sets, by endpoint."""
        self._random = random
        self._share = share
        self._notices: set[tuple[NoticeKind, str]] = set()
        """Notices that were given; each is given once."""
        self._excluded: set[NodeId] = set()
        """Nodes excluded by a change of the network key; at most as many as there were peers."""

    @property
    def own(self) -> NodeRecord:
        """This node's record."""
        return self.directory.own

    def link_of(self, peer: Peer) -> int:
        """Return the link index of a peer."""
        link = self.links.get(peer.record.node_id)
        assert link is not None, "every peer has an index"
        return link

    # ---- records

    def update_own(self, now: float, *, newer_than: int = 0, **changes: Any) -> None:
        """Make a new version of this node's record; it is due to be sent to every peer."""
        version = max(newer_than, self.own.version) + 1
        own = msgspec.structs.replace(self.own, version=version, **changes)
        self.directory.own = records.sign(own, self._envelopes.signer)
        for peer in self.peers.values():
            peer.call_now(now)
            self.deadlines.set(peer.record.node_id, peer.due)

    def learn(self, record: NodeRecord, now: float, *, is_direct: bool, reporter: str = "") -> Refused | None:
        """Take another node's record, which was verified and sent by host `reporter`.

        `is_direct`: it came from that node itself.

        Returns why it was refused, or None if it is held now.
        """
        if is_direct:
            self._excluded.discard(record.node_id)
        elif record.node_id in self._excluded or self._is_known(record, now):
            return None
        refused = self._objection(record)
        if refused is not None:
            return refused
        peer = self.peers.get(record.node_id)
        if peer is None and self.directory.is_full:
            for idle in self.view.evictable(self.peers):
                self.forget(idle, now)
        is_alive = peer is not None and peer.is_alive
        if peer is not None and not is_direct:
            record = _at_held_endpoint(peer.record, record)
        record = self._share(record)
        verdict = self.directory.merge(record, is_alive=is_alive, is_direct=is_direct)
        if verdict is Merge.NEW:
            self.add(record, now, reporter=reporter)
            return None
        if verdict in (Merge.NEWER, Merge.SAME):
            assert peer is not None, "a held record has a session"
            if verdict is Merge.NEWER:
                self._renew(peer, record, now, reporter)
            else:
                self.view.refresh(peer, now)
            return None
        return self._refuse(record, verdict, is_alive=is_alive)

    def is_excluded(self, node_id: NodeId) -> bool:
        """Return whether the record of a node is accepted from the node itself only."""
        return node_id in self._excluded

    def _refuse(self, record: NodeRecord, verdict: Merge, *, is_alive: bool) -> Refused | None:
        """Return why the directory has not taken a record."""
        held = self.directory.get(record.node_id)
        is_other_process = held is not None and held.incarnation != record.incarnation
        if verdict is Merge.FULL:
            text = f"node {record.name} is refused: the overlay has {limits.NODES_MAX} nodes, which is the limit"
            self.notice(NoticeKind.OVERLAY_FULL, record.name, text)
            return None
        if verdict is Merge.ID_TAKEN:
            return Refused(RefusalReason.ID, held)
        if verdict is Merge.CLONE:
            text = f"a clone of node {record.name} at {record.endpoint} is refused: give it an identity of its own"
            self.notice(NoticeKind.CLONE, record.name, text)
        elif not (is_alive and is_other_process):
            return Refused(RefusalReason.OLDER, held)
        return Refused(RefusalReason.CLONE, held)

    def _is_known(self, record: NodeRecord, now: float) -> bool:
        """Return whether this record is held: a fast path, as it holds for most records of other senders."""
        peer = self.peers.get(record.node_id)
        if peer is None or record.body != peer.record.body or not peer.record.has_keys:
            return False
        self.view.refresh(peer, now)
        return True

    def _objection(self, record: NodeRecord) -> Refused | None:
        """Return why the rules of the network, or a live node of that name, keep a record out."""
        if record.protocols[0] > self.own.protocols[1] or record.protocols[1] < self.own.protocols[0]:
            text = refusals.gap_text(record, self.own)
            self.notice(NoticeKind.PROTOCOL, record.endpoint, text)
            return Refused(RefusalReason.PROTOCOL, None, text)
        objection, held = self._members.objection(record), self._namesake(record)
        if objection is not None and (held is None or objection.reason is not RefusalReason.PINNED):
            self._notice_objection(record, objection)
            return Refused(objection.reason, None, objection.detail)
        if held is None:
            return None
        text = f"a second node {record.name} at {record.endpoint} is refused: give it another --name"
        self.notice(NoticeKind.NAMESAKE, record.name, text)
        return Refused(RefusalReason.NAME, held)

    def _notice_objection(self, record: NodeRecord, objection: Objection) -> None:
        if objection.reason is RefusalReason.PINNED:
            text = (
                f"{record.name} at {record.endpoint} has another identity than before and is refused: if it should, "
                f"run pipeline identity forget {record.name}"
            )
            self.notice(NoticeKind.NAME_PINNED, record.name, text)
        else:
            text = f"{record.name} at {record.endpoint} is refused: {objection.detail}"
            self.notice(NoticeKind.CERTIFICATE, record.name, text)

    def _namesake(self, record: NodeRecord) -> NodeRecord | None:
        """Return the record of a live node that has the name of another one."""
        if record.name == self.own.name:
            return self.own
        for node_id in self.directory.named(record.name):
            peer = self.peers[node_id]
            # A node of protocol 1 that is upgraded has another id from then on.
            if node_id != record.node_id and peer.is_alive and (peer.record.is_signed or not record.is_signed):
                return peer.record
        return None

    def add(self, record: NodeRecord, now: float, *, reporter: str = "") -> None:
        """Create a session with a node whose record the directory has just taken."""
        node_id = record.node_id
        is_kept = self.view.keeps_session(node_id)
        peer = Peer(record, random=self._random, now=now, pace=self.view.pace, is_kept=is_kept)
        self.peers[node_id] = peer
        link = self.links.allocate(node_id)
        assert link is not None, "as many indices as records"
        self._announce(peer, reporter)
        self.deadlines.set(node_id, peer.due)

    def _renew(self, peer: Peer, record: NodeRecord, now: float, reporter: str) -> None:
        """Give a session the newer record of its peer, which may be another incarnation or another node."""
        if (peer.record.incarnation, peer.record.public_key) != (record.incarnation, record.public_key):
            peer.begin_incarnation()
            self.signal(peer, Signal.RESTARTED, now, "restarted")
        peer.record = record
        if not peer.is_probed:
            peer.postpone_forgetting(now)
            peer.call_now(now)
        self._announce(peer, reporter)
        self.deadlines.set(record.node_id, peer.due)

    def _announce(self, peer: Peer, reporter: str) -> None:
        """Report the record of a peer, as soon as its datagrams can be opened."""
        if peer.record.has_keys:
            peer.is_announced = True
            record = peer.record
            probe_keys = self._envelopes.probe_keys(self.own, record) if record.is_signed else None
            self.events.append(RecordChanged(record, self.link_of(peer), reporter, probe_keys))

    def announce_all(self) -> None:
        """Report the records of all peers again: probe keys depend on this node's id and incarnation too."""
        for peer in self.peers.values():
            self._announce(peer, "")

    # ---- sessions

    def signal(self, peer: Peer, signal: Signal, now: float, why: str) -> None:
        """Pass a signal to the session of a peer."""
        was_up, was_probed, link = peer.is_up, peer.is_probed, self.link_of(peer)
        peer.handle(signal, now)
        if peer.is_probed is not was_probed:
            self.events.append(ProbingChanged(peer.record, link, peer.is_probed))
        if peer.is_up is not was_up:
            if peer.is_up:
                self._members.note_link(peer.record)
            self.events.append(PeerChanged(peer.record, link, peer.is_up, why))
            self._abandon_former(peer.record, now)
        self.deadlines.set(peer.record.node_id, peer.due)

    def _abandon_former(self, record: NodeRecord, now: float) -> None:
        """Let the id be forgotten that a node had before its upgrade, or before it was rolled back."""
        namesakes = [self.peers[node_id] for node_id in self.directory.named(record.name)]
        at_endpoint = [peer for peer in namesakes if peer.record.endpoint == record.endpoint]
        if not any(peer.is_up for peer in at_endpoint):
            return
        for peer in at_endpoint:
            if not peer.is_alive:
                peer.abandon(now)
                self.deadlines.set(peer.record.node_id, peer.due)

    def set_link_wanted(self, node_id: NodeId, now: float, *, is_wanted: bool) -> None:
        """Note that the engine needs a link to a node, or no longer needs it."""
        self.view.set_link_wanted(node_id, is_wanted=is_wanted)
        peer = self.peers.get(node_id)
        if peer is not None and peer.is_kept is not self.view.keeps_session(node_id):
            peer.keep(now, is_kept=not peer.is_kept)
            self.deadlines.set(node_id, peer.due)

    # ---- removal

    def forget(self, peer: Peer, now: float) -> bool:
        """Remove a peer that has been away for too long.  Returns False if its record is still needed."""
        node_id = peer.record.node_id
        if self.view.needs_record(node_id):
            peer.postpone_forgetting(now)
            self.deadlines.set(node_id, peer.due)
            return False
        self.view.remove_record(node_id, now)
        del self.peers[node_id]
        self._envelopes.forget(node_id)
        self.deadlines.clear(node_id)
        link = self.links.release(node_id)
        assert link is not None, "every peer has an index"
        if peer.is_announced:
            self.events.append(RecordGone(peer.record, link))
        return True

    def exclude(self, node_id: NodeId) -> None:
        """From now on accept the record of this node only from the node itself."""
        self._excluded.add(node_id)

    # ---- notices

    def notice(self, kind: NoticeKind, peer: str, text: str) -> None:
        """Queue a line for the operator, once for each kind and peer."""
        if (kind, peer) not in self._notices and len(self._notices) < limits.NODES_MAX:
            self._notices.add((kind, peer))
            self.events.append(Notice(kind, peer, text))


def _at_held_endpoint(held: NodeRecord, reported: NodeRecord) -> NodeRecord:
    """Return a reported record with the endpoint at which its node is known in this start of it.

    A node changes its endpoint with a restart only.  Others could give any to a node that names no address.
    """
    if (held.public_key, held.incarnation) != (reported.public_key, reported.incarnation):
        return reported
    return msgspec.structs.replace(reported, endpoint=held.endpoint)
