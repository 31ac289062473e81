"""All groups with state on the link, both families: what records do to them, and what their timers do.

    record ─▶ is it one to heed? ─▶ compatibility mode ─▶ limits ─▶ rule of the table ─▶ queries, timers, event

Does not know packets (querier.py) or who asks on the link (election.py).  What one record costs depends on its own
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
from pipeline.membership.timers import TimerQueue
from pipeline.membership.views import MembershipChanged, TraceEvent
from pipeline.wire.report import Query, Record, RecordType

SOURCES_MAX = 1 << 18
"""Source timers of all groups together: 256 groups full of them, about 50 MB; GROUPS_MAX times the limit of one
group would be more memory than a host has."""

REPORTERS_MAX = 64
"""Hosts tracked in one group for `fast_leave`: with more than a handful nothing is gained by knowing them."""

TIMERS_PER_CALL_MAX = 4096
"""Groups served by one `handle_timeout`, about 20 ms: what is left is due at once, after the driver has drained."""

_EXCLUDING = frozenset((RecordType.IS_EX, RecordType.TO_EX))
_LEAVING = frozenset((RecordType.BLOCK, RecordType.TO_IN))
_UNKNOWN_HOST = b""
"""Stands for every host that is not tracked: while it is among the reporters, nobody is alone."""

Send = Callable[[Querier, Query], None]


class Database:
    """Group address → record, with the timers and the changes not yet told."""

    def __init__(self, *, fast_leave: bool, mtu: int, counters: dict[str, int], send: Send) -> None:
        self.groups: dict[Address, GroupState] = {}
        self.timers = TimerQueue()
        self.sources_count = 0
        self.trace: Callable[[TraceEvent], None] | None = None
        self._fast_leave = fast_leave
        self._mtu = mtu
        self._counters = counters
        self._send = send
        self._told: dict[Address, SourceFilter | None] = {}  # of each changed group: what the last event said
        self._changed: deque[Address] = deque()

    # -- records, in the order in which one meets them -----------------------------------------------------------

    def apply_old_report(self, querier: Querier, host: Address, version: int, group: Address, now: float) -> None:
        """A v1 or v2 report is IS_EX({}), and makes the group speak that version for a while (§7.3.2, §8.3.2)."""
        self.apply(querier, host, Record(RecordType.IS_EX, group), now)
        record = self.groups.get(group)
        if record is None or is_ssm(group):
            return
        until = now + querier.timing.older_host_present_s
        if version == 1:
            record.v1_until = until
        else:
            record.v2_until = until

    def apply_leave(self, querier: Querier, host: Address, group: Address, now: float) -> None:
        """A v2 leave or an MLDv1 done is TO_IN({}), but never for an SSM group (RFC 4604 §2.2.2)."""
        if is_ssm(group):
            self._ignore(MembershipCounter.SSM_IGNORED, group, host, now)
        else:
            self.apply(querier, host, Record(RecordType.TO_IN, group), now)

    def apply(self, querier: Querier, host: Address, told: Record, now: float) -> None:
        """One group record of a report."""
        group, kind = told.group, told.kind
        if not is_multicast(group) or not querier.family.keeps_state(group):
            self._ignore(MembershipCounter.GROUP_IGNORED, group, host, now)
            return
        if kind in _EXCLUDING and is_ssm(group):
            self._ignore(MembershipCounter.SSM_IGNORED, group, host, now)
            return
        record = self.groups.get(group)
        version = querier.configured_version if record is None else record.version(now)
        if kind is RecordType.TO_IN and min(version, querier.version) in querier.family.versions_never_left:
            self._ignore(MembershipCounter.COMPATIBILITY_IGNORED, group, host, now)
            return
        if version < querier.family.latest:
            if kind is RecordType.BLOCK:
                self._ignore(MembershipCounter.COMPATIBILITY_IGNORED, group, host, now)
                return
            if kind is RecordType.TO_EX:
                told = Record(kind, group)
        if record is None:
            record = self._admit(querier, host, told, now)
        if record is not None:
            self._run_rule(record, host, told, now)

    def _admit(self, querier: Querier, host: Address, told: Record, now: float) -> GroupState | None:
        """A group without state is INCLUDE of nothing: a record may begin state where it wants anything."""
        if told.kind not in _EXCLUDING and (not told.sources or told.kind is RecordType.BLOCK):
            return None
        if len(self.groups) >= GROUPS_MAX:
            self._ignore(MembershipCounter.GROUPS_LIMIT, told.group, host, now)
            return None
        record = self.groups[told.group] = GroupState(told.group, querier)
        return record

    def _run_rule(self, record: GroupState, host: Address, told: Record, now: float) -> None:
        querier = record.querier
        sources = self._usable_sources(record, told) if told.sources else frozenset[Address]()
        before = record.sources_count
        rule = RULES[record.mode][told.kind]
        if self.trace is not None:
            self.trace(TraceEvent(now, record.group, host, rule.text))
        changed, queried = record.apply(rule, sources, now)
        soonest = now + querier.timing.membership_s
        alone = self._fast_leave and self._track(record, host, told, now)
        if querier.is_querier and (queried or rule.queries_group):
            if alone:
                changed |= self._leave_at_once(record, queried, whole_group=rule.queries_group, now=now)
            elif queries.ask(record, whole_group=rule.queries_group, sources=queried, now=now):
                self._send_queries(record, now)
                soonest = min(soonest, record.next_deadline())
        self._settle(record, before, changed=changed)
        if not record.is_empty:
            self.timers.schedule(record, soonest)

    def _usable_sources(self, record: GroupState, told: Record) -> frozenset[Address]:
        """The record's sources that are unicast addresses, and no more new ones than there is room for."""
        usable = frozenset(source for source in told.sources if is_unicast(source))
        if len(usable) != len(told.sources):
            self._count(MembershipCounter.SOURCE_IGNORED, len(told.sources) - len(usable))
        kept = 0 if told.kind in _EXCLUDING else record.sources_count  # the excluding records replace both lists
        room = min(SOURCES_PER_GROUP_MAX - kept, SOURCES_MAX - self.sources_count)
        if len(usable) <= room:
            return usable
        known = usable & (record.requested.keys() | record.excluded)
        room = max(0, room - (0 if kept else len(known)))
        new = [source for source in dict.fromkeys(told.sources) if source in usable and source not in known]
        if len(new) > room:
            self._count(MembershipCounter.SOURCES_LIMIT, len(new) - room)
        return known | frozenset(new[:room])

    def _track(self, record: GroupState, host: Address, told: Record, now: float) -> bool:
        """Explicit tracking: remember who reports; whether `host` is the only one that is known to listen.

        Hosts of older versions keep quiet when they hear another's report, so they are not to be counted, nor are
        hosts without an address.
        """
        reporters = record.reporters
        if reporters is None:
            reporters = record.reporters = {}
        host = host if any(host) else _UNKNOWN_HOST
        if told.kind is RecordType.TO_IN and not told.sources:
            reporters.pop(host, None)
        else:
            if host not in reporters and len(reporters) >= REPORTERS_MAX:
                self._drop_silent(reporters, now)
                host = host if len(reporters) < REPORTERS_MAX else _UNKNOWN_HOST
            reporters[host] = now + record.querier.timing.membership_s
        if told.kind not in _LEAVING and told.kind is not RecordType.TO_EX:
            return False
        self._drop_silent(reporters, now)
        return (
            host != _UNKNOWN_HOST
            and all(known == host for known in reporters)
            and record.version(now) == record.querier.family.latest
        )

    @staticmethod
    def _drop_silent(reporters: dict[Address, float], now: float) -> None:
        for host in [host for host, until in reporters.items() if until <= now]:
            del reporters[host]

    def _leave_at_once(self, record: GroupState, queried: Iterable[Address], *, whole_group: bool, now: float) -> bool:
        """`fast_leave`: nobody else could answer the queries, so what they ask for ends now."""
        record.lower_source_timers(frozenset(queried), now)
        if whole_group:
            record.lower_group_timer(now)
        self._tell(now, record.group, "fast leave: the only known listener left")
        return record.expire(now)

    # -- queries -------------------------------------------------------------------------------------------------

    def lower_timers(self, querier: Querier, query: Query, now: float) -> None:
        """A received query with S clear lowers what it asks for (RFC 9776 §6.6.1, RFC 9777 §7.6.1)."""
        record = self.groups.get(query.group) if query.group is not None else None
        if record is None or query.suppress:
            return
        deadline = now + querier.timing.last_member_query_time_s
        if query.sources:
            record.lower_source_timers(frozenset(query.sources), deadline)
        else:
            record.lower_group_timer(deadline)
        self._tell(now, record.group, "query with S clear: timers lowered to the Last Member Query Time")
        self.timers.schedule(record, deadline)

    def _send_queries(self, record: GroupState, now: float) -> None:
        sources_max = record.querier.family.query_sources_max(self._mtu)
        for query in queries.compose(record, sources_max=sources_max, now=now):
            self._send(record.querier, query)
            if self.trace is not None:
                self.trace(TraceEvent(now, record.group, None, f"query sent: {query}"))

    # -- time ----------------------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Serve the groups that are due, a bounded number of them."""
        for _ in range(TIMERS_PER_CALL_MAX):
            record = self.timers.pop_due(now)
            if record is None:
                return
            before = record.sources_count
            changed = record.expire(now)
            if changed:
                self._tell(now, record.group, "timers ran out")
            if record.pending is not None and record.pending.resend_at <= now:
                if record.querier.is_querier and not record.is_empty:
                    self._send_queries(record, now)
                else:
                    record.pending = None
            self._settle(record, before, changed=changed)
            if not record.is_empty:
                self.timers.schedule(record, record.next_deadline())

    # -- events --------------------------------------------------------------------------------------------------

    def poll_event(self) -> MembershipChanged | None:
        """The next group whose merged state is not what the last event about it said."""
        while self._changed:
            group = self._changed.popleft()
            told = self._told.pop(group)
            record = self.groups.get(group)
            wanted = record.wanted() if record is not None else None
            if record is not None:
                record.published = wanted
            if wanted != told:
                return MembershipChanged(group, wanted)
        return None

    def adopt(self, record: GroupState) -> None:
        """Take in a record from a snapshot; its group is told as if it were new."""
        self.groups[record.group] = record
        self._settle(record, 0, changed=True)
        if not record.is_empty:
            self.timers.schedule(record, record.next_deadline())

    def _settle(self, record: GroupState, sources_before: int, *, changed: bool) -> None:
        """After anything that may have changed a record: counts, the event, and its end."""
        self.sources_count += record.sources_count - sources_before
        if record.is_empty:
            del self.groups[record.group]
            self.timers.forget(record)
            changed = True
        if changed and record.group not in self._told:
            self._told[record.group] = record.published
            self._changed.append(record.group)

    def _count(self, reason: str, amount: int = 1) -> None:
        self._counters[reason] += amount

    def _ignore(self, reason: MembershipCounter, group: Address, host: Address, now: float) -> None:
        self._count(reason)
        if self.trace is not None:
            self.trace(TraceEvent(now, group, host, f"ignored: {reason.text}"))

    def _tell(self, now: float, group: Address, rule: str) -> None:
        if self.trace is not None:
            self.trace(TraceEvent(now, group, None, rule))
