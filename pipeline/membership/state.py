"""State of one group on the link (RFC 9776 §6.2, RFC 9777 §7.2).

    INCLUDE (A)      `requested` is A with its source timers; `excluded` is empty; no group timer
    EXCLUDE (X,Y)    `requested` is X with its source timers; `excluded` is Y (timer 0); the group timer runs

A `GroupState` knows its own timers as absolute times, and executes the rules of the table.  It does not know other
groups, packets or limits, nor which router is the querier.  It lives from the first report until the state is INCLUDE
of nothing.
"""

from __future__ import annotations

from pipeline.address import ANY_SOURCE, Address, FilterMode, SourceFilter
from pipeline.membership.querier import Querier
from pipeline.membership.rules import Rule, Sources

NEVER = float("inf")
_NOTHING: frozenset[Address] = frozenset()


class PendingQueries:
    """Specific queries of one group that are still to be repeated (queries.py)."""

    __slots__ = ("group_repeats", "resend_at", "source_repeats")

    def __init__(self) -> None:
        self.group_repeats = 0
        self.source_repeats: dict[Address, int] = {}
        self.resend_at = 0.0


class GroupState:
    """One group; times are absolute, in seconds."""

    __slots__ = (
        "excluded",
        "group",
        "group_deadline",
        "lowered_group_deadline",
        "mode",
        "pending",
        "published",
        "querier",
        "reporters",
        "requested",
        "v1_until",
        "v2_until",
    )

    def __init__(self, group: Address, querier: Querier) -> None:
        self.group = group
        self.querier = querier  # the one of this group's family, with its times and versions
        self.mode = FilterMode.INCLUDE
        self.group_deadline = 0.0
        self.lowered_group_deadline = 0.0  # the group timer as the last group-specific query has set it
        self.requested: dict[Address, float] = {}
        self.excluded: frozenset[Address] = _NOTHING
        self.v1_until = 0.0  # older version host present timers (§7.3.2, §8.3.2)
        self.v2_until = 0.0
        self.reporters: dict[Address, float] | None = None  # explicit tracking, used only by fast_leave
        self.pending: PendingQueries | None = None
        self.published: SourceFilter | None = None  # the filter in the last event about this group

    @property
    def is_empty(self) -> bool:
        """Return whether the state is INCLUDE of nothing: the group has no member."""
        return not self.requested and self.mode is FilterMode.INCLUDE

    @property
    def sources_count(self) -> int:
        """Number of sources in both lists together."""
        return len(self.requested) + len(self.excluded)

    def source_filter(self) -> SourceFilter:
        """Return which sources are forwarded (RFC 9776 §6.3): the requested in INCLUDE, all but Y in EXCLUDE."""
        if self.mode is FilterMode.EXCLUDE:
            return SourceFilter(FilterMode.EXCLUDE, self.excluded) if self.excluded else ANY_SOURCE
        return SourceFilter(FilterMode.INCLUDE, frozenset(self.requested))

    def version(self, now: float) -> int:
        """Return the compatibility mode of this group: the oldest version in recent reports, or the configured one.

        Queries of an older router do not change it.  Hosts that follow that router send older reports, which do.
        """
        if self.v1_until > now:
            return 1
        if self.v2_until > now:
            return min(2, self.querier.configured_version)
        return self.querier.configured_version

    def apply(self, rule: Rule, sources: frozenset[Address], now: float) -> tuple[bool, Sources]:
        """Execute a row of the table, except for its queries.

        Returns whether `source_filter` may have changed, and the sources that the row queries.
        """
        is_changed = rule.mode is not self.mode
        queried: Sources = _NOTHING
        membership_until = now + self.querier.timing.membership_s
        if sources or self.requested or self.excluded:  # otherwise every set of the row is empty
            are_lists_changed, queried = self._apply_to_lists(rule, sources, membership_until)
            is_changed |= are_lists_changed
        self.mode = rule.mode
        if rule.restarts_group_timer:
            self.group_deadline = membership_until
        return is_changed, queried

    def _apply_to_lists(self, rule: Rule, sources: frozenset[Address], membership_until: float) -> tuple[bool, Sources]:
        """Execute the part of a row that changes the two lists; the results are those of `apply`."""
        requested = self.requested
        keys, excluded = requested.keys(), self.excluded
        deleted = rule.deleted(keys, excluded, sources) if rule.deleted else _NOTHING
        refreshed = rule.refreshed(keys, excluded, sources) if rule.refreshed else _NOTHING
        inherited = rule.inherited(keys, excluded, sources) if rule.inherited else _NOTHING
        queried = rule.queried(keys, excluded, sources) if rule.queried else _NOTHING
        new_excluded = rule.excluded(keys, excluded, sources) if rule.excluded else _NOTHING
        count_before = len(requested)
        for source in deleted:
            del requested[source]
        for source in inherited:
            requested[source] = self.group_deadline
        for source in refreshed:
            requested[source] = membership_until
        is_changed = bool(deleted) or len(requested) != count_before
        if new_excluded != excluded:
            self.excluded = frozenset(new_excluded)
            is_changed = True
        return is_changed, queried

    def lower_group_timer(self, deadline: float) -> None:
        """Let the group timer end at `deadline`, unless it ends earlier."""
        if self.mode is FilterMode.EXCLUDE:
            self.group_deadline = min(self.group_deadline, deadline)

    def lower_source_timers(self, sources: Sources, deadline: float) -> list[Address]:
        """Let the timers of `sources` end at `deadline`; return the sources with later timers."""
        lowered = [source for source in sources if self.requested.get(source, 0.0) > deadline]
        for source in lowered:
            self.requested[source] = deadline
        return lowered

    def expire(self, now: float) -> bool:
        """Act on expired timers (RFC 9776 §6.3, §6.5); return whether `source_filter` may have changed."""
        expired = [source for source, deadline in self.requested.items() if deadline <= now]
        for source in expired:
            del self.requested[source]
        if self.mode is FilterMode.INCLUDE:
            return bool(expired)
        if self.group_deadline <= now:
            self.mode = FilterMode.INCLUDE
            self.excluded = _NOTHING
            return True
        if expired:
            self.excluded |= frozenset(expired)
        return bool(expired)

    def next_deadline(self) -> float:
        """Return when `expire` or a repeated query is due.  The cost grows with the number of source timers."""
        deadline = min(self.requested.values(), default=NEVER)
        if self.mode is FilterMode.EXCLUDE:
            deadline = min(deadline, self.group_deadline)
        if self.pending is not None:
            deadline = min(deadline, self.pending.resend_at)
        return deadline

    def expires_at(self) -> float:
        """Return the group timer in EXCLUDE, the longest source timer in INCLUDE (`expires_s` of `show groups`)."""
        if self.mode is FilterMode.EXCLUDE:
            return self.group_deadline
        return max(self.requested.values(), default=0.0)
