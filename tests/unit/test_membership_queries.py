"""Queries.  Goal: RFC 9776 §6.1, §6.6.3 and RFC 9777 §7.1, §7.6.3: startup, periodic and specific queries with their
repetition, S flag, merging and splitting, in the form that Linux accepts.

Method: two hosts on virtual time.
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop, RouterAlert

from pipeline.address import Address, show
from pipeline.wire.report import Query, Record, RecordType, Report
from tests.unit.membership_link import ALL_ROUTERS, BOTH, QUERIER_V4, QUERIER_V6, V4, V6, Link, Names, query_in

IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = RecordType

pytestmark = pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])


def times_of_general_queries(link: Link, names: Names, *, seconds: float) -> list[float]:
    """Return the times, from now on, at which general queries of one family are sent."""
    begin, times = link.now, []
    while link.now < begin + seconds:
        deadline = link.router.poll_timeout()
        assert deadline is not None
        link.advance(max(0.0, min(deadline, begin + seconds) - link.now))
        times += [link.now - begin] * len(link.queries(names, general=True))
    return times


def test_startup_and_periodic_queries_are_sent(names: Names) -> None:
    """Goal: Startup Query Count queries a quarter of the Query Interval apart, then one every interval (§8.6, §8.7)."""
    link = Link(started=False)
    link.router.start(link.now)
    (first,) = link.queries(names, general=True)
    assert (first.max_response_s, first.robustness, first.query_interval_s) == (10.0, 2, 125.0)
    assert not first.suppress
    assert times_of_general_queries(link, names, seconds=300.0) == [31.25, 156.25, 281.25]


def test_startup_values_can_be_configured(names: Names) -> None:
    """Goal: a configured startup interval and count win over the derived ones; fractions of a second are allowed."""
    link = Link(
        startup_query_interval_s=0.5, startup_query_count=3, query_interval_s=20.0, query_response_interval_s=5.0
    )
    assert times_of_general_queries(link, names, seconds=25.0) == [0.5, 1.0, 21.0]


def test_query_packets_have_the_required_headers(names: Names) -> None:
    """Goal: TTL or hop limit 1, Router Alert, the querier's source, the right destination.  Method: scapy parses
    them."""
    link = Link(started=False)
    link.router.start(link.now)
    link.report(names, TO_EX)
    link.report(names, TO_IN)
    packets = [packet for packet in link.packets() if packet[0] >> 4 == names.ip]
    for packet, destination in zip(packets, (names.all_hosts, names.group), strict=True):
        if names.ip == 4:
            seen = IP(packet)
            assert (seen.ttl, seen.tos, seen.src, seen.dst) == (1, 0xC0, show(QUERIER_V4), show(destination))
            assert any(isinstance(option, IPOption_Router_Alert) for option in seen.options)
        else:
            seen = IPv6(packet)
            assert (seen.hlim, seen.src, seen.dst) == (1, show(QUERIER_V6), show(destination))
            assert any(isinstance(option, RouterAlert) for option in seen[IPv6ExtHdrHopByHop].options)


def test_leave_ends_the_group_after_the_last_member_query_time(names: Names) -> None:
    """Goal: the group-specific query is sent LMQC times with S clear, at once first; then the group ends (§6.6.3.1)."""
    link = Link(robustness=3)
    link.report(names, TO_EX)
    link.events()
    link.report(names, TO_IN)
    rounds = []
    for _ in range(4):
        rounds.append([(query.group, query.suppress, query.sources) for query in link.queries(names)])
        assert link.events() == ({names.group: None} if len(rounds) == 4 else {})
        link.advance(1.0)
    assert rounds == [[(names.group, False, ())]] * 3 + [[]]


def test_report_keeps_the_group_and_sets_the_s_flag(names: Names) -> None:
    """Goal: a repeated query has S once a report has raised the timer above the query time (§6.6.3.1)."""
    link = Link()
    link.report(names, TO_EX)
    link.report(names, TO_IN)
    link.queries(names)
    link.advance(0.5)
    link.report(names, IS_EX, host=names.other_host)
    link.advance(0.5)
    (repeated,) = link.queries(names)
    assert repeated.suppress
    link.advance(60.0)
    assert link.queries(names) == []
    assert link.state(names) is not None


def test_source_queries_are_sent_in_two_messages(names: Names) -> None:
    """Goal: the repetition lists the reported sources with S and the others without (§6.6.3.2)."""
    link = Link()
    link.report(names, IS_IN, 0, 1, 2)
    link.report(names, BLOCK, 0, 1)
    (query,) = link.queries(names)
    assert (set(query.sources), query.suppress) == (set(names.sources[:2]), False)
    link.advance(0.5)
    link.report(names, IS_IN, 1, host=names.other_host)
    link.advance(0.5)
    raised, lowered = link.queries(names)
    assert (raised.suppress, raised.sources) == (True, (names.sources[1],))
    assert (lowered.suppress, lowered.sources) == (False, (names.sources[0],))
    link.advance(1.0)
    assert link.queries(names) == []
    state = link.state(names)
    assert state is not None
    assert set(state.requested) == {names.sources[1], names.sources[2]}


def test_group_query_replaces_the_source_query_with_s(names: Names) -> None:
    """Goal: with a group-specific query the source list with S is not sent (§6.6.3.2)."""
    link = Link()
    link.report(names, IS_EX)
    link.report(names, ALLOW, 0, 1)
    link.report(names, TO_IN)
    link.queries(names)
    link.advance(0.5)
    link.report(names, ALLOW, 0, host=names.other_host)
    link.advance(0.5)
    group, sources = link.queries(names)
    assert group.sources == ()
    assert (sources.suppress, sources.sources) == (False, (names.sources[1],))


def test_pending_and_new_queries_are_merged(names: Names) -> None:
    """Goal: a new query is sent with those that are being repeated, and no source is queried twice at a time."""
    link = Link()
    link.report(names, IS_IN, 0, 1)
    link.report(names, BLOCK, 0)
    link.report(names, BLOCK, 0)
    (first,) = link.queries(names)
    assert first.sources == (names.sources[0],)
    link.advance(0.5)
    link.report(names, BLOCK, 1)
    (merged,) = link.queries(names)
    assert set(merged.sources) == set(names.sources[:2])
    link.advance(0.5)
    assert link.queries(names) == []
    link.advance(0.5)
    (last,) = link.queries(names)
    assert last.sources == (names.sources[1],)


def test_second_leave_causes_no_further_query(names: Names) -> None:
    """Goal: a leave during the repetition of a query neither restarts nor multiplies it."""
    link = Link()
    link.report(names, TO_EX)
    for _ in range(5):
        link.report(names, TO_IN)
    assert len(link.queries(names)) == 1
    link.advance(1.5)
    link.report(names, TO_IN)
    assert len(link.queries(names)) == 1
    link.advance(0.5)
    assert link.state(names) is None


def test_leave_of_an_unknown_group_causes_no_query(names: Names) -> None:
    """Goal: a query with an empty list is not sent (§6.6.3.2).  Method: leaves of groups and sources without
    members."""
    link = Link()
    link.report(names, TO_IN)
    link.report(names, BLOCK, 0)
    link.leave(names)
    link.report(names, IS_IN, 0)
    link.report(names, BLOCK, 1)
    assert link.queries(names) == []
    assert link.router.counters.get("queries_sent") == 2  # the general ones


def test_long_source_list_is_split_by_the_mtu(names: Names) -> None:
    """Goal: no query exceeds the interface's MTU, and together they list every source once."""
    link = Link(mtu=600)
    sources = tuple(names.sources[0][:-2] + i.to_bytes(2, "big") for i in range(300, 800))
    report_sources(link, names, IS_IN, sources)
    report_sources(link, names, BLOCK, sources)
    packets = [packet for packet in link.packets() if packet[0] >> 4 == names.ip]
    assert len(packets) > 1
    assert all(len(packet) <= 600 for packet in packets)
    assert sorted(source for packet in packets for source in query_in(packet).sources) == sorted(sources)


def report_sources(link: Link, names: Names, kind: RecordType, sources: tuple[Address, ...]) -> None:
    assert link.send(names.host, Report((Record(kind, names.group, sources),)), ALL_ROUTERS[names.ip]) is None


def test_received_queries_lower_timers(names: Names) -> None:
    """Goal: S clear lowers the group timer, or those of the sources, to the query time; S set does not (§6.6.1)."""
    link = Link()
    link.report(names, IS_EX)
    link.report(names, ALLOW, 0, 1)
    version = 3 if names.ip == 4 else 2
    state = link.state(names)
    assert state is not None
    for query, group_left, source_left in [
        (Query(version, names.group, 1.0, suppress=True), 270.0, 270.0),
        (Query(version, names.group, 1.0, suppress=True, sources=names.sources[:1]), 270.0, 270.0),
        (Query(version, names.group, 1.0, sources=names.sources[:1]), 270.0, 2.0),
        (Query(version, names.group, 1.0), 2.0, 2.0),
    ]:
        assert link.query(names, names.higher_querier, query) is None
        assert state.group_deadline - link.now == group_left
        assert state.requested[names.sources[0]] - link.now == source_left
        assert state.requested[names.sources[1]] - link.now == 270.0
    assert link.queries(names) == []
    link.advance(2.0)
    assert state.excluded == frozenset()
    assert set(state.requested) == {names.sources[1]}


def test_query_for_an_unknown_group_makes_no_state(names: Names) -> None:
    """Goal: a specific query of another router makes no group."""
    link = Link()
    version = 3 if names.ip == 4 else 2
    link.query(names, names.higher_querier, Query(version, names.group, 1.0))
    assert link.router.groups(link.now) == []


def test_configured_values_are_sent(names: Names) -> None:
    """Goal: QRV is 0 above 7, and fractional times are sent in the units of the message.  Method: one odd
    configuration."""
    link = Link(
        started=False,
        robustness=9,
        query_interval_s=40.5,
        query_response_interval_s=2.5,
        last_member_query_interval_s=0.3,
    )
    link.router.start(link.now)
    (general,) = link.queries(names, general=True)
    assert (general.robustness, general.query_interval_s, general.max_response_s) == (0, 40.0, 2.5)
    link.report(names, TO_EX)
    link.report(names, TO_IN)
    (specific,) = link.queries(names)
    assert specific.max_response_s == 0.3
    state = link.state(names)
    assert state is not None
    assert state.group_deadline - link.now == pytest.approx(2.7)
    assert link.querier(names).timing.membership_s == pytest.approx(9 * 40.5 + 5.0)


def test_leave_causes_queries_in_its_family_only(names: Names) -> None:
    """Goal: IGMP and MLD do not influence each other."""
    link = Link()
    other = V6 if names is V4 else V4
    for family in BOTH:
        link.report(family, TO_EX)
    link.report(names, TO_IN)
    packets = link.packets()
    assert [packet[0] >> 4 for packet in packets] == [names.ip]
    link.advance(2.0)
    assert link.state(names) is None
    assert link.state(other) is not None
