"""Limits of membership.  Goal: a malformed packet is counted and changes nothing; what exceeds a limit is counted; the
cost of a report does not depend on the number of groups; fast leave ends a group only for its last member.

Method: packets with one fault each; lower limits; a look into the heap of timers.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.address import Address, FilterMode, parse
from pipeline.membership import database
from pipeline.wire import igmp, ip, mld
from pipeline.wire.report import Leave, Message, OldReport, Query, Record, RecordType, Report
from tests.unit.membership_link import ALL_ROUTERS, BOTH, V4, V6, Link, Names, packet_of

IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = RecordType

both = pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])

JOIN4 = Report((Record(TO_EX, V4.group),))
JOIN6 = Report((Record(TO_EX, V6.group),))


def v4(payload: bytes, *, source: str = "10.77.0.1", ttl: int = 1, router_alert: bool = True) -> bytes:
    return ip.build_v4(
        source=parse(source), destination=ALL_ROUTERS[4], payload=payload, ttl=ttl, router_alert=router_alert
    )


def v6(message: Message, *, source: str = "fe80::1", hop_limit: int = 1, router_alert: bool = True) -> bytes:
    payload = mld.build(message, source=parse(source), destination=ALL_ROUTERS[6])
    return ip.build_v6(
        source=parse(source),
        destination=ALL_ROUTERS[6],
        payload=payload,
        hop_limit=hop_limit,
        router_alert=router_alert,
    )


MALFORMED = [
    (v4(igmp.build(JOIN4)[:-1] + b"\xff"), "igmp_checksum"),
    (v4(igmp.build(JOIN4)[:7]), "igmp_truncated"),
    (v4(igmp.build(JOIN4), ttl=2), "igmp_ttl"),
    (v4(igmp.build(JOIN4), router_alert=False), "igmp_router_alert"),
    (v4(igmp.build(OldReport(2, V4.group)), router_alert=False), "igmp_router_alert"),
    (v4(igmp.build(Leave(V4.group)), router_alert=False), "igmp_router_alert"),
    (v4(igmp.build(JOIN4), source="239.1.1.1"), "igmp_source"),
    (v4(igmp.build(JOIN4), source="127.0.0.1"), "igmp_source"),
    (v4(igmp.build(JOIN4))[:-4], "ip_truncated"),
    (v6(JOIN6, hop_limit=64), "mld_hop_limit"),
    (v6(JOIN6, source="fd77::1"), "mld_source"),
    (v6(JOIN6, source="::"), "mld_source"),
    (v6(Query(2, None, 10.0), source="fd77::1"), "mld_source"),
    (v6(Leave(V6.group), source="::"), "mld_source"),
    (v6(JOIN6, router_alert=False), "mld_router_alert"),
    (v6(JOIN6)[:-1] + b"\x77", "mld_checksum"),
    (b"", "ip_truncated"),
    (b"\x00" * 40, "ip_version"),
]


@pytest.mark.parametrize(("packet", "reason"), MALFORMED, ids=[f"{i}-{case[1]}" for i, case in enumerate(MALFORMED)])
def test_malformed_packet_is_counted_and_changes_nothing(packet: bytes, reason: str) -> None:
    """Goal: each fault has one reason and one counter, and causes no state, query or event."""
    link = Link()
    assert link.router.handle_packet(packet, link.now) == reason
    assert link.router.counters[reason] == 1
    assert (link.router.groups(link.now), link.packets(), link.events()) == ([], [], {})


def test_version_1_report_needs_no_router_alert() -> None:
    """Goal: hosts of RFC 1112, which did not have the option, are members."""
    link = Link()
    assert link.router.handle_packet(v4(igmp.build(OldReport(1, V4.group)), router_alert=False), link.now) is None
    assert link.state(V4) is not None


def test_other_protocols_and_unknown_types_are_ignored() -> None:
    """Goal: a packet of another protocol, and an unknown IGMP type, is not an error."""
    link = Link()
    udp = bytearray(v4(igmp.build(JOIN4)))
    udp[9], udp[10:12] = 17, b"\0\0"
    udp[10:12] = ip.checksum(bytes(udp[:24])).to_bytes(2, "big")
    pim = b"\x14\0\0\0" + bytes(4)
    for packet in (bytes(udp), v4(pim[:2] + ip.checksum(pim).to_bytes(2, "big") + pim[4:])):
        assert link.router.handle_packet(packet, link.now) is None
    assert link.router.counters["unknown_ignored"] == 2


@given(
    st.sampled_from([v4(igmp.build(JOIN4)), v6(JOIN6)]), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)))
)
def test_no_packet_raises(packet: bytes, patches: list[tuple[int, int]]) -> None:
    """Goal: every packet ends in a drop reason or in none.  Method: valid packets, overwritten anywhere."""
    data = bytearray(packet)
    for at, value in patches:
        data[at % len(data)] = value
    link = Link()
    reason = link.router.handle_packet(bytes(data), link.now)
    assert reason is None or link.router.counters[reason] == 1


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a group above the limit is counted and ignored, present groups are refreshed, and an ended one makes
    room."""
    monkeypatch.setattr(database, "GROUPS_MAX", 3)
    link = Link()
    for i in range(5):
        assert link.report(V4, TO_EX, group=bytes([239, 9, 9, i])) is None
    assert len(link.router.groups(link.now)) == 3
    assert link.router.counters["groups_limit"] == 2
    link.advance(100.0)
    link.report(V4, IS_EX, group=bytes([239, 9, 9, 0]))
    link.advance(170.0)
    assert len(link.router.groups(link.now)) == 1
    link.report(V4, TO_EX, group=bytes([239, 9, 9, 4]))
    assert len(link.router.groups(link.now)) == 2


def sources_of(count: int, *, start: int = 0) -> tuple[Address, ...]:
    return tuple(b"\x0a\x4d" + i.to_bytes(2, "big") for i in range(start, start + count))


def report_sources(link: Link, kind: RecordType, sources: tuple[Address, ...], group: Address = V4.group) -> None:
    assert link.send(V4.host, Report((Record(kind, group, sources),)), ALL_ROUTERS[4]) is None


@pytest.mark.parametrize("kind", [IS_IN, ALLOW, IS_EX, TO_EX])
def test_sources_of_a_group_are_bounded(kind: RecordType) -> None:
    """Goal: above 1,024 sources of a group, new ones are counted and ignored, and known ones are still refreshed."""
    link = Link()
    report_sources(link, kind, sources_of(1000))
    report_sources(link, ALLOW, sources_of(1030, start=10))
    state = link.state(V4)
    assert state is not None
    assert state.sources_count == 1024
    assert link.router.counters["sources_limit"] == 16
    assert link.router._database.sources_count == 1024
    report_sources(link, kind, sources_of(2000))
    assert state.sources_count <= 1024
    link.advance(300.0)
    assert link.router._database.sources_count == 0


def test_sources_of_all_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: all groups share one limit; further sources are not excluded, so that their packets still arrive."""
    monkeypatch.setattr(database, "SOURCES_MAX", 10)
    link = Link()
    report_sources(link, IS_IN, sources_of(8))
    report_sources(link, IS_EX, sources_of(8), V4.other_group)
    state = link.state(V4, V4.other_group)
    assert state is not None
    assert len(state.excluded) == 2
    assert link.router.counters["sources_limit"] == 6


def test_rate_of_reports_is_bounded() -> None:
    """Goal: above the rate reports are dropped as report_rate, and a second later they are accepted again."""
    link = Link()
    big = tuple(Record(IS_EX, b"\xef\x01" + i.to_bytes(2, "big")) for i in range(7000))
    packet = packet_of(Report(big), source=V4.host, destination=ALL_ROUTERS[4])
    reasons = [link.router.handle_packet(packet, link.now) for _ in range(25)]
    assert reasons[:18] == [None] * 18
    assert reasons[20:] == ["report_rate"] * 5
    link.advance(1.0)
    assert link.router.handle_packet(packet, link.now) is None


def test_timer_heap_stays_small() -> None:
    """Goal: endless joins and leaves do not grow the heap.  Method: 20,000 rounds of one group with fast leave."""
    link = Link(fast_leave=True)
    join = packet_of(JOIN4, source=V4.host, destination=ALL_ROUTERS[4])
    leave = packet_of(Report((Record(TO_IN, V4.group),)), source=V4.host, destination=ALL_ROUTERS[4])
    for _ in range(20_000):
        link.now += 0.001
        link.router.handle_packet(join, link.now)
        link.router.handle_packet(leave, link.now)
    assert link.router.groups(link.now) == []
    assert len(link.router._database.timers._heap) < 2000
    assert len(link.events()) <= 1


def cost_s(link: Link, packet: bytes) -> float:
    best = 1.0
    for _ in range(30):
        begin = time.perf_counter()
        for _ in range(20):
            link.router.handle_packet(packet, link.now)
        best = min(best, time.perf_counter() - begin)
    return best


def test_cost_of_a_report_does_not_depend_on_the_number_of_groups() -> None:
    """Goal: a report costs the same with 1 and with 30,000 groups.  Method: the best of many runs, with a wide margin:
    a scan of the groups would be a thousand times slower."""
    link = Link()
    packet = packet_of(JOIN4, source=V4.host, destination=ALL_ROUTERS[4])
    link.router.handle_packet(packet, link.now)
    alone = cost_s(link, packet)
    for i in range(0, 30_000, 1000):
        records = tuple(Record(IS_EX, b"\xee\x01" + j.to_bytes(2, "big")) for j in range(i, i + 1000))
        link.send(V4.host, Report(records), ALL_ROUTERS[4])
    assert len(link.router.groups(link.now)) == 30_001
    assert cost_s(link, packet) < 5 * alone


@both
def test_one_call_serves_a_bounded_number_of_groups(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: one `handle_timeout` does a bounded amount of work, and leaves the rest due."""
    monkeypatch.setattr(database, "TIMERS_PER_CALL_MAX", 2)
    link = Link()
    for i in range(5):
        link.report(names, TO_EX, group=names.group[:-1] + bytes([i]))
    link.now += 270.0
    counts = []
    for _ in range(3):
        link.router.handle_timeout(link.now)
        counts.append(len(link.router.groups(link.now)))
    assert counts == [3, 1, 0]


@both
def test_fast_leave_ends_the_membership_of_the_only_host(names: Names) -> None:
    """Goal: a leave of the only known member has an effect at once, without a query."""
    link = Link(fast_leave=True)
    link.report(names, TO_EX)
    link.events()
    link.report(names, TO_IN)
    assert link.queries(names) == []
    assert link.events() == {names.group: None}
    link.report(names, IS_IN, 0, 1)
    link.report(names, BLOCK, 0)
    state = link.state(names)
    assert state is not None
    assert set(state.requested) == {names.sources[1]}
    link.report(names, TO_EX, 1)
    assert (state.mode, state.requested, state.excluded) == (FilterMode.EXCLUDE, {}, {names.sources[1]})
    assert link.queries(names) == []


@both
def test_fast_leave_queries_while_another_host_is_a_member(names: Names) -> None:
    """Goal: with a second member a leave causes a query; once that one has left or expired, it does not."""
    link = Link(fast_leave=True)
    link.report(names, TO_EX)
    link.report(names, TO_EX, host=names.other_host)
    link.report(names, TO_IN)
    assert len(link.queries(names)) == 1
    link.report(names, IS_EX, host=names.other_host)
    link.report(names, TO_IN, host=names.other_host)
    assert link.state(names) is None


def test_fast_leave_queries_for_old_hosts_and_hosts_without_address() -> None:
    """Goal: hosts of older versions suppress reports, and hosts at 0.0.0.0 look the same: a leave causes a query."""
    link = Link(fast_leave=True)
    link.old_report(V4, 2)
    link.leave(V4)
    assert len(link.queries(V4)) == 1
    other = Link(fast_leave=True)
    other.report(V4, TO_EX, host=bytes(4))
    other.report(V4, TO_IN, host=bytes(4))
    assert len(other.queries(V4)) == 1


def test_tracked_hosts_are_bounded() -> None:
    """Goal: above 64 hosts of a group the others count as one unknown member, so that no host is the only one."""
    link = Link(fast_leave=True)
    hosts = [bytes([10, 77, 2, i]) for i in range(70)]
    for host in hosts:
        link.report(V4, TO_EX, host=host)
    state = link.state(V4)
    assert state is not None
    assert state.reporters is not None
    assert len(state.reporters) == database.REPORTERS_MAX + 1
    for host in hosts[:64]:
        link.report(V4, TO_IN, host=host)
    assert link.state(V4) is not None


@both
def test_hosts_are_not_tracked_without_fast_leave(names: Names) -> None:
    """Goal: the default uses no memory for hosts, and queries after each leave."""
    link = Link()
    link.report(names, TO_EX)
    state = link.state(names)
    assert state is not None
    assert state.reporters is None
    link.report(names, TO_IN)
    assert len(link.queries(names)) == 1
