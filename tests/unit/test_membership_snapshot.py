"""Goal: a restarted control process goes on where the last one stopped, and hostile bytes are refused whole.
Method: a link with every kind of state is saved, restored into a new router at another time, and both go on alike."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.errors import WireError
from pipeline.wire.report import Query, RecordType
from tests.unit.membership_link import BOTH, V4, V6, Link, Names

IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = RecordType


def busy_link() -> Link:
    """Both modes, both families, an old host, an open question, a lost election."""
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


def take_over(link: Link, *, later_s: float) -> Link:
    """Another process, `later_s` later on a clock that starts anew."""
    heir = Link(started=False, fast_leave=True)
    heir.now = 5000.0 + later_s
    heir.router.restore(link.router.snapshot(link.now), heir.now)
    return heir


def test_state_survives_with_its_timers() -> None:
    """Goal: views are the same; every group is told anew; nothing of the old clock is left."""
    link = busy_link()
    heir = take_over(link, later_s=0.5)
    assert heir.router.groups(heir.now) == link.router.groups(link.now)
    assert heir.events() == {record.group: record.source_filter() for record in link.router._database.groups.values()}
    assert heir.router._database.sources_count == link.router._database.sources_count
    assert heir.router.counters == link.router.counters


@pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])
def test_the_next_process_asks_at_once_then_goes_on(names: Names) -> None:
    """Goal: what was said while nobody listened is asked for: one general query, no second start."""
    link = busy_link()
    heir = take_over(link, later_s=0.5)
    heir.router.start(heir.now)
    assert len(heir.queries(names, general=True)) == 1
    heir.advance(100.0)
    assert heir.queries(names, general=True) == []


def test_open_questions_are_repeated_and_end_in_time() -> None:
    """Goal: the pending repetition goes out, and the blocked source goes when its timer ends."""
    link = busy_link()
    heir = take_over(link, later_s=0.1)
    link.packets()
    heir.advance(1.0)
    (query,) = heir.queries(V6)
    assert (query.sources, query.suppress) == ((V6.sources[0],), False)
    heir.advance(1.0)
    record = heir.record(V6)
    assert record is not None
    assert set(record.requested) == {V6.sources[1]}


def test_a_lost_election_stays_lost() -> None:
    """Goal: the role, the adopted values and the Other Querier Present timer survive."""
    link = busy_link()
    link.query(V4, V4.lower_querier, Query(3, None, 10.0, robustness=3, query_interval_s=60.0))
    link.advance(10.0)
    heir = take_over(link, later_s=0.5)
    heir.router.start(heir.now)
    assert not heir.router.is_querier(ipv6=False)
    assert heir.side(V4).timing.membership_s == 3 * 60.0 + 20.0
    heir.advance(174.9)
    assert heir.queries(V4, general=True) == []
    heir.advance(0.1)
    assert len(heir.queries(V4, general=True)) == 1
    assert heir.side(V4).timing.robustness == 2


def test_an_older_router_is_remembered() -> None:
    """Goal: the version in force survives for as long as it had to run."""
    link = busy_link()
    link.query(V4, V4.higher_querier, Query(2, None, 10.0))
    heir = take_over(link, later_s=0.5)
    heir.router.start(heir.now)
    assert [query.version for query in heir.queries(V4, general=True)] == [2]
    heir.advance(255.0)
    assert heir.side(V4).version == 3


def test_what_is_no_snapshot_is_refused() -> None:
    """Goal: WireError("snapshot"), and the router is as it was."""
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
