"""State tables.  Goal: each row of RFC 9776 §6.4 and RFC 9777 §7.4, in both families, with its timers, queries and
event.

Method: for each row, reports set up a state, one report follows, and every set and timer is compared with values that
are computed here by hand.  Then hypothesis drives the router and a small model, which follows the RFC's prose instead
of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.address import Address, FilterMode, SourceFilter
from pipeline.membership.rules import CURRENT_STATE_ROWS, RULES, STATE_CHANGE_ROWS
from pipeline.wire.report import RecordType
from tests.unit.membership_link import BOTH, V4, V6, Link, Names

GMI, LMQT = 270.0, 2.0
INCLUDE, EXCLUDE = FilterMode.INCLUDE, FilterMode.EXCLUDE
IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = RecordType


@dataclass(frozen=True)
class Row:
    """A row of the tables, computed for A = {0,1} in INCLUDE, X = {0,1} and Y = {2,3} in EXCLUDE.

    The timers of 0, of 1 and of the group were set 100 s before.  `timers` are the remaining times afterwards: GMI,
    LMQT, or OLD for a timer that the row does not change.  `queried` has a set for each source query, "G" for a group
    query.
    """

    state: FilterMode
    kind: RecordType
    sources: tuple[int, ...]
    mode: FilterMode
    timers: dict[int, float]
    excluded: set[int] = field(default_factory=set)
    group_timer: float | None = None
    queried: tuple[object, ...] = ()


OLD = GMI - 100.0

ROWS = [
    # RFC 9776 §6.4.1
    Row(INCLUDE, IS_IN, (1, 4), INCLUDE, {0: OLD, 1: GMI, 4: GMI}),
    Row(INCLUDE, IS_EX, (1, 4), EXCLUDE, {1: OLD}, {4}, GMI),
    Row(EXCLUDE, IS_IN, (1, 2, 4), EXCLUDE, {0: OLD, 1: GMI, 2: GMI, 4: GMI}, {3}, OLD),
    Row(EXCLUDE, IS_EX, (1, 2, 4), EXCLUDE, {1: OLD, 4: GMI}, {2}, GMI),
    # §6.4.2
    Row(INCLUDE, ALLOW, (1, 4), INCLUDE, {0: OLD, 1: GMI, 4: GMI}),
    Row(INCLUDE, BLOCK, (1, 4), INCLUDE, {0: OLD, 1: LMQT}, queried=({1},)),
    Row(INCLUDE, TO_EX, (1, 4), EXCLUDE, {1: LMQT}, {4}, GMI, queried=({1},)),
    Row(INCLUDE, TO_IN, (1, 4), INCLUDE, {0: LMQT, 1: GMI, 4: GMI}, queried=({0},)),
    Row(EXCLUDE, ALLOW, (1, 2, 4), EXCLUDE, {0: OLD, 1: GMI, 2: GMI, 4: GMI}, {3}, OLD),
    Row(EXCLUDE, BLOCK, (1, 2, 4), EXCLUDE, {0: OLD, 1: LMQT, 4: LMQT}, {2, 3}, OLD, queried=({1, 4},)),
    Row(EXCLUDE, TO_EX, (1, 2, 4), EXCLUDE, {1: LMQT, 4: LMQT}, {2}, GMI, queried=({1, 4},)),
    Row(EXCLUDE, TO_IN, (1, 2, 4), EXCLUDE, {0: LMQT, 1: GMI, 2: GMI, 4: GMI}, {3}, LMQT, queried=("G", {0})),
    # the same with empty lists, and leaves as most hosts send them
    Row(INCLUDE, IS_EX, (), EXCLUDE, {}, set(), GMI),
    Row(INCLUDE, TO_IN, (), INCLUDE, {0: LMQT, 1: LMQT}, queried=({0, 1},)),
    Row(INCLUDE, BLOCK, (0, 1), INCLUDE, {0: LMQT, 1: LMQT}, queried=({0, 1},)),
    Row(EXCLUDE, IS_EX, (), EXCLUDE, {}, set(), GMI),
    Row(EXCLUDE, TO_EX, (), EXCLUDE, {}, set(), GMI),
    Row(EXCLUDE, TO_IN, (), EXCLUDE, {0: LMQT, 1: LMQT}, {2, 3}, LMQT, queried=("G", {0, 1})),
    Row(EXCLUDE, BLOCK, (2, 3), EXCLUDE, {0: OLD, 1: OLD}, {2, 3}, OLD),
]


def set_up(link: Link, names: Names, state: FilterMode) -> None:
    """Set up INCLUDE({0,1}) or EXCLUDE({0,1},{2,3}) with timers that were set 100 s before."""
    if state is EXCLUDE:
        assert link.report(names, IS_EX, 2, 3) is None
    assert link.report(names, ALLOW, 0, 1) is None
    link.advance(100.0)
    link.packets()
    link.events()


def test_every_pair_of_state_and_record_has_a_row() -> None:
    """Goal: the tables are complete: 2 states and 6 record types, in ROWS as in the program."""
    assert len(CURRENT_STATE_ROWS + STATE_CHANGE_ROWS) == 12
    assert {(row.state, row.kind) for row in ROWS} == {(mode, kind) for mode in FilterMode for kind in RecordType}
    assert all(RULES[row.state][row.kind].mode is row.mode for row in ROWS)


@pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.state}-{row.kind.name}-{len(row.sources)}")
def test_row(row: Row, names: Names) -> None:
    """Goal: sets, timers, queries and event of one row.  Method: set up the state, send one report, compare
    everything."""
    link = Link()
    set_up(link, names, row.state)
    assert link.report(names, row.kind, *row.sources) is None
    state = link.state(names)
    assert state is not None
    assert state.mode is row.mode
    timers = {source: deadline - link.now for source, deadline in state.requested.items()}
    assert timers == {names.sources[i]: seconds for i, seconds in row.timers.items()}
    assert state.excluded == {names.sources[i] for i in row.excluded}
    if row.group_timer is not None:
        assert state.group_deadline - link.now == row.group_timer
    queried: list[object] = []
    for query in link.queries(names):
        assert query.group == names.group
        assert not query.suppress
        assert (query.robustness, query.query_interval_s, query.max_response_s) == (2, 125.0, 1.0)
        queried.append({names.sources.index(source) for source in query.sources} or "G")
    assert queried == list(row.queried)
    before = {0, 1} if row.state is INCLUDE else {2, 3}
    after = set(row.timers) if row.mode is INCLUDE else row.excluded
    merged = SourceFilter(row.mode, frozenset(names.sources[i] for i in after))
    changed = row.mode is not row.state or after != before
    assert link.events() == ({names.group: merged} if changed else {})


@pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])
def test_group_timer_expiry_leaves_the_requested_sources(names: Names) -> None:
    """Goal: EXCLUDE(X,Y) becomes INCLUDE(X) with the sources that still run (RFC 9776 §6.5)."""
    link = Link()
    link.report(names, IS_EX, 2)
    link.advance(50.0)
    link.report(names, ALLOW, 0)
    link.advance(GMI - 50.0)
    assert link.events() == {names.group: SourceFilter(INCLUDE, frozenset({names.sources[0]}))}
    (view,) = link.router.groups(link.now)
    assert (view.filter_mode, view.sources, view.requested, view.expires_s) == (INCLUDE, (names.sources[0],), (), 50.0)
    link.advance(50.0)
    assert link.events() == {names.group: None}
    assert link.router.groups(link.now) == []


@pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])
def test_group_timer_expiry_without_sources_ends_the_group(names: Names) -> None:
    """Goal: EXCLUDE({},Y) ends at the Group Membership Interval and not earlier (§6.5)."""
    link = Link()
    link.report(names, TO_EX, 2)
    link.events()
    link.advance(GMI - 0.001)
    assert link.events() == {}
    link.advance(0.001)
    assert link.events() == {names.group: None}


@pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])
def test_expired_source_in_exclude_mode_is_excluded(names: Names) -> None:
    """Goal: in EXCLUDE a source moves from X to Y when its timer expires (§6.3)."""
    link = Link()
    link.report(names, IS_EX, 2)
    link.report(names, ALLOW, 0)
    link.advance(GMI - 10.0)
    link.report(names, IS_EX, 2, 0)
    link.events()
    link.advance(10.0)
    assert link.events() == {names.group: SourceFilter(EXCLUDE, frozenset(names.sources[i] for i in (0, 2)))}


def test_views_and_events_have_the_merged_state() -> None:
    """Goal: `show groups` in both modes, and the event of a join.  Method: a group of each mode, one in each family."""
    link = Link()
    link.report(V4, IS_EX, 2, 3)
    link.report(V4, ALLOW, 0)
    link.report(V6, IS_IN, 1, 0)
    assert link.events() == {
        V4.group: SourceFilter(EXCLUDE, frozenset({V4.sources[2], V4.sources[3]})),
        V6.group: SourceFilter(INCLUDE, frozenset({V6.sources[0], V6.sources[1]})),
    }
    first, second = link.router.groups(link.now)
    assert (first.group, first.filter_mode, first.sources, first.requested) == (
        V4.group,
        EXCLUDE,
        (V4.sources[2], V4.sources[3]),
        (V4.sources[0],),
    )
    assert (first.compatibility, first.expires_s) == ("IGMPv3", 270.0)
    assert (second.group, second.filter_mode, second.sources) == (V6.group, INCLUDE, V6.sources[:2])
    assert (second.compatibility, second.expires_s) == ("MLDv2", 270.0)


def test_trace_has_the_row_in_the_words_of_the_rfc() -> None:
    """Goal: the trace shows which rule fired."""
    link = Link()
    rules: list[str] = []
    link.router.trace = lambda event: rules.append(event.rule) if event.group else None
    link.report(V4, TO_EX)
    link.advance(GMI)
    assert rules == [
        "INCLUDE (A) + TO_EX (B) -> EXCLUDE (A*B,B-A): (B-A)=0, Delete (A-B), Send Q(G,A*B), Group Timer=GMI",
        "timers expired",
    ]


@dataclass
class Model:
    """One group by the prose of RFC 9776 §6.4.  Each source has the end of its timer, or 0 if it is excluded.

    Specific queries appear by their effect on timers.
    """

    now: float
    sources: dict[Address, float] = field(default_factory=dict)
    group_until: float | None = None  # None: INCLUDE

    def advance(self, seconds: float) -> None:
        self.now += seconds
        ends = sorted({end for end in (*self.sources.values(), self.group_until or 0.0) if 0 < end <= self.now})
        for end in ends:
            for source in [source for source, until in self.sources.items() if 0 < until <= end]:
                self.sources[source] = 0.0
            if self.group_until is not None and self.group_until <= end:
                self.group_until = None
            if self.group_until is None:
                self.sources = {source: until for source, until in self.sources.items() if until > 0}

    def apply(self, kind: RecordType, listed: frozenset[Address]) -> None:
        membership_until, lowered = self.now + GMI, self.now + LMQT
        is_excluding = self.group_until is not None
        queried: set[Address] = set()
        if kind in (IS_IN, ALLOW, TO_IN):
            if kind is TO_IN:
                queried = {source for source, until in self.sources.items() if until > 0 and source not in listed}
            self.sources |= dict.fromkeys(listed, membership_until)
        elif kind is BLOCK:
            queried = {source for source in listed if self.sources.get(source, 0) > 0}
            if is_excluding:
                assert self.group_until is not None
                new = listed - self.sources.keys()
                self.sources |= dict.fromkeys(new, self.group_until)
                queried |= new
        else:
            new = listed - self.sources.keys()
            first = 0.0 if not is_excluding else membership_until if kind is IS_EX else self.group_until
            assert first is not None
            self.sources = {source: until for source, until in self.sources.items() if source in listed}
            self.sources |= dict.fromkeys(new, first)
            queried = {source for source, until in self.sources.items() if until > 0} if kind is TO_EX else set()
            self.group_until = membership_until
        for source in queried:
            self.sources[source] = min(self.sources[source], lowered)
        if kind is TO_IN and self.group_until is not None:
            self.group_until = min(self.group_until, lowered)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(RecordType),
        st.frozensets(st.integers(0, 4), max_size=4),
        st.sampled_from([0.0, 0.5, 1.0, 2.0, 100.0, 200.0, 269.0]),
    ),
    min_size=1,
    max_size=12,
)


@given(names=st.sampled_from(BOTH), steps=STEPS)
@settings(deadline=None)
def test_router_agrees_with_the_model(names: Names, steps: list[tuple[RecordType, frozenset[int], float]]) -> None:
    """Goal: after any reports and pauses router and model have the same sets and timers, and the events give the state.
    Method: hypothesis; the times are exact in binary, so that they compare equal."""
    link = Link()
    model = Model(link.now)
    published: SourceFilter | None = None
    for kind, indices, pause in steps:
        link.report(names, kind, *indices)
        model.apply(kind, frozenset(names.sources[i] for i in indices))
        link.advance(pause)
        model.advance(pause)
        state = link.state(names)
        running = {source: until for source, until in model.sources.items() if until > 0}
        published = link.events().get(names.group, published)
        if model.group_until is None and not running:
            assert state is None
            assert published is None
            continue
        assert state is not None
        assert state.requested == running
        assert state.excluded == model.sources.keys() - running.keys()
        assert (state.group_deadline if state.mode is EXCLUDE else None) == model.group_until
        assert published == state.source_filter()
