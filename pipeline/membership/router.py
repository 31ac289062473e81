"""The multicast router of the virtual link: IGMPv1/2/3 and MLDv1/2, router side (RFC 9776, RFC 9777).

    packet ─▶ ip.parse ─▶ family.receive ─▶ token bucket ─┬─ query  ─▶ election, timers lowered
                                                          └─ report ─▶ database ─▶ queries, events

One object serves both families.  It does no I/O and reads no clock: after each `handle_*` the driver drains
`poll_transmit`, `poll_event` and `poll_timeout`.  It knows neither the overlay nor the destination of its packets.
Lifecycle: `restore` if there is a snapshot, `start`, then any number of `handle_*`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pipeline.address import Address, FilterMode
from pipeline.config import MembershipConfig
from pipeline.drop_reasons import MembershipCounter
from pipeline.errors import WireError
from pipeline.membership import snapshot
from pipeline.membership.database import Database
from pipeline.membership.family import IGMP, MLD, Family
from pipeline.membership.querier import Querier
from pipeline.membership.state import GroupState
from pipeline.membership.timing import Timing
from pipeline.membership.views import GroupView, MembershipChanged, TraceEvent
from pipeline.token_bucket import TokenBucket
from pipeline.wire import ip
from pipeline.wire.report import Leave, Message, OldReport, Query, Report

__all__ = ["GroupView", "MembershipChanged", "MembershipRouter", "TraceEvent"]

RECORDS_PER_SECOND_MAX = 50_000
"""Group records accepted per second, sustained: half of a core.  It is above the 20,000 reports per second that a node
must process, and below the rate that would starve the overlay's engine in the same process."""

RECORDS_BURST_MAX = 131_072
"""Records accepted at once: two reports of each of GROUPS_MAX groups, in reply to two general queries."""

SOURCES_PER_TOKEN = 8
"""A source in a record costs about an eighth of the record itself."""

QUERIES_QUEUED_MAX = 65_536
"""Queries in the queue to the driver, which drains it after every call: one for each of GROUPS_MAX groups."""


class MembershipRouter:
    """The multicast router of one link; `counters` counts drop reasons, limits and traffic."""

    def __init__(
        self, config: MembershipConfig, *, querier_v4: Address, querier_v6: Address, mtu: int, now: float
    ) -> None:
        self.counters: dict[str, int] = dict.fromkeys(map(str, MembershipCounter), 0)
        self._v4 = _make_querier(config, IGMP, querier_v4, config.igmp_version)
        self._v6 = _make_querier(config, MLD, querier_v6, config.mld_version)
        self._older_hosts = config.older_hosts
        self._bucket = TokenBucket(rate_per_s=RECORDS_PER_SECOND_MAX, burst=RECORDS_BURST_MAX, now=now)
        self._packets: deque[bytes] = deque()
        self._database = Database(fast_leave=config.fast_leave, mtu=mtu, counters=self.counters, send=self._send)

    @property
    def trace(self) -> Callable[[TraceEvent], None] | None:
        """Function that is called with every rule that fires, or None."""
        return self._database.trace

    @trace.setter
    def trace(self, hook: Callable[[TraceEvent], None] | None) -> None:
        self._database.trace = hook

    def roles(self) -> dict[str, bool]:
        """Return for each family's name whether this router is its querier."""
        return {querier.family.name: querier.is_querier for querier in (self._v4, self._v6)}

    def is_querier(self, *, ipv6: bool) -> bool:
        """Return whether this router, and not another one on the link, is the querier of the family."""
        return (self._v6 if ipv6 else self._v4).is_querier

    def start(self, now: float) -> None:
        """Begin the startup queries; after `restore`, send one general query instead."""
        self._v4.start(now)
        self._v6.start(now)
        self.handle_timeout(now)

    def handle_packet(self, packet: bytes, now: float) -> str | None:
        """Process a whole inner IP packet; return a drop reason if it is malformed or above the rate, else None."""
        try:
            parsed = ip.parse(packet)
            querier = self._v4 if len(parsed.source) == 4 else self._v6
            message = querier.family.receive(parsed)
        except WireError as error:
            return self._drop(str(error), now)
        if message is None:
            self._count(MembershipCounter.UNKNOWN_IGNORED)
            return None
        if not self._bucket.take(_cost(message), now):
            return self._drop(MembershipCounter.REPORT_RATE, now)
        self._database.handle_timeout(now)
        if isinstance(message, Query):
            self._handle_query(querier, message, parsed.source, now)
        else:
            self._handle_report(querier, message, parsed.source, now)
        return None

    def _handle_query(self, querier: Querier, query: Query, source: Address, now: float) -> None:
        """Process another router's query (RFC 9776 §6.6, RFC 9777 §7.6).

        Queries of this router come back where a host bridges the link; they are ignored.
        """
        if source == querier.address:
            self._count(MembershipCounter.OWN_QUERY_IGNORED)
            return
        self._count(MembershipCounter.QUERIES_RECEIVED)
        if query.version != querier.version:
            self._count(MembershipCounter.QUERY_VERSION_MISMATCH)  # §7.3.1 requires a warning: log_alarms.py
        was_querier = querier.is_querier
        if querier.handle_query(query, source, now) and was_querier and self.trace is not None:
            self.trace(TraceEvent(now, None, source, f"{querier.family.name} election lost to a lower address"))
        self._database.lower_timers(querier, query, now)

    def _handle_report(
        self, querier: Querier, message: Report | OldReport | Leave, source: Address, now: float
    ) -> None:
        self._count(MembershipCounter.REPORTS_RECEIVED)
        database = self._database
        if not self._older_hosts and _version(querier, message) < querier.configured_version:
            self._count(MembershipCounter.OLDER_VERSION_IGNORED)  # RFC 9776 §7.3, §9.2
            return
        if isinstance(message, Report):
            for record in message.records:
                database.apply(querier, source, record, now)
        elif isinstance(message, OldReport):
            database.apply_old_report(querier, source, message.version, message.group, now)
        else:
            database.apply_leave(querier, source, message.group, now)

    def handle_timeout(self, now: float) -> None:
        """Send general queries and serve groups that are due; call again while `poll_timeout` is not in the future."""
        for querier in (self._v4, self._v6):
            query = querier.handle_timeout(now)
            if query is not None:
                self._send(querier, query)
                if self.trace is not None:
                    rule = f"general query sent: {querier.family.name}v{query.version}"
                    self.trace(TraceEvent(now, None, None, rule))
        self._database.handle_timeout(now)

    def poll_timeout(self) -> float | None:
        """Return the absolute time when `handle_timeout` is due; None before `start`."""
        deadlines = (self._v4.poll_timeout(), self._v6.poll_timeout(), self._database.timers.next_due())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def poll_transmit(self) -> bytes | None:
        """Return the next query, a whole IP packet for the link, or None."""
        return self._packets.popleft() if self._packets else None

    def poll_event(self) -> MembershipChanged | None:
        """Return the next change of a group's merged state; changes of one group since the last drain are merged."""
        return self._database.poll_event()

    def groups(self, now: float) -> list[GroupView]:
        """Return every group with state, in the order of addresses."""
        states = self._database.groups
        return [_view(states[group], now) for group in sorted(states, key=lambda group: (len(group), group))]

    def snapshot(self, now: float) -> bytes:
        """Return all state as bytes (msgpack), for `restore` in the next process."""
        return snapshot.save(self._database, (self._v4, self._v6), self.counters, now)

    def restore(self, data: bytes, now: float) -> None:
        """Continue from a snapshot, before any other call; events report every group, and a general query follows.

        WireError("snapshot") if the bytes are not a snapshot.
        """
        snapshot.load(data, self._database, (self._v4, self._v6), self.counters, now)

    def _send(self, querier: Querier, query: Query) -> None:
        if len(self._packets) >= QUERIES_QUEUED_MAX:
            self._count(MembershipCounter.QUERY_QUEUE_FULL)
            return
        self._count(MembershipCounter.QUERIES_SENT)
        self._packets.append(querier.family.send(querier.address, query))

    def _drop(self, reason: str, now: float) -> str:
        self._count(reason)
        if self.trace is not None:
            self.trace(TraceEvent(now, None, None, f"dropped: {reason}"))
        return reason

    def _count(self, reason: str) -> None:
        self.counters[reason] += 1


def _make_querier(config: MembershipConfig, family: Family, address: Address, version: int) -> Querier:
    """Make the querier of a family; RFC 9776 §8.6 and §8.7 define the startup values that are not configured."""
    timing = Timing(
        robustness=config.robustness,
        query_interval_s=config.query_interval_s,
        query_response_interval_s=config.query_response_interval_s,
        last_member_query_interval_s=config.last_member_query_interval_s,
    )
    interval_s, count = config.startup_query_interval_s, config.startup_query_count
    return Querier(
        family,
        address=address,
        version=version,
        timing=timing,
        startup_interval_s=config.query_interval_s / 4 if interval_s is None else interval_s,
        startup_count=config.robustness if count is None else count,
    )


def _version(querier: Querier, message: Report | OldReport | Leave) -> int:
    """Return the protocol version of a host's message."""
    if isinstance(message, OldReport):
        return message.version
    return querier.family.latest - isinstance(message, Leave)  # leaves came with IGMPv2, dones with MLDv1


def _cost(message: Message) -> float:
    """Return the tokens that a message takes from the bucket: one for each record and a fraction for each source."""
    if isinstance(message, Report):
        return sum((1 + len(record.sources) / SOURCES_PER_TOKEN for record in message.records), 1.0)
    return 1.0


def _view(state: GroupState, now: float) -> GroupView:
    is_excluding = state.mode is FilterMode.EXCLUDE
    requested = tuple(sorted(state.requested))
    return GroupView(
        group=state.group,
        filter_mode=state.mode,
        sources=tuple(sorted(state.excluded)) if is_excluding else requested,
        requested=requested if is_excluding else (),
        compatibility=f"{state.querier.family.name}v{state.version(now)}",
        expires_s=max(0.0, state.expires_at() - now),
    )
