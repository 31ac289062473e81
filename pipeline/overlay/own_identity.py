"""This node's own identity, id and name in the overlay: what it does about records and refusals that dispute them.

    record with our id or identity  ─▶ IdConflicts ─▶ another id, version or incarnation of ours; or why it is refused
    refusal of our record           ─▶ IdConflicts ─▶ the same; or a notice, after which the driver stops this node

id_conflicts.py decides what a record means.  This module changes this node's record, and begins new sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline import endpoint as endpoints
from pipeline import limits
from pipeline.address import NodeId
from pipeline.messages import NodeRecord, Refusal, RefusalReason
from pipeline.overlay import refusals
from pipeline.overlay.events import NodeIdMoved, NoticeKind
from pipeline.overlay.id_conflicts import Finding, IdConflicts, may_have_sent
from pipeline.overlay.peer import Signal
from pipeline.overlay.peer_table import PeerTable, Refused
from pipeline.overlay.seeds import Seeds
from pipeline.overlay.transmitter import Transmitter


class OwnIdentity:
    """Conflicts over one node's identity, and the changes of its record that follow."""

    def __init__(
        self,
        peer_table: PeerTable,
        transmitter: Transmitter,
        seeds: Seeds,
        *,
        derive_id: Callable[[bytes, int], NodeId],
    ) -> None:
        self._peer_table = peer_table
        self._transmitter = transmitter
        self._seeds = seeds
        self._derive_id = derive_id
        self._id_conflicts = IdConflicts()

    @property
    def _has_links(self) -> bool:
        return any(peer.is_up for peer in self._peer_table.peers.values())

    def handle_refusal(self, refusal: Refusal, hint: str, now: float) -> None:
        """Act on a peer's refusal of this node's record.  It changes nothing while this node has links."""
        own, refuser = self._peer_table.own, endpoints.fill_in(refusal.endpoint, hint)
        has_links = self._has_links
        self._seeds.refused(refuser)
        for record in refusal.records:
            if refusal.reason == RefusalReason.OLDER and record.public_key == own.public_key and not has_links:
                # The node of that record is not alive: it is our former process, and its clock was ahead of ours.
                self._follow_incarnation(record, now)
            elif record.node_id == own.node_id or record.public_key == own.public_key:
                self._handle_reported(record, hint, now)
                is_clone = refusal.reason == RefusalReason.CLONE and record.public_key == own.public_key
                if is_clone and self._id_conflicts.is_kept_out(record, now, has_links=has_links):
                    self._notice_taken(record)
            elif record.name == own.name:
                finding = self._id_conflicts.judge_namesake(own, record, now, has_links=has_links)
                if finding is Finding.TAKEN:
                    self._notice_taken(record)
        notice = refusals.notice_of(refusal, own, refuser)
        if notice is not None:
            self._peer_table.notice(*notice)
        is_pinned = refusal.reason == RefusalReason.PINNED
        if is_pinned and not has_links and self._id_conflicts.outlasts_dead_node(own.name, now):
            self._peer_table.notice(NoticeKind.NAME_TAKEN, own.name, refusals.pinned_text(own, refuser))

    def handle_record(self, record: NodeRecord, now: float, *, is_direct: bool, hint: str = "") -> Refused | None:
        """Act on a record with this node's id or identity.  Returns why it is refused, if its node has to learn it."""
        own = self._peer_table.own
        has_links = self._has_links
        match self._id_conflicts.judge(own, record, now, has_links=has_links, is_direct=is_direct):
            case Finding.NOTHING:
                pass
            case Finding.ID_IS_OURS:
                return Refused(RefusalReason.ID, own)
            case Finding.ID_IS_THEIRS:
                if self._move_id(now):
                    return self._peer_table.learn(record, now, is_direct=is_direct, reporter=hint)
            case Finding.SENT_BEFORE_RESTORE:
                self._peer_table.update_own(now, newer_than=record.version)
            case Finding.CLOCK_WAS_AHEAD:
                self._follow_incarnation(record, now)
            case Finding.CLONE:
                text = f"a clone of this node has been started at {record.endpoint}: give it an identity of its own"
                self._peer_table.notice(NoticeKind.CLONE, own.name, text)
                return Refused(RefusalReason.CLONE, own)
            case Finding.TAKEN:
                self._notice_taken(record)
        return None

    def _follow_incarnation(self, record: NodeRecord, now: float) -> None:
        """Take a version above the last one that we sent, or an incarnation above that of our former process."""
        own = self._peer_table.own
        if own.incarnation == record.incarnation and may_have_sent(own, record.version):
            self._peer_table.update_own(now, newer_than=record.version)
        elif own.stamp < record.stamp and record.incarnation < limits.INCARNATION_MAX:
            self.begin_incarnation(now, incarnation=record.incarnation + 1)

    def _notice_taken(self, record: NodeRecord) -> None:
        own = self._peer_table.own
        self._peer_table.notice(NoticeKind.NAME_TAKEN, own.name, refusals.taken_text(own, record))

    def _move_id(self, now: float) -> bool:
        """Take the next free node id, as another node keeps ours.  No peer knows this node by the new id yet.

        Returns False if none is free, which only forged records can cause.
        """
        own = self._peer_table.own
        taken = {own.node_id, *self._peer_table.peers}
        attempts = range(own.id_attempt + 1, limits.NODE_ID_ATTEMPTS_MAX)
        free = ((each, self._derive_id(own.public_key, each)) for each in attempts)
        attempt, new_id = next((each for each in free if each[1] not in taken), (0, own.node_id))
        if new_id == own.node_id:
            return False
        self._transmitter.send_goodbyes(self._peer_table.peers.values())
        self.begin_incarnation(now, node_id=new_id, id_attempt=attempt)
        self._seeds.forget_all()
        self._peer_table.events.append(NodeIdMoved(own.node_id, new_id))
        return True

    def begin_incarnation(self, now: float, **changes: Any) -> None:
        """Make a record of another start, and new sessions with all peers."""
        self._peer_table.update_own(now, **changes)
        self._peer_table.announce_all()
        for peer in self._peer_table.peers.values():
            self._peer_table.signal(peer, Signal.RESTARTED, now, "this node has another incarnation")

    def _handle_reported(self, record: NodeRecord, hint: str, now: float) -> None:
        """Take a record of ours that came with a refusal, if its endpoint can be a peer's."""
        if self._peer_table.directory.admits_endpoint(record.endpoint, hint):
            self.handle_record(record, now, is_direct=False, hint=hint)
