"""Conflicts over this node's id, identity and name: what a received record means that has one of them.

    identity            incarnation   endpoint      Finding
    another, our id     any           any           ID_IS_THEIRS if it has the smaller public key, else ID_IS_OURS
    ours                ours          any           SENT_BEFORE_RESTORE   we sent it after the checkpoint we come from
    ours                newer         may be ours   CLOCK_WAS_AHEAD       our former process; its clock was ahead
    ours                newer         another's     CLONE                 a clone, which started after us; a node
                                                                          whose peers keep to the clone gives up
    ours                older         ours          NOTHING               our former process, which our Hello replaces
    ours                older         may be ours   TAKEN                 if we have no link and reports outlast a dead
    another, our name   older         any           TAKEN                 node

Records are signed: one with our identity was made by this node, or by a clone of it.  While this node has a link, its
id and its incarnation are in use by peers, so a report of another node changes neither (ID_IS_THEIRS, CLOCK_WAS_AHEAD):
each change would take all links down for a moment.  A record that its node sends itself is never our former process:
that has ended.

It changes no record, sends nothing and knows no sessions: sessions.py acts on the finding.
"""

from __future__ import annotations

import enum

from pipeline import endpoint as endpoints
from pipeline import limits
from pipeline.messages import NodeRecord


class Finding(enum.Enum):
    """Meaning of a record with our node id, or our name."""

    NOTHING = enum.auto()
    ID_IS_OURS = enum.auto()
    ID_IS_THEIRS = enum.auto()
    SENT_BEFORE_RESTORE = enum.auto()
    CLOCK_WAS_AHEAD = enum.auto()
    CLONE = enum.auto()
    TAKEN = enum.auto()


class IdConflicts:
    """Judge of such records for one node; it remembers since when an older namesake is reported."""

    def __init__(self) -> None:
        self._older_namesake: tuple[object, float] | None = None
        """Identity and incarnation of an older node of our name that others report, and since when."""

    def judge(self, own: NodeRecord, record: NodeRecord, now: float, *, has_links: bool, is_direct: bool) -> Finding:
        """Return the meaning of a record with our node id; `is_direct`: it came from its node itself."""
        if has_links:
            self._older_namesake = None
        if not record.is_signed:
            return Finding.ID_IS_OURS
        if record.public_key != own.public_key:
            if record.public_key > own.public_key:
                return Finding.ID_IS_OURS
            return Finding.ID_IS_THEIRS if is_direct or not has_links else Finding.NOTHING
        if record.incarnation == own.incarnation:
            return Finding.SENT_BEFORE_RESTORE if may_have_sent(own, record.version) else Finding.NOTHING
        if record.incarnation > own.incarnation:
            if is_direct or not endpoints.may_be_same(own.endpoint, record.endpoint):
                return Finding.CLONE
            can_follow = not has_links and record.incarnation < limits.INCARNATION_MAX
            return Finding.CLOCK_WAS_AHEAD if can_follow else Finding.NOTHING
        if record.endpoint == own.endpoint:
            return Finding.NOTHING
        return self.judge_namesake(own, record, now, has_links=has_links)

    def judge_namesake(self, own: NodeRecord, record: NodeRecord, now: float, *, has_links: bool) -> Finding:
        """Return TAKEN if a live node that has our name or identity keeps us out."""
        if has_links:
            # A node with a link has the name, whatever members report: peers of an older node refuse the link.
            self._older_namesake = None
            return Finding.NOTHING
        if record.incarnation > own.incarnation:
            return Finding.NOTHING
        return Finding.TAKEN if self.is_kept_out(record, now, has_links=has_links) else Finding.NOTHING

    def is_kept_out(self, record: NodeRecord, now: float, *, has_links: bool) -> bool:
        """Return whether peers refuse this node because of that record for longer than its node may be dead."""
        return not has_links and self.outlasts_dead_node((record.public_key, record.incarnation), now)

    def outlasts_dead_node(self, namesake: object, now: float) -> bool:
        """Return whether a namesake is reported for longer than peers keep the link of a dead node up."""
        if self._older_namesake is None or self._older_namesake[0] != namesake:
            self._older_namesake = namesake, now
        return now - self._older_namesake[1] >= limits.NAME_TAKEN_S


def may_have_sent(own: NodeRecord, version: int) -> bool:
    """Return whether this version of our record may have been sent before we were restored from an older checkpoint.

    A peer that acknowledges a version further ahead lies.  If we followed it, our own versions would overflow.
    """
    return own.version < version <= own.version + limits.RESTORE_STEP
