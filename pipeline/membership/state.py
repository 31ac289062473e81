"""The state of one group on the link: RFC 9776 §6.2, RFC 9777 §7.2.

    INCLUDE (A)      `requested` is A with its source timers; `excluded` is empty; no group timer
    EXCLUDE (X,Y)    `requested` is X with its source timers; `excluded` is Y (timer 0); the group timer runs

Knows its own timers as absolute times, and the table's rules; does not know other groups, packets or limits, nor who
is querier.  A record lives from the first report until INCLUDE of nothing is reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.address import ANY_SOURCE, Address, FilterMode, SourceFilter
from pipeline.membership.rules import Rule, Sources

if TYPE_CHECKING:
    from pipeline.membership.querier import Querier
    from pipeline.membership.queries import Pending

NEVER = float("inf")
_NOTHING: frozenset[Address] = frozenset()


class GroupState:
    """One group; times are absolute, in seconds."""

    __slots__ = (
        "asked_until",
        "excluded",
        "group",
        "group_deadline",
        "mode",
        "pending",
        "published",
        "querier",
        "reporters",
        "requested",
        "scheduled",
        "v1_until",
        "v2_until",
    )

    def __init__(self, group: Address, querier: Querier) -> None:
        self.group = group
        self.querier = querier  # of this group's family: times and versions
        self.mode = FilterMode.INCLUDE
        self.group_deadline = 0.0
        self.asked_until = 0.0  # what a group-specific query lowered the group timer to
        self.requested: dict[Address, float] = {}
        self.excluded: frozenset[Address] = _NOTHING
        self.v1_until = 0.0  # older version host present timers (§7.3.2, §8.3.2)
        self.v2_until = 0.0
        self.reporters: dict[Address, float] | None = None  # explicit tracking, kept only for fast_leave
        self.pending: Pending | None = None  # queries still to be repeated
        self.scheduled = NEVER  # the entry in the timer queue
        self.published: SourceFilter | None = None  # what the last event said

    @property
    def is_empty(self) -> bool:
        """INCLUDE of nothing: no member, no state."""
        return not self.requested and self.mode is FilterMode.INCLUDE

    @property
    def sources_count(self) -> int:
        """Both lists together."""
        return len(self.requested) + len(self.excluded)

    def wanted(self) -> SourceFilter:
        """What is to be forwarded (RFC 9776 §6.3): requested sources in INCLUDE, all but the excluded in EXCLUDE."""
        if self.mode is FilterMode.EXCLUDE:
            return SourceFilter(FilterMode.EXCLUDE, self.excluded) if self.excluded else ANY_SOURCE
        return SourceFilter(FilterMode.INCLUDE, frozenset(self.requested))

    def version(self, now: float) -> int:
        """The compatibility mode of this group: the oldest version of a report heard lately, or the configured one.

        A router that speaks an older version does not change it: hosts that follow that router will.
        """
        if self.v1_until > now:
            return 1
        if self.v2_until > now:
            return min(2, self.querier.configured_version)
        return self.querier.configured_version

    def apply(self, rule: Rule, sources: frozenset[Address], now: float) -> tuple[bool, Sources]:
        """Carry out a row of the table but for its queries: (may `wanted` differ now, the sources to be queried)."""
        requested = self.requested
        keys, excluded = requested.keys(), self.excluded
        membership_until = now + self.querier.timing.membership_s
        deleted = rule.deleted(keys, excluded, sources) if rule.deleted else _NOTHING
        refreshed = rule.refreshed(keys, excluded, sources) if rule.refreshed else _NOTHING
        inherited = rule.inherited(keys, excluded, sources) if rule.inherited else _NOTHING
        queried = rule.queried(keys, excluded, sources) if rule.queried else _NOTHING
        new_excluded = rule.excluded(keys, excluded, sources) if rule.excluded else _NOTHING
        before = len(requested)
        for source in deleted:
            del requested[source]
        for source in inherited:
            requested[source] = self.group_deadline
        for source in refreshed:
            requested[source] = membership_until
        changed = bool(deleted) or len(requested) != before or rule.mode is not self.mode
        if new_excluded != excluded:
            self.excluded = frozenset(new_excluded)
            changed = True
        self.mode = rule.mode
        if rule.restarts_group_timer:
            self.group_deadline = membership_until
        return changed, queried

    def lower_group_timer(self, deadline: float) -> None:
        """To the Last Member Query Time, never up."""
        if self.mode is FilterMode.EXCLUDE:
            self.group_deadline = min(self.group_deadline, deadline)

    def lower_source_timers(self, sources: Sources, deadline: float) -> list[Address]:
        """The same for those of `sources` that run beyond it; they are returned."""
        lowered = [source for source in sources if self.requested.get(source, 0.0) > deadline]
        for source in lowered:
            self.requested[source] = deadline
        return lowered

    def expire(self, now: float) -> bool:
        """Act on the timers that have run out by now (RFC 9776 §6.3, §6.5): whether `wanted` may differ."""
        gone = [source for source, deadline in self.requested.items() if deadline <= now]
        for source in gone:
            del self.requested[source]
        if self.mode is FilterMode.INCLUDE:
            return bool(gone)
        if self.group_deadline <= now:
            self.mode = FilterMode.INCLUDE
            self.excluded = _NOTHING
            return True
        if gone:
            self.excluded |= frozenset(gone)
        return bool(gone)

    def next_deadline(self) -> float:
        """When `expire` or a repeated query is due; costs a look at every source timer."""
        deadline = min(self.requested.values(), default=NEVER)
        if self.mode is FilterMode.EXCLUDE:
            deadline = min(deadline, self.group_deadline)
        if self.pending is not None:
            deadline = min(deadline, self.pending.resend_at)
        return deadline

    def expires_at(self) -> float:
        """The group timer in EXCLUDE, the longest source timer in INCLUDE (`expires_s` of `show groups`)."""
        if self.mode is FilterMode.EXCLUDE:
            return self.group_deadline
        return max(self.requested.values(), default=0.0)
