"""Trace and log alarms.  Goal: a reader gets each rule that fired, a trace without reader costs nothing, and the log
has each storm once.

Method: a router with a trace that is read, not read, and read too slowly; counters that grow and stop.
"""

from __future__ import annotations

import itertools

import pytest

from pipeline.membership import trace as trace_module
from pipeline.membership.log_alarms import QUIET_S, LogAlarms
from pipeline.membership.trace import TraceBuffer
from pipeline.membership.views import TraceEvent
from pipeline.wire.report import Query, RecordType
from tests.unit.membership_link import V4, Link

QUERIER = {"IGMP": True, "MLD": True}


class Source:
    """Object with a trace hook, in place of a router."""

    def __init__(self) -> None:
        self.trace = None

    def fire(self, now: float, count: int = 1) -> None:
        for number in range(count):
            if self.trace is not None:
                self.trace(TraceEvent(now, V4.group, V4.host, str(number)))


def test_trace_has_group_host_and_rule_of_each_step() -> None:
    """Goal: the trace has every step in its order.  Method: a join, a leave, an ignored record, nonsense and a
    query."""
    link = Link()
    buffer = TraceBuffer(link.router)
    after = buffer.poll(None, link.now).next_number
    link.report(V4, RecordType.TO_EX)
    link.report(V4, RecordType.TO_EX, group=V4.ssm_group)
    link.report(V4, RecordType.TO_IN)
    link.router.handle_packet(b"", link.now)
    link.query(V4, V4.lower_querier, Query(3, None, 10.0))
    events = buffer.poll(after, link.now).events
    assert [(event.group, event.host, event.rule.split(":")[0]) for event in events] == [
        (V4.group, V4.host, "INCLUDE (A) + TO_EX (B) -> EXCLUDE (A*B,B-A)"),
        (V4.ssm_group, V4.host, "ignored"),
        (V4.group, V4.host, "EXCLUDE (X,Y) + TO_IN (A) -> EXCLUDE (X+A,Y-A)"),
        (V4.group, None, "query sent"),
        (None, None, "dropped"),
        (None, V4.lower_querier, "IGMP election lost to a lower address"),
    ]
    assert "Q(239.1.2.3)" in events[3].rule


def test_trace_stops_without_polls() -> None:
    """Goal: there is no hook before the first poll nor after the last; a reader that returns gets the number of lost
    events."""
    source = Source()
    buffer = TraceBuffer(source)
    assert source.trace is None
    after = buffer.poll(None, 10.0).next_number
    source.fire(10.0, 3)
    source.fire(10.0 + trace_module.SILENCE_S + 1)
    assert source.trace is None
    part = buffer.poll(after, 20.0)
    assert (part.events, part.lost) == ((), 3)
    source.fire(20.0)
    assert len(buffer.poll(part.next_number, 20.1).events) == 1


def test_slow_reader_loses_the_oldest_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the ring and a reply are bounded.  Method: a ring of 16,384 and 20,000 events, read in parts."""
    source = Source()
    buffer = TraceBuffer(source)
    after = buffer.poll(None, 1.0).next_number
    source.fire(1.0, 20_000)
    part = buffer.poll(after, 1.1)
    assert part.lost == 20_000 - trace_module.EVENTS_MAX
    assert len(part.events) == trace_module.EVENTS_PER_POLL_MAX
    read = len(part.events)
    while (part := buffer.poll(part.next_number, 1.1)).events:
        assert part.lost == 0
        read += len(part.events)
    assert read == trace_module.EVENTS_MAX


def test_readers_share_the_trace() -> None:
    """Goal: two readers get the same events; a number from before a restart of control begins at the next event."""
    source = Source()
    buffer = TraceBuffer(source)
    first, second = buffer.poll(None, 1.0).next_number, buffer.poll(None, 1.0).next_number
    source.fire(1.0)
    assert len(buffer.poll(first, 1.0).events) == len(buffer.poll(second, 1.0).events) == 1
    assert buffer.poll(999, 1.0) == trace_module.TracePart((), 1, 0)


def test_storm_is_logged_once() -> None:
    """Goal: a storm has one log line.  Method: a counter grows for ten minutes, stops, and grows again: two lines."""
    alarms, count, now = LogAlarms(), itertools.count(5, 1000), 0.0
    notices = []
    for _ in range(600):
        now += 1.0
        notices += alarms.tick({"report_limit": next(count)}, QUERIER, now)
    assert [(notice.reason, notice.count) for notice in notices] == [("report_limit", 5)]
    now += QUIET_S + 1
    assert [notice.reason for notice in alarms.tick({"report_limit": next(count)}, QUERIER, now)] == ["report_limit"]


def test_other_version_and_change_of_querier_are_logged() -> None:
    """Goal: another version is logged with a rate limit (RFC 9776 §7.3.1), and so is each election.
    Method: an IGMPv2 querier with a lower address is present for a time."""
    link, alarms = Link(), LogAlarms()
    assert alarms.tick(link.router.counters, link.router.roles(), link.now) == []
    link.query(V4, V4.lower_querier, Query(2, None, 10.0))
    assert {notice.reason for notice in alarms.tick(link.router.counters, link.router.roles(), link.now)} == {
        "query_version_mismatch",
        "election",
    }
    link.query(V4, V4.lower_querier, Query(2, None, 10.0))
    assert alarms.tick(link.router.counters, link.router.roles(), link.now) == []
    link.advance(256.0)
    (notice,) = alarms.tick(link.router.counters, link.router.roles(), link.now)
    assert notice.text == "IGMP election: this node is the querier again"


def test_alarms_are_due_twice_a_second() -> None:
    """Goal: the cost does not grow with the rate of reports."""
    alarms = LogAlarms()
    assert alarms.is_due(1.0)
    alarms.tick({}, QUERIER, 1.0)
    assert not alarms.is_due(1.4)
    assert alarms.is_due(1.6)
