"""Group-specific and group-and-source-specific queries (RFC 9776 §6.6.3, RFC 9777 §7.6.3).

A query is sent at once and repeated Last Member Query Count - 1 times; the timers that it is about are lowered first.
New queries are merged with those of the same group that are still being repeated, so a group has one repetition timer.
This module knows of packets only how many sources a query can list.
"""

from __future__ import annotations

from pipeline.address import Address, FilterMode
from pipeline.membership.rules import Sources
from pipeline.membership.state import GroupState, PendingQueries
from pipeline.wire.report import Query


def prepare(state: GroupState, *, is_group_queried: bool, sources: Sources, now: float) -> bool:
    """Lower the timers and record which queries are to be sent; return whether there is a new one."""
    timing = state.querier.timing
    deadline = now + timing.last_member_query_time_s
    pending = state.pending or PendingQueries()
    is_new = False
    # Equal times mean that no report has raised the timer since a query lowered it: the earlier query still runs.
    if is_group_queried and state.group_deadline != state.lowered_group_deadline:
        state.lower_group_timer(deadline)
        state.lowered_group_deadline = state.group_deadline
        pending.group_repeats = timing.last_member_query_count
        is_new = True
    if state.querier.version == state.querier.family.latest:  # older queries cannot list sources
        for source in state.lower_source_timers(sources, deadline):
            pending.source_repeats[source] = timing.last_member_query_count
            is_new = True
    if is_new:
        state.pending = pending
    return is_new


def compose(state: GroupState, *, sources_max: int, now: float) -> list[Query]:
    """Return the queries about this group that are due, and set the time of their repetition.

    The S flag is set where a report has raised the timer since it was lowered.  A source list is sent as one message
    with the flag and one without (§6.6.3.2); the former is left out when a group-specific query is sent with it.
    """
    pending, querier = state.pending, state.querier
    assert pending is not None
    timing = querier.timing
    limit = now + timing.last_member_query_time_s
    queries: list[Query] = []
    raised, lowered = _take_sources(state, pending, limit) if pending.source_repeats else ([], [])
    if pending.group_repeats and state.mode is FilterMode.EXCLUDE:
        suppress = state.group_deadline > limit
        queries.append(querier.query(state.group, timing.last_member_query_interval_s, suppress=suppress))
        raised = []
    pending.group_repeats = max(0, pending.group_repeats - 1) if state.mode is FilterMode.EXCLUDE else 0
    for sources, suppress in ((raised, True), (lowered, False)):
        for at in range(0, len(sources), sources_max):
            part = tuple(sources[at : at + sources_max])
            queries.append(
                querier.query(state.group, timing.last_member_query_interval_s, suppress=suppress, sources=part)
            )
    if pending.group_repeats or pending.source_repeats:
        pending.resend_at = now + timing.last_member_query_interval_s
    else:
        state.pending = None
    return queries


def _take_sources(state: GroupState, pending: PendingQueries, limit: float) -> tuple[list[Address], list[Address]]:
    """Return the sources to query, those with timers above the limit first, and use up one repetition of each.

    A source that is no longer requested is not queried: its timer has expired.
    """
    raised: list[Address] = []
    lowered: list[Address] = []
    repeats: dict[Address, int] = {}
    for source, count in pending.source_repeats.items():
        deadline = state.requested.get(source)
        if deadline is None:
            continue
        (raised if deadline > limit else lowered).append(source)
        if count > 1:
            repeats[source] = count - 1
    pending.source_repeats = repeats
    return raised, lowered
