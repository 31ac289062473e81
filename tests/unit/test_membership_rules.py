"""Goal: the state tables of RFC 9776 §6.4 and RFC 9777 §7.4, row by row, in both families, with their timers, their
queries and the events.  Method: for each row a state is brought about by reports, one report follows, and every set
and timer is compared with values worked out here by hand; then a small model written from the RFC's prose, not from the
table, is driven beside the router by hypothesis."""

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
    """A row of the tables, worked out for A = {0,1} in INCLUDE, X = {0,1} and Y = {2,3} in EXCLUDE.

    Timers before: 0 and 1 (and the group) were set 100 s ago.  `timers` are what remains after: GMI, LMQT, or OLD for
    one that the row does not touch.  Queries: sets of sources, "G" for the group-specific one.
    """

    state: FilterMode
    kind: RecordType
    told: tuple[int, ...]
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
    # the same with empty lists, and leaves as most hosts say them
    Row(INCLUDE, IS_EX, (), EXCLUDE, {}, set(), GMI),
    Row(INCLUDE, TO_IN, (), INCLUDE, {0: LMQT, 1: LMQT}, queried=({0, 1},)),
    Row(INCLUDE, BLOCK, (0, 1), INCLUDE, {0: LMQT, 1: LMQT}, queried=({0, 1},)),
    Row(EXCLUDE, IS_EX, (), EXCLUDE, {}, set(), GMI),
    Row(EXCLUDE, TO_EX, (), EXCLUDE, {}, set(), GMI),
    Row(EXCLUDE, TO_IN, (), EXCLUDE, {0: LMQT, 1: LMQT}, {2, 3}, LMQT, queried=("G", {0, 1})),
    Row(EXCLUDE, BLOCK, (2, 3), EXCLUDE, {0: OLD, 1: OLD}, {2, 3}, OLD),
]


def bring_about(link: Link, names: Names, state: FilterMode) -> None:
    """INCLUDE({0,1}) or EXCLUDE({0,1},{2,3}) with timers set 100 s ago."""
    if state is EXCLUDE:
        assert link.report(names, IS_EX, 2, 3) is None
    assert link.report(names, ALLOW, 0, 1) is None
    link.advance(100.0)
    link.packets()
    link.events()


def test_every_pair_of_state_and_record_has_a_row() -> None:
    """Goal: the tables are whole: 2 states × 6 record types, each in ROWS as in the program."""
    assert len(CURRENT_STATE_ROWS + STATE_CHANGE_ROWS) == 12
    assert {(row.state, row.kind) for row in ROWS} == {(mode, kind) for mode in FilterMode for kind in RecordType}
    assert all(RULES[row.state][row.kind].mode is row.mode for row in ROWS)


@pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.state}-{row.kind.name}-{len(row.told)}")
def test_row(row: Row, names: Names) -> None:
    """Goal: one row: sets, timers, queries, event.  Method: the state, one report, everything compared."""
    link = Link()
    bring_about(link, names, row.state)
    assert link.report(names, row.kind, *row.told) is None
    record = link.record(names)
    assert record is not None
    assert record.mode is row.mode
    timers = {source: deadline - link.now for source, deadline in record.requested.items()}
    assert timers == {names.sources[i]: seconds for i, seconds in row.timers.items()}
    assert record.excluded == {names.sources[i] for i in row.excluded}
    if row.group_timer is not None:
        assert record.group_deadline - link.now == row.group_timer
    asked: list[object] = []
    for query in link.queries(names):
        assert query.group == names.group
        assert not query.suppress
        assert (query.robustness, query.query_interval_s, query.max_response_s) == (2, 125.0, 1.0)
        asked.append({names.sources.index(source) for source in query.sources} or "G")
    assert asked == list(row.queried)
    before = {0, 1} if row.state is INCLUDE else {2, 3}
    after = set(row.timers) if row.mode is INCLUDE else row.excluded
    merged = SourceFilter(row.mode, frozenset(names.sources[i] for i in after))
    changed = row.mode is not row.state or after != before
    assert link.events() == ({names.group: merged} if changed else {})


@pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])
def test_group_timer_out_leaves_the_requested_sources(names: Names) -> None:
    """Goal: RFC 9776 §6.5: EXCLUDE(X,Y) becomes INCLUDE(X) with the sources still running."""
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
def test_group_timer_out_without_sources_ends_the_group(names: Names) -> None:
    """Goal: §6.5: EXCLUDE({},Y) is gone, at the Group Membership Interval and no sooner."""
    link = Link()
    link.report(names, TO_EX, 2)
    link.events()
    link.advance(GMI - 0.001)
    assert link.events() == {}
    link.advance(0.001)
    assert link.events() == {names.group: None}


@pytest.mark.parametrize("names", BOTH, ids=["igmp", "mld"])
def test_requested_source_out_in_exclude_is_excluded(names: Names) -> None:
    """Goal: §6.3: in EXCLUDE a source whose timer runs out moves from X to Y."""
    link = Link()
    link.report(names, IS_EX, 2)
    link.report(names, ALLOW, 0)
    link.advance(GMI - 10.0)
    link.report(names, IS_EX, 2, 0)
    link.events()
    link.advance(10.0)
    assert link.events() == {names.group: SourceFilter(EXCLUDE, frozenset(names.sources[i] for i in (0, 2)))}


def test_views_and_events_name_merged_state() -> None:
    """Goal: `show groups` in both modes and the event of a join.  Method: one group of each mode, one family each."""
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


def test_the_trace_names_the_row() -> None:
    """Goal: the trace says which rule fired, in the RFC's words."""
    link = Link()
    seen: list[str] = []
    link.router.trace = lambda event: seen.append(event.rule) if event.group else None
    link.report(V4, TO_EX)
    link.advance(GMI)
    assert seen == [
        "INCLUDE (A) + TO_EX (B) -> EXCLUDE (A*B,B-A): (B-A)=0, Delete (A-B), Send Q(G,A*B), Group Timer=GMI",
        "timers expired",
    ]


@dataclass
class Model:
    """One group as RFC 9776 §6.4 tells it, by sources instead of sets: each is a float (its timer's end), 0 for an
    excluded one, or absent.  Specific queries appear as what they do to timers."""

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

    def hear(self, kind: RecordType, told: frozenset[Address]) -> None:
        fresh, lowered = self.now + GMI, self.now + LMQT
        excluding = self.group_until is not None
        asked: set[Address] = set()
        if kind in (IS_IN, ALLOW, TO_IN):
            if kind is TO_IN:
                asked = {source for source, until in self.sources.items() if until > 0 and source not in told}
            self.sources |= dict.fromkeys(told, fresh)
        elif kind is BLOCK:
            asked = {source for source in told if self.sources.get(source, 0) > 0}
            if excluding:
                assert self.group_until is not None
                new = told - self.sources.keys()
                self.sources |= dict.fromkeys(new, self.group_until)
                asked |= new
        else:
            new = told - self.sources.keys()
            first = 0.0 if not excluding else fresh if kind is IS_EX else self.group_until
            assert first is not None
            self.sources = {source: until for source, until in self.sources.items() if source in told}
            self.sources |= dict.fromkeys(new, first)
            asked = {source for source, until in self.sources.items() if until > 0} if kind is TO_EX else set()
            self.group_until = fresh
        for source in asked:
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
def test_against_the_model(names: Names, steps: list[tuple[RecordType, frozenset[int], float]]) -> None:
    """Goal: any run of reports and pauses leaves the router and the model with the same sets and timers, and the
    events add up to the merged state.  Method: hypothesis; times are exact in binary, so they compare equal."""
    link = Link()
    model = Model(link.now)
    wanted: SourceFilter | None = None
    for kind, indices, pause in steps:
        link.report(names, kind, *indices)
        model.hear(kind, frozenset(names.sources[i] for i in indices))
        link.advance(pause)
        model.advance(pause)
        record = link.record(names)
        running = {source: until for source, until in model.sources.items() if until > 0}
        wanted = link.events().get(names.group, wanted)
        if model.group_until is None and not running:
            assert record is None
            assert wanted is None
            continue
        assert record is not None
        assert record.requested == running
        assert record.excluded == model.sources.keys() - running.keys()
        assert (record.group_deadline if record.mode is EXCLUDE else None) == model.group_until
        assert wanted == record.source_filter()
