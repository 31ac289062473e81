"""Goal: the queries of RFC 9776 §6.1, §6.6.3 and RFC 9777 §7.1, §7.6.3: startup and periodic ones, specific ones with
their repetitions, S flag, merging and splitting, in the form that Linux accepts.  Method: virtual time, two hosts."""

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
    """When, from now on, general queries of one family go out."""
    begin, times = link.now, []
    while link.now < begin + seconds:
        deadline = link.router.poll_timeout()
        assert deadline is not None
        link.advance(max(0.0, min(deadline, begin + seconds) - link.now))
        times += [link.now - begin] * len(link.queries(names, general=True))
    return times


def test_startup_and_periodic_queries(names: Names) -> None:
    """Goal: §8.6, §8.7: Startup Query Count queries a quarter of the Query Interval apart, then one every interval."""
    link = Link(started=False)
    link.router.start(link.now)
    (first,) = link.queries(names, general=True)
    assert (first.max_response_s, first.robustness, first.query_interval_s) == (10.0, 2, 125.0)
    assert not first.suppress
    assert times_of_general_queries(link, names, seconds=300.0) == [31.25, 156.25, 281.25]


def test_startup_values_may_be_configured(names: Names) -> None:
    """Goal: the configured startup interval and count win over the derived ones, fractions of a second included."""
    link = Link(
        startup_query_interval_s=0.5, startup_query_count=3, query_interval_s=20.0, query_response_interval_s=5.0
    )
    assert times_of_general_queries(link, names, seconds=25.0) == [0.5, 1.0, 21.0]


def test_packets_are_what_hosts_accept(names: Names) -> None:
    """Goal: TTL or hop limit 1, Router Alert, the querier's source, the right destination; scapy reads them."""
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


def test_leave_is_asked_about_and_acts_after_the_last_member_query_time(names: Names) -> None:
    """Goal: §6.6.3.1: the group-specific query LMQC times, S clear, the first at once; then the end."""
    link = Link(robustness=3)
    link.report(names, TO_EX)
    link.events()
    link.report(names, TO_IN)
    asked = []
    for _ in range(4):
        asked.append([(query.group, query.suppress, query.sources) for query in link.queries(names)])
        assert link.events() == ({names.group: None} if len(asked) == 4 else {})
        link.advance(1.0)
    assert asked == [[(names.group, False, ())]] * 3 + [[]]


def test_an_answer_keeps_the_group_and_sets_the_s_flag(names: Names) -> None:
    """Goal: §6.6.3.1: a repeated query carries S once a report has raised the timer above the query time."""
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
    assert link.record(names) is not None


def test_source_queries_in_two_messages(names: Names) -> None:
    """Goal: §6.6.3.2: the repetition lists answered sources with S and the others without."""
    link = Link()
    link.report(names, IS_IN, 0, 1, 2)
    link.report(names, BLOCK, 0, 1)
    (asked,) = link.queries(names)
    assert (set(asked.sources), asked.suppress) == (set(names.sources[:2]), False)
    link.advance(0.5)
    link.report(names, IS_IN, 1, host=names.other_host)
    link.advance(0.5)
    raised, lowered = link.queries(names)
    assert (raised.suppress, raised.sources) == (True, (names.sources[1],))
    assert (lowered.suppress, lowered.sources) == (False, (names.sources[0],))
    link.advance(1.0)
    assert link.queries(names) == []
    record = link.record(names)
    assert record is not None
    assert set(record.requested) == {names.sources[1], names.sources[2]}


def test_a_group_query_replaces_the_message_with_s(names: Names) -> None:
    """Goal: §6.6.3.2, the note: beside a group-specific query the source list with S is not sent."""
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
    """Goal: what is asked while a query is being repeated goes out with it, and nothing is asked twice."""
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


def test_a_second_leave_does_not_ask_again(names: Names) -> None:
    """Goal: leaves repeated while the question is open neither restart nor multiply it."""
    link = Link()
    link.report(names, TO_EX)
    for _ in range(5):
        link.report(names, TO_IN)
    assert len(link.queries(names)) == 1
    link.advance(1.5)
    link.report(names, TO_IN)
    assert len(link.queries(names)) == 1
    link.advance(0.5)
    assert link.record(names) is None


def test_nothing_to_ask_nothing_sent(names: Names) -> None:
    """Goal: §6.6.3.2: an empty list sends no query.  Method: leaves for what was never joined."""
    link = Link()
    link.report(names, TO_IN)
    link.report(names, BLOCK, 0)
    link.leave(names)
    link.report(names, IS_IN, 0)
    link.report(names, BLOCK, 1)
    assert link.queries(names) == []
    assert link.router.counters.get("queries_sent") == 2  # the general ones


def test_a_long_list_is_split_by_the_mtu(names: Names) -> None:
    """Goal: no query is longer than the interface's MTU, and together they list every source once."""
    link = Link(mtu=600)
    sources = tuple(names.sources[0][:-2] + i.to_bytes(2, "big") for i in range(300, 800))
    many(link, names, IS_IN, sources)
    many(link, names, BLOCK, sources)
    packets = [packet for packet in link.packets() if packet[0] >> 4 == names.ip]
    assert len(packets) > 1
    assert all(len(packet) <= 600 for packet in packets)
    assert sorted(source for packet in packets for source in query_in(packet).sources) == sorted(sources)


def many(link: Link, names: Names, kind: RecordType, sources: tuple[Address, ...]) -> None:
    assert link.say(names.host, Report((Record(kind, names.group, sources),)), ALL_ROUTERS[names.ip]) is None


def test_received_queries_lower_timers(names: Names) -> None:
    """Goal: §6.6.1 table: S clear lowers the group timer, or the sources' ones, to the query time; S set does not."""
    link = Link()
    link.report(names, IS_EX)
    link.report(names, ALLOW, 0, 1)
    version = 3 if names.ip == 4 else 2
    record = link.record(names)
    assert record is not None
    for query, group_left, source_left in [
        (Query(version, names.group, 1.0, suppress=True), 270.0, 270.0),
        (Query(version, names.group, 1.0, suppress=True, sources=names.sources[:1]), 270.0, 270.0),
        (Query(version, names.group, 1.0, sources=names.sources[:1]), 270.0, 2.0),
        (Query(version, names.group, 1.0), 2.0, 2.0),
    ]:
        assert link.query(names, names.higher_querier, query) is None
        assert record.group_deadline - link.now == group_left
        assert record.requested[names.sources[0]] - link.now == source_left
        assert record.requested[names.sources[1]] - link.now == 270.0
    assert link.queries(names) == []
    link.advance(2.0)
    assert record.excluded == frozenset()
    assert set(record.requested) == {names.sources[1]}


def test_queries_about_nothing_change_nothing(names: Names) -> None:
    """Goal: a specific query for a group without state leaves no trace."""
    link = Link()
    version = 3 if names.ip == 4 else 2
    link.query(names, names.higher_querier, Query(version, names.group, 1.0))
    assert link.router.groups(link.now) == []


def test_values_of_the_configuration_are_sent(names: Names) -> None:
    """Goal: QRV above 7 is 0, fractional response times are sent in their units.  Method: one odd configuration."""
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
    record = link.record(names)
    assert record is not None
    assert record.group_deadline - link.now == pytest.approx(2.7)
    assert link.side(names).timing.membership_s == pytest.approx(9 * 40.5 + 5.0)


def test_families_do_not_mix(names: Names) -> None:
    """Goal: a leave in one family asks in that family only."""
    link = Link()
    other = V6 if names is V4 else V4
    for family in BOTH:
        link.report(family, TO_EX)
    link.report(names, TO_IN)
    packets = link.packets()
    assert [packet[0] >> 4 for packet in packets] == [names.ip]
    link.advance(2.0)
    assert link.record(names) is None
    assert link.record(other) is not None
