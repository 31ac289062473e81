"""Querier election.  Goal: RFC 9776 §6.6.2 and RFC 9777 §7.6.2, in both families.

Method: a second router sends queries on the link, on virtual time.
"""

from __future__ import annotations

import pytest

from pipeline.address import parse
from pipeline.wire.report import Query, RecordType
from tests.unit.membership_link import BOTH, QUERIER_V4, QUERIER_V6, V4, V6, Link, Names

IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = RecordType

both = pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])


def general(names: Names, *, robustness: int = 2, query_interval_s: float = 125.0) -> Query:
    version = 3 if names.ip == 4 else 2
    return Query(version, None, 10.0, robustness=robustness, query_interval_s=query_interval_s)


@both
def test_lower_address_wins(names: Names) -> None:
    """Goal: this router sends no query of that family any more, and goes on in the other."""
    link = Link()
    link.query(names, names.lower_querier, general(names))
    ipv6 = names is V6
    assert not link.router.is_querier(ipv6=ipv6)
    assert link.router.is_querier(ipv6=not ipv6)
    link.report(names, TO_EX)
    link.report(names, TO_IN)
    link.advance(200.0)
    packets = link.packets()
    assert packets
    assert all(packet[0] >> 4 != names.ip for packet in packets)


@both
def test_higher_and_own_address_do_not_win(names: Names) -> None:
    """Goal: this router stays querier, with its own values."""
    link = Link()
    own = QUERIER_V4 if names is V4 else QUERIER_V6
    link.query(names, names.higher_querier, general(names, robustness=5))
    link.query(names, own, general(names, robustness=5))
    assert link.router.is_querier(ipv6=names is V6)
    assert link.querier(names).timing.robustness == 2
    assert link.router.counters["own_query_ignored"] == 1


def test_query_from_0_0_0_0_never_wins() -> None:
    """Goal: 0.0.0.0 is the address of a snooping switch, not of a querier (RFC 4541 §2.1.1)."""
    link = Link()
    assert link.query(V4, bytes(4), general(V4)) is None
    assert link.router.is_querier(ipv6=False)


def test_igmp_elects_on_general_queries_and_mld_on_any() -> None:
    """Goal: RFC 9776 §6.6.2, RFC 9777 §7.6.2.  Method: a group-specific query from a lower address, in each family."""
    link = Link()
    link.query(V4, V4.lower_querier, Query(3, V4.group, 1.0))
    link.query(V6, V6.lower_querier, Query(2, V6.group, 1.0))
    assert link.router.is_querier(ipv6=False)
    assert not link.router.is_querier(ipv6=True)


@both
def test_router_becomes_querier_after_silence_of_the_other(names: Names) -> None:
    """Goal: after the Other Querier Present Interval (255 s) a general query is sent at once, then periodically."""
    link = Link()
    link.query(names, names.lower_querier, general(names))
    link.advance(100.0)
    link.query(names, names.lower_querier, general(names))
    link.advance(254.9)
    assert link.queries(names, general=True) == []
    link.advance(0.1)
    assert len(link.queries(names, general=True)) == 1
    assert link.router.is_querier(ipv6=names is V6)
    link.advance(124.9)
    assert link.queries(names, general=True) == []
    link.advance(0.1)
    assert len(link.queries(names, general=True)) == 1


@both
def test_elected_querier_values_are_in_force_while_it_is_present(names: Names) -> None:
    """Goal: QRV and QQI of the querier are adopted, where 0 means the default, and given up with it (§4.1.6,
    §4.1.7)."""
    link = Link()
    link.query(names, names.lower_querier, general(names, robustness=3, query_interval_s=20.0))
    timing = link.querier(names).timing
    assert (timing.robustness, timing.query_interval_s) == (3, 20.0)
    assert (timing.membership_s, timing.other_querier_present_s, timing.last_member_query_time_s) == (80.0, 65.0, 3.0)
    link.report(names, TO_EX)
    (view,) = link.router.groups(link.now)
    assert view.expires_s == 80.0
    link.query(names, names.lower_querier, general(names, robustness=0, query_interval_s=0.0))
    assert link.querier(names).timing.membership_s == 270.0
    link.query(names, names.lower_querier, general(names, robustness=4))
    link.advance(4 * 125.0 + 5.0)
    assert link.querier(names).timing.robustness == 2


@both
def test_qrv_zero_keeps_a_configured_robustness_above_seven(names: Names) -> None:
    """Goal: two routers with a robustness of 9 agree although QRV cannot hold it (RFC 9776 §4.1.6, RFC 9777 §5.1.8).
    Method: the elected router's query as it is on the wire."""
    link = Link(robustness=9)
    link.query(names, names.lower_querier, general(names, robustness=9))
    timing = link.querier(names).timing
    assert not link.querier(names).is_querier
    assert (timing.robustness, timing.membership_s) == (9, 9 * 125.0 + 20.0)


@both
def test_non_querier_sends_no_specific_query_and_follows_the_others(names: Names) -> None:
    """Goal: after a leave, only the querier's own query, with S clear, lowers the timer (§6.6.1)."""
    link = Link()
    link.query(names, names.lower_querier, general(names))
    link.report(names, TO_EX)
    link.report(names, TO_IN)
    assert link.queries(names) == []
    state = link.state(names)
    assert state is not None
    assert state.group_deadline == link.now + 270.0
    link.query(names, names.lower_querier, Query(3 if names is V4 else 2, names.group, 1.0))
    assert state.group_deadline == link.now + 2.0
    link.advance(2.0)
    assert link.state(names) is None


@both
def test_lost_election_ends_pending_queries(names: Names) -> None:
    """Goal: a non-querier repeats no query."""
    link = Link()
    link.report(names, TO_EX)
    link.report(names, TO_IN)
    link.queries(names)
    link.query(names, names.lower_querier, general(names))
    link.advance(2.0)
    assert link.queries(names) == []
    assert link.state(names) is None


def test_queries_of_older_versions_are_counted() -> None:
    """Goal: a router of another version on the link is counted, for a warning, and elected like any other (§7.3.1)."""
    link = Link()
    link.query(V4, V4.lower_querier, Query(2, None, 10.0))
    link.query(V6, V6.lower_querier, Query(1, None, 10.0))
    assert link.router.counters["query_version_mismatch"] == 2
    assert not link.router.is_querier(ipv6=False)
    assert not link.router.is_querier(ipv6=True)


def versions_sent(link: Link, names: Names, *, seconds: float) -> set[int]:
    link.packets()
    link.advance(seconds)
    return {query.version for query in link.queries(names, general=True)}


def test_igmp_follows_the_oldest_router_on_the_link() -> None:
    """Goal: an older general query sets the version of queries while its router is present (RFC 9776 §6.6.2)."""
    link = Link()
    link.advance(10.0)
    link.query(V4, V4.higher_querier, Query(2, None, 10.0))
    assert versions_sent(link, V4, seconds=200.0) == {2}
    link.query(V4, V4.higher_querier, Query(1, None, 10.0))
    link.query(V4, V4.higher_querier, Query(2, None, 10.0))
    assert versions_sent(link, V4, seconds=200.0) == {1}
    assert versions_sent(link, V4, seconds=180.0) == {3}


def test_older_router_does_not_change_the_mode_of_groups() -> None:
    """Goal: only reports set the mode of a group (§7.3.2), but leaves are ignored while IGMPv1 queries are sent
    (§7.3.1). Method: a source list after a version 2 query, a leave after a version 1 query."""
    link = Link()
    link.query(V4, V4.higher_querier, Query(2, None, 10.0))
    link.report(V4, TO_EX, 0)
    assert link.compatibility(V4) == "IGMPv3"
    state = link.state(V4)
    assert state is not None
    assert state.excluded == {V4.sources[0]}
    link.query(V4, V4.higher_querier, Query(1, None, 10.0))
    link.report(V4, TO_IN)
    assert link.queries(V4) == []
    assert state.group_deadline == link.now + 270.0


def test_igmp_does_not_follow_specific_queries_nor_0_0_0_0() -> None:
    """Goal: neither a group-specific query nor one of a snooping switch shows which routers are present."""
    link = Link()
    link.query(V4, V4.higher_querier, Query(2, V4.group, 1.0))
    link.query(V4, bytes(4), Query(2, None, 10.0))
    assert versions_sent(link, V4, seconds=130.0) == {3}


def test_mld_keeps_its_configured_version() -> None:
    """Goal: the administrator ensures that all routers use the same MLD version (RFC 9777 §8.3.1)."""
    link = Link()
    link.query(V6, V6.higher_querier, Query(1, None, 10.0))
    assert versions_sent(link, V6, seconds=130.0) == {2}


def test_addresses_are_compared_as_numbers() -> None:
    """Goal: the lowest address is found by number, not by text."""
    link = Link()
    link.query(V4, parse("10.77.255.99"), general(V4))
    assert not link.router.is_querier(ipv6=False)
