"""Snapshots.  Goal: a restarted control process continues with the state of the last one, and a damaged snapshot
changes nothing.

Method: a link with every kind of state is saved, and restored into a new router on another clock.
"""

from __future__ import annotations

import msgspec
import pytest

from pipeline.errors import WireError
from pipeline.wire.report import Query, RecordType
from tests.unit.membership_link import BOTH, V4, V6, Link, Names

IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = RecordType


def busy_link() -> Link:
    """Return a link with both modes and families, an old host, and a pending query."""
    link = Link(fast_leave=True)
    link.report(V4, IS_EX, 2, 3)
    link.report(V4, ALLOW, 0, 1)
    link.report(V4, TO_EX, host=V4.other_host, group=V4.other_group)
    link.old_report(V4, 2, group=V4.other_group)
    link.report(V6, IS_IN, 0, 1)
    link.report(V6, IS_IN, 0, host=V6.other_host)
    link.advance(33.5)
    link.report(V6, BLOCK, 0)
    return link


def restore(link: Link, *, later_s: float) -> Link:
    """Return a link with the state of another one, `later_s` later and on a clock of its own."""
    restored = Link(started=False, fast_leave=True)
    restored.now = 5000.0 + later_s
    restored.router.restore(link.router.snapshot(link.now), restored.now)
    return restored


def test_state_is_restored_with_its_timers() -> None:
    """Goal: the views are equal, every group has an event, and no time of the old clock is left."""
    link = busy_link()
    restored = restore(link, later_s=0.5)
    assert restored.router.groups(restored.now) == link.router.groups(link.now)
    assert restored.events() == {state.group: state.source_filter() for state in link.router._database.groups.values()}
    assert restored.router._database.sources_count == link.router._database.sources_count
    assert restored.router.counters == link.router.counters


@pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])
def test_restored_querier_sends_one_general_query_at_once(names: Names) -> None:
    """Goal: hosts repeat the reports that were lost meanwhile; there are no startup queries."""
    link = busy_link()
    restored = restore(link, later_s=0.5)
    restored.router.start(restored.now)
    assert len(restored.queries(names, general=True)) == 1
    restored.advance(100.0)
    assert restored.queries(names, general=True) == []


def test_pending_queries_are_repeated_after_a_restore() -> None:
    """Goal: the pending repetition is sent, and the blocked source ends with its timer."""
    link = busy_link()
    restored = restore(link, later_s=0.1)
    link.packets()
    restored.advance(1.0)
    (query,) = restored.queries(V6)
    assert (query.sources, query.suppress) == ((V6.sources[0],), False)
    restored.advance(1.0)
    state = restored.state(V6)
    assert state is not None
    assert set(state.requested) == {V6.sources[1]}


def test_lost_election_is_restored() -> None:
    """Goal: the role, the adopted values and the Other Querier Present timer are restored."""
    link = busy_link()
    link.query(V4, V4.lower_querier, Query(3, None, 10.0, robustness=3, query_interval_s=60.0))
    link.advance(10.0)
    restored = restore(link, later_s=0.5)
    restored.router.start(restored.now)
    assert not restored.router.is_querier(ipv6=False)
    assert restored.querier(V4).timing.membership_s == 3 * 60.0 + 20.0
    restored.advance(174.9)
    assert restored.queries(V4, general=True) == []
    restored.advance(0.1)
    assert len(restored.queries(V4, general=True)) == 1
    assert restored.querier(V4).timing.robustness == 2


def test_older_version_of_queries_is_restored() -> None:
    """Goal: the version in force lasts as long as before."""
    link = busy_link()
    link.query(V4, V4.higher_querier, Query(2, None, 10.0))
    restored = restore(link, later_s=0.5)
    restored.router.start(restored.now)
    assert [query.version for query in restored.queries(V4, general=True)] == [2]
    restored.advance(255.0)
    assert restored.querier(V4).version == 3


def test_damaged_snapshot_is_refused() -> None:
    """Goal: a damaged snapshot is WireError("snapshot"), and the router does not change."""
    good = busy_link().router.snapshot(200.0)
    fields = msgspec.msgpack.decode(good)
    for data in (
        b"",
        b"nonsense",
        good[:-1],
        msgspec.msgpack.encode(fields | {"schema": 99}),
        msgspec.msgpack.encode(fields | {"queriers": []}),
        msgspec.msgpack.encode(fields | {"groups": [[b"abc", *fields["groups"][0][1:]]]}),
    ):
        link = Link(started=False)
        with pytest.raises(WireError, match="snapshot"):
            link.router.restore(data, link.now)
        assert link.router.groups(link.now) == []
        assert link.router.poll_timeout() is None
