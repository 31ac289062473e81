"""Who has this node's id and this node's name: what a record under our id means that we have not written just so.

    name      incarnation   endpoint      Finding
    smaller   any           any           ID_IS_THEIRS      the smaller name keeps an id: take the next one
    greater   any           any           ID_IS_OURS        who holds the record is told so
    ours      ours          any           TOLD_BEFORE       we told that version before we were restored; or a lie
    ours      the last      any           NOTHING           nobody was born then: we could tell of no newer life
    ours      newer         may be ours   CLOCK_WAS_AHEAD   our former life, started by a clock ahead of today's
    ours      newer         another's     NAMESAKE          a second node of our name: we were first
    ours      older         may be ours   NOTHING           our former life, which our Hello replaces
    ours      older         another's     NAME_TAKEN        if we have no link and no dead node is told of so long

It changes no record, sends nothing and knows no sessions: sessions.py acts on what is found.
"""

from __future__ import annotations

import enum

from pipeline import endpoint as endpoints
from pipeline import limits
from pipeline.messages import NodeRecord


class Finding(enum.Enum):
    """What a record under our id means."""

    NOTHING = enum.auto()
    ID_IS_OURS = enum.auto()
    ID_IS_THEIRS = enum.auto()
    TOLD_BEFORE = enum.auto()
    CLOCK_WAS_AHEAD = enum.auto()
    NAMESAKE = enum.auto()
    NAME_TAKEN = enum.auto()


class IdConflicts:
    """Of one node."""

    def __init__(self) -> None:
        self._older_life: tuple[int, float] | None = None
        """Incarnation of a node that is said to have our name, and since when."""

    def judge(self, own: NodeRecord, record: NodeRecord, now: float, *, has_links: bool) -> Finding:
        """Somebody holds that record, whose id is ours."""
        if record.name != own.name:
            return Finding.ID_IS_THEIRS if record.name < own.name else Finding.ID_IS_OURS
        if record.incarnation == own.incarnation:
            return Finding.TOLD_BEFORE if may_have_told(own, record.version) else Finding.NOTHING
        if record.incarnation == limits.INCARNATION_MAX:
            return Finding.NOTHING
        is_newer = record.incarnation > own.incarnation
        if endpoints.may_be_same(own.endpoint, record.endpoint):
            return Finding.CLOCK_WAS_AHEAD if is_newer else Finding.NOTHING
        if is_newer:
            return Finding.NAMESAKE
        # Who holds a link under the name has it, whatever a member says: an older life would have kept him out.
        is_taken = not has_links and self._outlives_death(record.incarnation, now)
        return Finding.NAME_TAKEN if is_taken else Finding.NOTHING

    def _outlives_death(self, incarnation: int, now: float) -> bool:
        """Whether an older life elsewhere is told of for longer than a dead node is remembered."""
        if self._older_life is None or self._older_life[0] != incarnation:
            self._older_life = incarnation, now
        return now - self._older_life[1] >= limits.NAME_TAKEN_S


def may_have_told(own: NodeRecord, version: int) -> bool:
    """Whether that is a version of our record which we told before we were restored from an older snapshot.

    What is further ahead is a lie: after it our own count would overflow, and nobody would take our record.
    """
    return own.version < version <= own.version + limits.RESTORE_STEP
