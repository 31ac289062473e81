"""Group-specific and group-and-source-specific queries: RFC 9776 §6.6.3, RFC 9777 §7.6.3.

A query is sent at once and Last Member Query Count - 1 times more; the timers it is about are lowered first.  What
is asked while earlier queries of the same group are still being repeated is merged with them: one clock a group.
Does not know packets but for how many sources one can list, nor who caused a query.
"""

from __future__ import annotations

from pipeline.address import Address, FilterMode
from pipeline.membership.rules import Sources
from pipeline.membership.state import GroupState
from pipeline.wire.report import Query


class Pending:
    """The repetitions that one group still waits for."""

    __slots__ = ("group_left", "resend_at", "sources_left")

    def __init__(self) -> None:
        self.group_left = 0
        self.sources_left: dict[Address, int] = {}
        self.resend_at = 0.0


def ask(record: GroupState, *, whole_group: bool, sources: Sources, now: float) -> bool:
    """Lower the timers and note what is to be asked: whether there is anything new to send."""
    timing = record.querier.timing
    deadline = now + timing.last_member_query_time_s
    pending = record.pending or Pending()
    anything = False
    if whole_group and record.group_deadline != record.asked_until:  # else no report has come since it was lowered
        record.lower_group_timer(deadline)
        record.asked_until = record.group_deadline
        pending.group_left = timing.last_member_query_count
        anything = True
    if record.querier.version == record.querier.family.latest:  # older queries cannot list sources
        for source in record.lower_source_timers(sources, deadline):
            pending.sources_left[source] = timing.last_member_query_count
            anything = True
    if anything:
        record.pending = pending
    return anything


def compose(record: GroupState, *, sources_max: int, now: float) -> list[Query]:
    """The queries due now about this group, and the clock for the next ones.

    The S flag stands where the timer has been raised by a report since it was lowered; a source list goes out as one
    message with it and one without (§6.6.3.2), the former only if no group-specific query goes with it.
    """
    pending, querier = record.pending, record.querier
    assert pending is not None
    timing = querier.timing
    limit = now + timing.last_member_query_time_s
    queries: list[Query] = []
    raised, lowered = _partition(record, pending, limit)
    if pending.group_left and record.mode is FilterMode.EXCLUDE:
        suppress = record.group_deadline > limit
        queries.append(querier.query(record.group, timing.last_member_query_interval_s, suppress=suppress))
        raised = []
    pending.group_left = max(0, pending.group_left - 1) if record.mode is FilterMode.EXCLUDE else 0
    for sources, suppress in ((raised, True), (lowered, False)):
        for at in range(0, len(sources), sources_max):
            part = tuple(sources[at : at + sources_max])
            queries.append(
                querier.query(record.group, timing.last_member_query_interval_s, suppress=suppress, sources=part)
            )
    if pending.group_left or pending.sources_left:
        pending.resend_at = now + timing.last_member_query_interval_s
    else:
        record.pending = None
    return queries


def _partition(record: GroupState, pending: Pending, limit: float) -> tuple[list[Address], list[Address]]:
    """The sources to ask for, with timers above the limit and not, one repetition of each used up.

    A source that is no longer requested has been answered for by its timer.
    """
    raised: list[Address] = []
    lowered: list[Address] = []
    left: dict[Address, int] = {}
    for source, count in pending.sources_left.items():
        deadline = record.requested.get(source)
        if deadline is None:
            continue
        (raised if deadline > limit else lowered).append(source)
        if count > 1:
            left[source] = count - 1
    pending.sources_left = left
    return raised, lowered
