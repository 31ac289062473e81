"""Conflicts over this node's id and name: what a received record means that has our node id but is not our record.

    name      incarnation   endpoint      Finding
    smaller   any           any           ID_IS_THEIRS          the smaller name keeps an id: take the next one
    greater   any           any           ID_IS_OURS            send our record to the sender
    ours      ours          any           SENT_BEFORE_RESTORE   we sent it after the checkpoint we were restored from
    ours      newer         may be ours   CLOCK_WAS_AHEAD       our former incarnation; the clock was ahead of today's
    ours      newer         another's     NAMESAKE              a second node of our name, which started after us
    ours      older         ours          NOTHING               our former incarnation, which our Hello replaces
    ours      older         may be ours   NAME_TAKEN            if we have no link and reports outlast a dead node

Any member can forge a report.  While this node has a link, its id and its incarnation are in use by peers, so a report
of another node changes neither (ID_IS_THEIRS, CLOCK_WAS_AHEAD): each change would take all links down for a moment.
Without a link an incarnation is followed for INCARNATION_STEP_MAX.  A record that its node sends itself is never our
former incarnation: that process has ended.

It changes no record, sends nothing and knows no sessions: sessions.py acts on the finding.
"""

from __future__ import annotations

import enum

from pipeline import endpoint as endpoints
from pipeline import limits
from pipeline.messages import NodeRecord


class Finding(enum.Enum):
    """Meaning of a record with our node id."""

    NOTHING = enum.auto()
    ID_IS_OURS = enum.auto()
    ID_IS_THEIRS = enum.auto()
    SENT_BEFORE_RESTORE = enum.auto()
    CLOCK_WAS_AHEAD = enum.auto()
    NAMESAKE = enum.auto()
    NAME_TAKEN = enum.auto()


class IdConflicts:
    """Judge of such records for one node; it remembers since when an older namesake is reported."""

    def __init__(self) -> None:
        self._older_namesake: tuple[int, float] | None = None
        """Incarnation of an older node of our name that others report, and since when."""

    def judge(self, own: NodeRecord, record: NodeRecord, now: float, *, has_links: bool, is_direct: bool) -> Finding:
        """Return the meaning of a record whose node id is ours; `is_direct`: it came from its node itself."""
        if has_links:
            # A node with a link has the name, whatever members report: peers of an older node refuse the link.
            self._older_namesake = None
        if record.name > own.name:
            return Finding.ID_IS_OURS
        if record.name < own.name:
            return Finding.ID_IS_THEIRS if is_direct or not has_links else Finding.NOTHING
        if record.incarnation == own.incarnation:
            return Finding.SENT_BEFORE_RESTORE if may_have_sent(own, record.version) else Finding.NOTHING
        if record.incarnation > own.incarnation:
            if is_direct or not endpoints.may_be_same(own.endpoint, record.endpoint):
                return Finding.NAMESAKE
            can_follow = not has_links and _is_near(own, record.incarnation)
            return Finding.CLOCK_WAS_AHEAD if can_follow else Finding.NOTHING
        if has_links or record.endpoint == own.endpoint:
            return Finding.NOTHING
        is_taken = self._outlasts_dead_node(record.incarnation, now)
        return Finding.NAME_TAKEN if is_taken else Finding.NOTHING

    def _outlasts_dead_node(self, incarnation: int, now: float) -> bool:
        """Return whether an older incarnation is reported for longer than peers keep the link of a dead node up."""
        if self._older_namesake is None or self._older_namesake[0] != incarnation:
            self._older_namesake = incarnation, now
        return now - self._older_namesake[1] >= limits.NAME_TAKEN_S


def _is_near(own: NodeRecord, incarnation: int) -> bool:
    """Return whether our clock may have given this incarnation, and a next one exists."""
    return incarnation - own.incarnation <= limits.INCARNATION_STEP_MAX and incarnation < limits.INCARNATION_MAX


def may_have_sent(own: NodeRecord, version: int) -> bool:
    """Return whether this version of our record may have been sent before we were restored from an older checkpoint.

    A version further ahead is forged.  If we followed it, our own versions would overflow, and peers would refuse them.
    """
    return own.version < version <= own.version + limits.RESTORE_STEP
