"""Older versions and source-specific groups.  Goal: RFC 9776 §7.3, RFC 9777 §8.3 and RFC 4604 §2.2.

Method: reports and leaves of each version on virtual time; the table of the RFC in each compatibility mode.
"""

from __future__ import annotations

import pytest

from pipeline.address import ANY_SOURCE, FilterMode, SourceFilter, parse
from pipeline.wire.report import Record, RecordType, Report
from tests.unit.membership_link import ALL_ROUTERS, BOTH, V4, V6, Link, Names, packet_of

IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = RecordType
OHPI = 260.0

both = pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])


@pytest.mark.parametrize(("names", "version"), [(V4, 1), (V4, 2), (V6, 1)])
def test_old_report_joins_any_source(names: Names, version: int) -> None:
    """Goal: a v1 or v2 report is IS_EX({}), and sets the group's mode for the Older Host Present Interval."""
    link = Link()
    assert link.old_report(names, version) is None
    assert link.events() == {names.group: ANY_SOURCE}
    name = "IGMP" if names is V4 else "MLD"
    assert link.compatibility(names) == f"{name}v{version}"
    link.advance(OHPI - 1.0)
    link.report(names, IS_EX)
    assert link.compatibility(names) == f"{name}v{version}"
    link.advance(1.0)
    assert link.compatibility(names) == names.latest


def test_oldest_running_version_is_the_mode() -> None:
    """Goal: each older version has its own timer, and the oldest one that runs decides (§7.3.2)."""
    link = Link()
    link.old_report(V4, 1)
    link.advance(100.0)
    link.old_report(V4, 2)
    assert link.compatibility(V4) == "IGMPv1"
    link.advance(160.0)
    assert link.compatibility(V4) == "IGMPv2"
    link.report(V4, IS_EX)
    link.advance(100.0)
    assert link.compatibility(V4) == "IGMPv3"


@both
def test_leave_is_to_in_of_nothing(names: Names) -> None:
    """Goal: a v2 leave and an MLDv1 done cause a query of the latest version (§8.3.2), and then end the group."""
    link = Link()
    link.old_report(names, 2 if names is V4 else 1)
    link.leave(names)
    (query,) = link.queries(names)
    assert (query.group, query.version) == (names.group, 3 if names is V4 else 2)
    link.advance(2.0)
    assert link.events() == {}
    assert link.state(names) is None


def test_igmpv1_mode_ignores_leaves() -> None:
    """Goal: in IGMPv1 mode leaves, TO_IN and BLOCK are ignored, and so are the sources of TO_EX (§7.3.2)."""
    link = Link()
    link.old_report(V4, 1)
    link.report(V4, ALLOW, 0)
    link.leave(V4)
    link.report(V4, TO_IN)
    link.report(V4, BLOCK, 0, 1)
    link.report(V4, TO_EX, 2)
    assert link.queries(V4) == []
    state = link.state(V4)
    assert state is not None
    assert (state.mode, state.excluded) == (FilterMode.EXCLUDE, frozenset())
    assert link.router.counters["compatibility_ignored"] == 3
    assert state.group_deadline == link.now + 270.0


@pytest.mark.parametrize(("names", "version"), [(V4, 2), (V6, 1)])
def test_igmpv2_and_mldv1_mode_ignore_block_and_the_sources_of_to_ex(names: Names, version: int) -> None:
    """Goal: hosts of those versions receive every source (§7.3.2, §8.3.2)."""
    link = Link()
    link.old_report(names, version)
    link.report(names, BLOCK, 0)
    link.report(names, TO_EX, 1)
    state = link.state(names)
    assert state is not None
    assert (state.requested, state.excluded) == ({}, frozenset())
    assert link.queries(names) == []
    link.report(names, TO_IN)
    assert len(link.queries(names)) == 1


def test_compatibility_mode_is_per_group() -> None:
    """Goal: an old host in one group changes nothing in another."""
    link = Link()
    link.old_report(V4, 1)
    link.report(V4, TO_EX, group=V4.other_group)
    assert {view.compatibility for view in link.router.groups(link.now)} == {"IGMPv1", "IGMPv3"}
    link.report(V4, TO_IN, group=V4.other_group)
    assert [query.group for query in link.queries(V4)] == [V4.other_group]


@pytest.mark.parametrize(("version", "length", "code"), [(1, 8, 0), (2, 8, 100), (3, 12, 100)])
def test_configured_igmp_version_is_sent(version: int, length: int, code: int) -> None:
    """Goal: a router configured for an older version sends that version's queries (§7.3.1)."""
    link = Link(started=False, igmp_version=version)
    link.router.start(link.now)
    (packet,) = [packet for packet in link.packets() if packet[0] >> 4 == 4]
    assert (len(packet) - 24, packet[25]) == (length, code)


@pytest.mark.parametrize(("version", "length"), [(1, 24), (2, 28)])
def test_configured_mld_version_is_sent(version: int, length: int) -> None:
    """Goal: the same for MLD (§8.3.1)."""
    link = Link(started=False, mld_version=version)
    link.router.start(link.now)
    (packet,) = [packet for packet in link.packets() if packet[0] >> 4 == 6]
    assert len(packet) - 48 == length


def test_configured_igmpv1_ignores_leaves() -> None:
    """Goal: in IGMPv1 mode leaves are ignored, and the group ends by its timer (§7.3.1)."""
    link = Link(igmp_version=1)
    link.old_report(V4, 1)
    link.leave(V4)
    assert link.queries(V4) == []
    assert link.compatibility(V4) == "IGMPv1"
    link.advance(269.0)
    assert link.state(V4) is not None
    link.advance(1.0)
    assert link.state(V4) is None


def test_configured_igmpv2_queries_groups_but_no_sources() -> None:
    """Goal: a version 2 query cannot list sources: their timers are not lowered, and only groups are queried."""
    link = Link(igmp_version=2)
    link.report(V4, IS_IN, 0)
    link.report(V4, TO_IN)
    assert link.queries(V4) == []
    state = link.state(V4)
    assert state is not None
    assert state.requested == {V4.sources[0]: link.now + 270.0}
    link.report(V4, IS_EX)
    link.leave(V4)
    (query,) = link.queries(V4)
    assert (query.version, query.group, query.max_response_s) == (2, V4.group, 1.0)


@both
def test_older_hosts_can_be_ignored(names: Names) -> None:
    """Goal: `older_hosts = false` ignores versions older than the configured one (§7.3, §9.2).
    Method: reports and leaves of each version, with the latest and with an older version configured."""
    link = Link(older_hosts=False)
    link.report(names, IS_EX, 0)
    link.old_report(names, 1)
    link.leave(names)
    assert link.router.counters["older_version_ignored"] == 2
    assert (link.compatibility(names), link.queries(names)) == (names.latest, [])
    link = Link(older_hosts=False, igmp_version=2, mld_version=1)
    link.old_report(names, 2 if names is V4 else 1)
    assert link.state(names) is not None
    link.leave(names)
    assert len(link.queries(names)) == 1
    assert link.router.counters["older_version_ignored"] == 0


@both
def test_ssm_groups_accept_include_only(names: Names) -> None:
    """Goal: EXCLUDE records, old reports, leaves and dones for SSM groups are ignored (RFC 4604 §2.2)."""
    link = Link()
    group = names.ssm_group
    link.report(names, IS_EX, group=group)
    link.report(names, TO_EX, 0, group=group)
    link.old_report(names, 1, group=group)
    if names is V4:
        link.old_report(names, 2, group=group)
    assert link.state(names, group) is None
    link.report(names, ALLOW, 0, group=group)
    link.leave(names, group=group)
    link.old_report(names, 1, group=group)
    state = link.state(names, group)
    assert state is not None
    assert state.version(link.now) == (3 if names is V4 else 2)
    assert link.queries(names) == []
    assert link.events() == {group: SourceFilter(FilterMode.INCLUDE, frozenset(names.sources[:1]))}
    link.report(names, TO_IN, group=group)
    (query,) = link.queries(names)
    assert query.sources == names.sources[:1]
    assert link.router.counters["ssm_ignored"] >= 5


@pytest.mark.parametrize(
    ("text", "has_state"),
    [
        ("224.0.0.1", False),
        ("224.0.0.2", True),
        ("224.0.0.251", True),
        ("239.0.0.1", True),
        ("10.1.1.1", False),
        ("0.0.0.0", False),
        ("ff02::1", False),
        ("ff02::fb", True),
        ("ff02::1:ff00:1", True),
        ("ff00::1", False),
        ("ff01::1", False),
        ("ff11::5", False),
        ("ff05::5", True),
        ("fe80::1", False),
    ],
)
def test_groups_that_have_state(text: str, has_state: bool) -> None:
    """Goal: link-scope groups have state like others; the all-hosts groups, MLD scopes 0 and 1 and unicast addresses
    have none, in reports of any version."""

    group = parse(text)
    names = V4 if len(group) == 4 else V6
    link = Link()
    assert link.report(names, TO_EX, group=group) is None
    assert (link.state(names, group) is not None) is has_state
    other = Link()
    assert other.old_report(names, 1, group=group) is None
    assert (other.state(names, group) is not None) is has_state


def test_sources_that_are_not_unicast_are_ignored() -> None:
    """Goal: multicast, unspecified and loopback sources in a record are ignored, its other sources are not."""

    link = Link()
    sources = tuple(parse(text) for text in ("224.1.1.1", "0.0.0.0", "255.255.255.255", "10.77.1.1"))
    link.send(V4.host, Report((Record(IS_IN, V4.group, sources),)), ALL_ROUTERS[4])
    assert link.events() == {V4.group: SourceFilter(FilterMode.INCLUDE, frozenset({parse("10.77.1.1")}))}
    sources6 = tuple(parse(text) for text in ("ff02::1", "::", "::1"))
    link.send(V6.host, Report((Record(IS_IN, V6.group, sources6),)), ALL_ROUTERS[6])
    assert link.events() == {}
    assert link.router.counters["source_ignored"] == 6


def test_igmp_reports_of_hosts_without_an_address_are_accepted() -> None:
    """Goal: reports from 0.0.0.0 are accepted (RFC 9776 §4.2.14)."""
    link = Link()
    assert link.report(V4, TO_EX, host=bytes(4)) is None
    assert link.state(V4) is not None


def test_reports_to_any_destination_are_accepted() -> None:
    """Goal: besides 224.0.0.22, reports to any address of the router are accepted (§4.2.15)."""

    link = Link()
    report = Report((Record(TO_EX, V4.group),))
    packet = packet_of(report, source=V4.host, destination=V4.host)
    assert link.router.handle_packet(packet, link.now) is None
    assert link.state(V4) is not None
