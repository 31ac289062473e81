"""The forwarding table.  Goal: entries follow from routes, members, addresses and links, and each change has an effect.

Method: changes are applied to a dictionary in place of shared case; hypothesis compares random histories of inputs
with the same inputs drained once.
"""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import limits
from pipeline.address import NodeId, parse
from pipeline.forwarding.route import FibDelete, FibEntry, FibKey, Kind, RouteChanged, RouteKey, Side
from pipeline.forwarding.table import FLOOD_FAMILIES, ForwardingTable, Streams

GROUP = parse("239.1.2.3")
OTHER = parse("ff15::1")
SOURCE = parse("10.77.0.1")
HOST_GROUP = FibKey(Side.HOST, Kind.GROUP, GROUP)
OVERLAY_GROUP = FibKey(Side.OVERLAY, Kind.GROUP, GROUP)


class TableCase:
    """A ForwardingTable, and a dictionary to which its changes are applied."""

    def __init__(self, links: dict[NodeId, int] | None = None) -> None:
        self.table = ForwardingTable()
        self.entries: dict[FibKey, FibEntry] = {}
        for peer, link in (links or {}).items():
            self.table.set_link(peer, link)
            self.table.set_up(peer, up=True)

    def drain(self) -> list[FibEntry | FibDelete]:
        changes = []
        while (change := self.table.poll_change()) is not None:
            changes.append(change)
            if isinstance(change, FibDelete):
                del self.entries[change.key]
            else:
                assert self.entries.get(change.key) != change, "every change has an effect"
                self.entries[change.key] = change
        return changes

    def links_of(self, key: FibKey) -> set[int] | None:
        return set(self.entries[key].links) if key in self.entries else None


def route(next_hops: Iterable[NodeId] | None, **key: object) -> RouteChanged:
    name = RouteKey(**{"side": Side.HOST, "group": GROUP, **key})  # type: ignore[arg-type]
    return RouteChanged(name, None if next_hops is None else frozenset(next_hops), "test")


def test_flood_entries_exist_from_the_start() -> None:
    """Goal: link-scope groups are forwarded before any other input.  Method: drain a new table."""
    case = TableCase()
    case.drain()
    assert set(case.entries) == {FibKey(side, Kind.FLOOD, family) for side in Side for family in FLOOD_FAMILIES}
    assert all(entry.local == (entry.key.side is Side.OVERLAY) for entry in case.entries.values())


def test_entry_has_the_links_of_its_next_hops_that_are_up() -> None:
    """Goal: an entry names no link that is down or removed.  Method: links go up, down and away under a route."""
    case = TableCase({11: 0, 12: 5})
    case.table.set_link(13, 7)
    case.table.set_route(route({11, 12, 13, 14}))
    case.drain()
    assert case.links_of(HOST_GROUP) == {0, 5}
    case.table.set_up(13, up=True)
    case.table.set_up(11, up=False)
    case.drain()
    assert case.links_of(HOST_GROUP) == {5, 7}
    assert case.links_of(FibKey(Side.HOST, Kind.FLOOD, bytes(4))) == {5, 7}
    case.table.remove_link(13)
    case.drain()
    assert case.links_of(HOST_GROUP) == {5}


def test_empty_route_has_an_entry_and_ended_route_has_none() -> None:
    """Goal: a route to no node drops its packets; the end of a route deletes its entry."""
    case = TableCase({11: 0})
    case.table.set_route(route([], source=SOURCE))
    case.drain()
    key = FibKey(Side.HOST, Kind.GROUP, GROUP, SOURCE)
    assert case.links_of(key) == set()
    case.table.set_route(route(None, source=SOURCE))
    assert case.drain() == [FibDelete(key)]


def test_local_members_are_in_every_overlay_entry_of_their_group() -> None:
    """Goal: a packet reaches local members by whichever entry it is looked up."""
    case = TableCase({11: 0})
    case.table.set_route(route({11}, side=Side.OVERLAY, origin=9, via=11))
    case.drain()
    specific = FibKey(Side.OVERLAY, Kind.GROUP, GROUP, None, 9, 11)
    assert not case.entries[specific].local
    case.table.set_local(GROUP, True)
    case.drain()
    assert case.entries[specific].local
    assert case.entries[OVERLAY_GROUP].local
    case.table.set_local(GROUP, False)
    case.drain()
    assert OVERLAY_GROUP not in case.entries
    assert not case.entries[specific].local


def test_routes_and_members_of_link_scope_groups_are_ignored() -> None:
    """Goal: link-scope groups are always flooded.  Method: a member and a route for such groups change nothing."""
    case = TableCase({11: 0})
    case.drain()
    case.table.set_local(parse("224.0.0.251"), True)
    case.table.set_route(route({11}, group=parse("ff02::fb")))
    assert case.drain() == []


def test_unicast_entry_leads_to_the_owner_while_its_link_is_up() -> None:
    """Goal: an overlay address has an entry on the right side only.  Method: links and owners change."""
    case = TableCase({11: 3})
    own, other = parse("10.77.0.9"), parse("10.77.0.8")
    case.table.set_address_owners({own: 1, other: 11}, own=1)
    case.drain()
    host, overlay = FibKey(Side.HOST, Kind.UNICAST, other), FibKey(Side.OVERLAY, Kind.UNICAST, own)
    assert case.links_of(host) == {3}
    assert case.entries[overlay].local
    assert FibKey(Side.HOST, Kind.UNICAST, own) not in case.entries
    assert FibKey(Side.OVERLAY, Kind.UNICAST, other) not in case.entries
    case.table.set_up(11, up=False)
    case.drain()
    assert host not in case.entries
    case.table.set_up(11, up=True)
    case.table.set_address_owners({own: 11}, own=1)
    case.drain()
    assert overlay not in case.entries
    assert case.links_of(FibKey(Side.HOST, Kind.UNICAST, own)) == {3}


def test_entries_are_set_before_others_are_deleted() -> None:
    """Goal: a source always has either its old or its new route."""
    case = TableCase({11: 0})
    case.table.set_route(route({11}, source=SOURCE))
    case.drain()
    case.table.set_route(route(None, source=SOURCE))
    case.table.set_route(route({11}))
    assert [type(change) for change in case.drain()] == [FibEntry, FibDelete]


def test_input_that_is_taken_back_writes_nothing() -> None:
    """Goal: only differences reach shared memory.  Method: a route and a link change and change back before a drain."""
    case = TableCase({11: 0})
    case.table.set_route(route({11}))
    case.drain()
    case.table.set_route(route(None))
    case.table.set_up(11, up=False)
    case.table.set_up(11, up=True)
    case.table.set_route(route({11}))
    assert case.drain() == []


GROUPS = st.sampled_from([GROUP, OTHER])
ANY_OR_ONE = st.sampled_from([None, SOURCE])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("route"), GROUPS, ANY_OR_ONE, st.sets(st.integers(11, 13))),
        st.tuples(st.just("end"), GROUPS, ANY_OR_ONE),
        st.tuples(st.just("up"), st.integers(11, 13), st.booleans()),
        st.tuples(st.just("local"), st.sampled_from([GROUP, OTHER]), st.booleans()),
        st.tuples(st.just("owners"), st.dictionaries(st.sampled_from([SOURCE, parse("fd77::1")]), st.integers(10, 13))),
        st.tuples(st.just("drain")),
    ),
    max_size=40,
)  # fmt: skip


def apply(table: ForwardingTable, step: tuple[object, ...]) -> None:
    match step:
        case ("route", group, source, set() as hops):
            table.set_route(route(hops, group=group, source=source))
        case ("end", group, source):
            table.set_route(route(None, group=group, source=source))
        case ("up", int(peer), bool(up)):
            table.set_up(peer, up=up)
        case ("local", bytes(group), bool(is_member)):
            table.set_local(group, is_member)
        case ("owners", dict() as owners):
            table.set_address_owners(owners, own=10)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_entries_do_not_depend_on_when_changes_are_drained(steps: list[tuple[object, ...]]) -> None:
    """Goal: the entries follow from the inputs alone.  Method: random inputs, drained between and only at the end."""
    links = {11: 0, 12: 1, 13: 2}
    step_by_step, at_once = TableCase(links), TableCase(links)
    for step in steps:
        apply(step_by_step.table, step)
        apply(at_once.table, step)
        if step == ("drain",):
            step_by_step.drain()
    step_by_step.drain()
    at_once.drain()

    def plain(case: TableCase) -> dict[FibKey, tuple[frozenset[int], bool]]:
        return {key: (entry.links, entry.local) for key, entry in case.entries.items()}

    assert plain(step_by_step) == plain(at_once)
    assert {entry.key: entry for entry in step_by_step.table.entries()} == step_by_step.entries


def test_adopted_entries_stay_until_they_are_replaced_or_expire() -> None:
    """Goal: a restart of control interrupts no stream.  Method: adopt two entries, replace one, expire the other."""
    case = TableCase()
    stale, kept = FibKey(Side.HOST, Kind.GROUP, OTHER), HOST_GROUP
    for key, stream in ((stale, 4), (kept, 9)):
        case.entries[key] = FibEntry(key, frozenset({0}), local=False, stream=stream, why="")
    case.table.adopt((key, entry.stream) for key, entry in list(case.entries.items()))
    case.drain()
    assert {stale, kept} <= case.entries.keys()
    case.table.set_link(11, 0)
    case.table.set_up(11, up=True)
    case.table.set_route(route({11}))
    case.drain()
    assert case.entries[kept].why == "test", "an adopted entry is always written again"
    assert case.entries[kept].stream == 9, "and keeps its stream number"
    case.table.expire_adopted()
    assert case.drain() == [FibDelete(stale)]
    case.table.set_route(route({11}, group=OTHER))
    case.drain()
    assert case.entries[stale].stream not in (0, 9)


def test_stream_number_belongs_to_a_group_and_is_reused_last() -> None:
    """Goal: receivers have forgotten a stream before its number is used again."""
    case = TableCase({11: 0})
    case.table.set_route(route({11}))
    case.table.set_route(route([], source=SOURCE))
    case.table.set_route(route({11}, group=OTHER))
    case.drain()
    specific, other = FibKey(Side.HOST, Kind.GROUP, GROUP, SOURCE), FibKey(Side.HOST, Kind.GROUP, OTHER)
    first, second = case.entries[HOST_GROUP].stream, case.entries[other].stream
    assert case.entries[specific].stream == first
    assert {first, second} == {1, 2}
    case.table.set_route(route(None))
    case.table.set_route(route(None, source=SOURCE))
    case.drain()
    case.table.set_route(route({11}))
    case.drain()
    assert case.entries[HOST_GROUP].stream == 3


def test_shared_stream_number_is_used_when_all_others_are_taken() -> None:
    """Goal: more groups than stream numbers are forwarded all the same.  Method: acquire one number too many."""
    streams = Streams()
    keys = [FibKey(Side.HOST, Kind.GROUP, number.to_bytes(4)) for number in range(limits.STREAMS_MAX + 1)]
    assert [streams.acquire(key) for key in keys] == [*range(1, limits.STREAMS_MAX + 1), 0]
    streams.release(keys[0])
    assert streams.acquire(keys[-1]) == 1


def test_stripes_are_written_before_the_entry_with_their_number() -> None:
    """Goal: every stripe that a datagram may take has an entry.  Method: to three stripes and back."""
    case = TableCase({11: 0, 12: 1, 13: 2})
    sets = frozenset({11}), frozenset({12}), frozenset({13})
    case.table.set_route(RouteChanged(RouteKey(Side.OVERLAY, GROUP, via=11), sets[0], "test", sets[1:]))
    entries = [change for change in case.drain() if isinstance(change, FibEntry) and change.key.kind is Kind.GROUP]
    written = [(entry.key.stripe, set(entry.links), entry.stripes) for entry in entries]
    assert written == [(2, {2}, 1), (1, {1}, 1), (0, {0}, 3)]
    case.table.set_route(RouteChanged(RouteKey(Side.OVERLAY, GROUP, via=11), sets[0], "test"))
    changes = case.drain()
    assert isinstance(changes[0], FibEntry)
    assert changes[0].stripes == 1
    assert {change.key.stripe for change in changes[1:]} == {1, 2}


def test_repaired_stream_has_one_number_on_both_sides() -> None:
    """Goal: gaps and resends name the same stream.  Method: routes with and without repair on both sides."""
    case = TableCase({11: 0})
    for side in Side:
        case.table.set_route(RouteChanged(RouteKey(side, GROUP), frozenset({11}), "test", repairs=True))
    case.drain()
    number = case.table.stream_of(GROUP)
    assert number
    assert case.table.group_of(number) == GROUP
    assert all(case.entries[key].stream == number for key in (HOST_GROUP, OVERLAY_GROUP))
    assert all(case.entries[key].repairs for key in (HOST_GROUP, OVERLAY_GROUP))
    case.table.set_route(RouteChanged(RouteKey(Side.OVERLAY, GROUP), frozenset({11}), "test"))
    case.drain()
    assert (case.entries[OVERLAY_GROUP].stream, case.entries[OVERLAY_GROUP].repairs) == (0, False)
    case.table.set_route(RouteChanged(RouteKey(Side.HOST, GROUP), None, "test"))
    case.drain()
    assert case.table.stream_of(GROUP) is None
    assert case.table.group_of(number) is None
