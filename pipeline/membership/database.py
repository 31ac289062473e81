"""All groups with state on the link, of both families: the effects of records and of timers.

    record ─▶ is it to be ignored? ─▶ compatibility mode ─▶ limits ─▶ rule of the table ─▶ queries, timers, event

This module knows neither packets (router.py) nor the election (querier.py).  The cost of a record depends on its own
sources and on those of its group, never on the number of groups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from pipeline.address import Address, SourceFilter, is_multicast, is_ssm, is_unicast
from pipeline.drop_reasons import MembershipCounter
from pipeline.limits import GROUPS_MAX, SOURCES_PER_GROUP_MAX
from pipeline.membership import queries
from pipeline.membership.querier import Querier
from pipeline.membership.rules import RULES
from pipeline.membership.state import GroupState
from pipeline.membership.views import MembershipChanged, TraceEvent
from pipeline.timers import Deadlines
from pipeline.wire.report import Query, Record, RecordType

SOURCES_MAX = 1 << 18
"""Source timers of all groups together: 256 groups with the most sources, about 50 MB.  GROUPS_MAX groups with the
most sources would need more memory than a host has."""

REPORTERS_MAX = 64
"""Hosts tracked in one group for `fast_leave`; to know more than a handful gains nothing."""

TIMERS_PER_CALL_MAX = 4096
"""Groups served by one `handle_timeout`, about 20 ms.  The others stay due, and are served once the driver has
drained."""

_EXCLUDING = frozenset((RecordType.IS_EX, RecordType.TO_EX))
_LEAVING = frozenset((RecordType.BLOCK, RecordType.TO_IN))
_UNKNOWN_HOST = b""
"""Stands for all hosts that are not tracked: while it is among the reporters, no host counts as the only one."""

Send = Callable[[Querier, Query], None]


class Database:
    """Group states by group address, with their timers and the changes that are not yet published."""

    def __init__(self, *, fast_leave: bool, mtu: int, counters: dict[str, int], send: Send) -> None:
        self.groups: dict[Address, GroupState] = {}
        self.timers: Deadlines[Address] = Deadlines()
        """When each group is served next: at its next deadline or earlier."""
        self.sources_count = 0
        self.trace: Callable[[TraceEvent], None] | None = None
        self._fast_leave = fast_leave
        self._mtu = mtu
        self._counters = counters
        self._send = send
        self._changed: deque[Address] = deque()
        self._last_published: dict[Address, SourceFilter | None] = {}
        """The filter in the last event of each group in `_changed`."""

    # ---- records, in the order of their processing

    def apply_old_report(self, querier: Querier, host: Address, version: int, group: Address, now: float) -> None:
        """Apply a v1 or v2 report: it is IS_EX({}) and starts the version's compatibility timer (§7.3.2, §8.3.2)."""
        self.apply(querier, host, Record(RecordType.IS_EX, group), now)
        state = self.groups.get(group)
        if state is None or is_ssm(group):
            return
        until = now + querier.timing.older_host_present_s
        if version == 1:
            state.v1_until = until
        else:
            state.v2_until = until

    def apply_leave(self, querier: Querier, host: Address, group: Address, now: float) -> None:
        """Apply a v2 leave or an MLDv1 done: it is TO_IN({}); for an SSM group it is ignored (RFC 4604 §2.2.2)."""
        if is_ssm(group):
            self._ignore(MembershipCounter.SSM_IGNORED, group, host, now)
        else:
            self.apply(querier, host, Record(RecordType.TO_IN, group), now)

    def apply(self, querier: Querier, host: Address, record: Record, now: float) -> None:
        """Apply one group record of a report."""
        group, kind = record.group, record.kind
        if not is_multicast(group) or not querier.family.keeps_state(group):
            self._ignore(MembershipCounter.GROUP_IGNORED, group, host, now)
            return
        if kind in _EXCLUDING and is_ssm(group):
            self._ignore(MembershipCounter.SSM_IGNORED, group, host, now)
            return
        state = self.groups.get(group)
        version = querier.configured_version if state is None else state.version(now)
        if kind is RecordType.TO_IN and min(version, querier.version) in querier.family.versions_without_leave:
            self._ignore(MembershipCounter.COMPATIBILITY_IGNORED, group, host, now)
            return
        if version < querier.family.latest:
            if kind is RecordType.BLOCK:
                self._ignore(MembershipCounter.COMPATIBILITY_IGNORED, group, host, now)
                return
            if kind is RecordType.TO_EX:
                record = Record(kind, group)
        if state is None:
            state = self._admit(querier, host, record, now)
        if state is not None:
            self._run_rule(state, host, record, now)

    def _admit(self, querier: Querier, host: Address, record: Record, now: float) -> GroupState | None:
        """Make a state for a new group, which is INCLUDE of nothing; None for a record that would leave it so."""
        if record.kind not in _EXCLUDING and (not record.sources or record.kind is RecordType.BLOCK):
            return None
        if len(self.groups) >= GROUPS_MAX:
            self._ignore(MembershipCounter.GROUPS_LIMIT, record.group, host, now)
            return None
        state = self.groups[record.group] = GroupState(record.group, querier)
        return state

    def _run_rule(self, state: GroupState, host: Address, record: Record, now: float) -> None:
        querier = state.querier
        sources = self._usable_sources(state, record) if record.sources else frozenset[Address]()
        count_before = state.sources_count
        rule = RULES[state.mode][record.kind]
        if self.trace is not None:
            self.trace(TraceEvent(now, state.group, host, rule.text))
        is_changed, queried = state.apply(rule, sources, now)
        serve_at = now + querier.timing.membership_s
        is_only_host = self._fast_leave and self._track(state, host, record, now)
        if querier.is_querier and (queried or rule.queries_group):
            if is_only_host:
                is_changed |= self._leave_at_once(state, queried, is_group_left=rule.queries_group, now=now)
            elif queries.prepare(state, is_group_queried=rule.queries_group, sources=queried, now=now):
                self._send_queries(state, now)
                serve_at = min(serve_at, state.next_deadline())
        self._settle(state, count_before, is_changed=is_changed)
        if not state.is_empty:
            self.timers.bring_forward(state.group, serve_at)

    def _usable_sources(self, state: GroupState, record: Record) -> frozenset[Address]:
        """Return the record's unicast sources; new ones only as far as the limits leave room."""
        usable = frozenset(source for source in record.sources if is_unicast(source))
        if len(usable) != len(record.sources):
            self._count(MembershipCounter.SOURCE_IGNORED, len(record.sources) - len(usable))
        kept = 0 if record.kind in _EXCLUDING else state.sources_count  # excluding records replace both lists
        room = min(SOURCES_PER_GROUP_MAX - kept, SOURCES_MAX - self.sources_count)
        if len(usable) <= room:
            return usable
        known = usable & (state.requested.keys() | state.excluded)
        room = max(0, room - (0 if kept else len(known)))
        new = [source for source in dict.fromkeys(record.sources) if source in usable and source not in known]
        if len(new) > room:
            self._count(MembershipCounter.SOURCES_LIMIT, len(new) - room)
        return known | frozenset(new[:room])

    def _track(self, state: GroupState, host: Address, record: Record, now: float) -> bool:
        """Track which hosts report (explicit tracking); return whether `host` leaves and is the only known member.

        Hosts of older versions suppress their report when another host sends one, so they cannot be counted; nor can
        hosts without an address.
        """
        reporters = state.reporters
        if reporters is None:
            reporters = state.reporters = {}
        host = host if any(host) else _UNKNOWN_HOST
        if record.kind is RecordType.TO_IN and not record.sources:
            reporters.pop(host, None)
        else:
            if host not in reporters and len(reporters) >= REPORTERS_MAX:
                self._drop_expired(reporters, now)
                host = host if len(reporters) < REPORTERS_MAX else _UNKNOWN_HOST
            reporters[host] = now + state.querier.timing.membership_s
        if record.kind not in _LEAVING and record.kind is not RecordType.TO_EX:
            return False
        self._drop_expired(reporters, now)
        return (
            host != _UNKNOWN_HOST
            and all(known == host for known in reporters)
            and state.version(now) == state.querier.family.latest
        )

    @staticmethod
    def _drop_expired(reporters: dict[Address, float], now: float) -> None:
        for host in [host for host, until in reporters.items() if until <= now]:
            del reporters[host]

    def _leave_at_once(self, state: GroupState, left: Iterable[Address], *, is_group_left: bool, now: float) -> bool:
        """End a membership without queries (`fast_leave`), because no other host could answer them."""
        state.lower_source_timers(frozenset(left), now)
        if is_group_left:
            state.lower_group_timer(now)
        self._trace(now, state.group, "fast leave: the only known member left")
        return state.expire(now)

    # ---- queries

    def lower_timers(self, querier: Querier, query: Query, now: float) -> None:
        """Lower the timers that a received query with S clear is about (RFC 9776 §6.6.1, RFC 9777 §7.6.1)."""
        state = self.groups.get(query.group) if query.group is not None else None
        if state is None or query.suppress:
            return
        deadline = now + querier.timing.last_member_query_time_s
        if query.sources:
            state.lower_source_timers(frozenset(query.sources), deadline)
        else:
            state.lower_group_timer(deadline)
        self._trace(now, state.group, "query with S clear: timers lowered to the Last Member Query Time")
        self.timers.bring_forward(state.group, deadline)

    def _send_queries(self, state: GroupState, now: float) -> None:
        sources_max = state.querier.family.query_sources_max(self._mtu)
        for query in queries.compose(state, sources_max=sources_max, now=now):
            self._send(state.querier, query)
            if self.trace is not None:
                self.trace(TraceEvent(now, state.group, None, f"query sent: {query}"))

    # ---- timers

    def handle_timeout(self, now: float) -> None:
        """Serve groups that are due, TIMERS_PER_CALL_MAX at the most."""
        for _ in range(TIMERS_PER_CALL_MAX):
            group = self.timers.pop_expired(now)
            if group is None:
                return
            state = self.groups[group]
            count_before = state.sources_count
            is_changed = state.expire(now)
            if is_changed:
                self._trace(now, group, "timers expired")
            if state.pending is not None and state.pending.resend_at <= now:
                if state.querier.is_querier and not state.is_empty:
                    self._send_queries(state, now)
                else:
                    state.pending = None
            self._settle(state, count_before, is_changed=is_changed)
            if not state.is_empty:
                self.timers.set(group, state.next_deadline())

    # ---- events

    def poll_event(self) -> MembershipChanged | None:
        """Return the next group with a merged state that differs from the last event about it, or None."""
        while self._changed:
            group = self._changed.popleft()
            last_published = self._last_published.pop(group)
            state = self.groups.get(group)
            source_filter = state.source_filter() if state is not None else None
            if state is not None:
                state.published = source_filter
            if source_filter != last_published:
                return MembershipChanged(group, source_filter)
        return None

    def adopt(self, state: GroupState) -> None:
        """Add a group state from a snapshot; an event reports it like a new group."""
        self.groups[state.group] = state
        self._settle(state, 0, is_changed=True)
        if not state.is_empty:
            self.timers.set(state.group, state.next_deadline())

    def _settle(self, state: GroupState, count_before: int, *, is_changed: bool) -> None:
        """Update counts and events after a state may have changed, and remove an empty one."""
        self.sources_count += state.sources_count - count_before
        if state.is_empty:
            del self.groups[state.group]
            self.timers.clear(state.group)
            is_changed = True
        if is_changed and state.group not in self._last_published:
            self._last_published[state.group] = state.published
            self._changed.append(state.group)

    def _count(self, reason: str, amount: int = 1) -> None:
        self._counters[reason] += amount

    def _ignore(self, reason: MembershipCounter, group: Address, host: Address, now: float) -> None:
        self._count(reason)
        if self.trace is not None:
            self.trace(TraceEvent(now, group, host, f"ignored: {reason.text}"))

    def _trace(self, now: float, group: Address, rule: str) -> None:
        if self.trace is not None:
            self.trace(TraceEvent(now, group, None, rule))
