"""Goal: shared memory holds what routes, members, hosts and links ask for, with no change that changes nothing.

Method: changes applied to a dictionary as C's table would; hypothesis compares any history with its end made afresh.
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


class Memory:
    """A ForwardingTable, and what its changes make of an empty table."""

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
                assert self.entries.get(change.key) != change, "a change changes something"
                self.entries[change.key] = change
        return changes

    def links_of(self, key: FibKey) -> set[int] | None:
        return set(self.entries[key].links) if key in self.entries else None


def route(next_hops: Iterable[NodeId] | None, **key: object) -> RouteChanged:
    name = RouteKey(**{"side": Side.HOST, "group": GROUP, **key})  # type: ignore[arg-type]
    return RouteChanged(name, None if next_hops is None else frozenset(next_hops), "test")


def test_floods_stand_from_the_start() -> None:
    memory = Memory()
    memory.drain()
    assert set(memory.entries) == {FibKey(side, Kind.FLOOD, family) for side in Side for family in FLOOD_FAMILIES}
    assert all(entry.local == (entry.key.side is Side.OVERLAY) for entry in memory.entries.values())


def test_routes_become_links_that_are_up() -> None:
    memory = Memory({11: 0, 12: 5})
    memory.table.set_link(13, 7)
    memory.table.set_route(route({11, 12, 13, 14}))
    memory.drain()
    assert memory.links_of(HOST_GROUP) == {0, 5}
    memory.table.set_up(13, up=True)
    memory.table.set_up(11, up=False)
    memory.drain()
    assert memory.links_of(HOST_GROUP) == {5, 7}
    assert memory.links_of(FibKey(Side.HOST, Kind.FLOOD, bytes(4))) == {5, 7}
    memory.table.remove_link(13)
    memory.drain()
    assert memory.links_of(HOST_GROUP) == {5}


def test_empty_routes_stand_and_gone_ones_go() -> None:
    memory = Memory({11: 0})
    memory.table.set_route(route([], source=SOURCE))
    memory.drain()
    key = FibKey(Side.HOST, Kind.GROUP, GROUP, SOURCE)
    assert memory.links_of(key) == set()
    memory.table.set_route(route(None, source=SOURCE))
    assert memory.drain() == [FibDelete(key)]


def test_members_on_this_host_are_delivered_to_by_every_overlay_entry() -> None:
    memory = Memory({11: 0})
    memory.table.set_route(route({11}, side=Side.OVERLAY, origin=9, via=11))
    memory.drain()
    specific = FibKey(Side.OVERLAY, Kind.GROUP, GROUP, None, 9, 11)
    assert not memory.entries[specific].local
    memory.table.set_local(GROUP, True)
    memory.drain()
    assert memory.entries[specific].local
    assert memory.entries[OVERLAY_GROUP].local
    memory.table.set_local(GROUP, False)
    memory.drain()
    assert OVERLAY_GROUP not in memory.entries
    assert not memory.entries[specific].local


def test_link_scope_is_flooded_whatever_is_said_of_it() -> None:
    memory = Memory({11: 0})
    memory.drain()
    memory.table.set_local(parse("224.0.0.251"), True)
    memory.table.set_route(route({11}, group=parse("ff02::fb")))
    assert memory.drain() == []


def test_unicast_goes_to_the_owner_while_it_is_up() -> None:
    memory = Memory({11: 3})
    mine, theirs = parse("10.77.0.9"), parse("10.77.0.8")
    memory.table.set_address_owners({mine: 1, theirs: 11}, own=1)
    memory.drain()
    host, overlay = FibKey(Side.HOST, Kind.UNICAST, theirs), FibKey(Side.OVERLAY, Kind.UNICAST, mine)
    assert memory.links_of(host) == {3}
    assert memory.entries[overlay].local
    assert FibKey(Side.HOST, Kind.UNICAST, mine) not in memory.entries
    assert FibKey(Side.OVERLAY, Kind.UNICAST, theirs) not in memory.entries
    memory.table.set_up(11, up=False)
    memory.drain()
    assert host not in memory.entries
    memory.table.set_up(11, up=True)
    memory.table.set_address_owners({mine: 11}, own=1)
    memory.drain()
    assert overlay not in memory.entries
    assert memory.links_of(FibKey(Side.HOST, Kind.UNICAST, mine)) == {3}


def test_entries_are_set_before_others_are_deleted() -> None:
    memory = Memory({11: 0})
    memory.table.set_route(route({11}, source=SOURCE))
    memory.drain()
    memory.table.set_route(route(None, source=SOURCE))
    memory.table.set_route(route({11}))
    assert [type(change) for change in memory.drain()] == [FibEntry, FibDelete]


def test_what_changes_and_changes_back_is_not_written() -> None:
    memory = Memory({11: 0})
    memory.table.set_route(route({11}))
    memory.drain()
    memory.table.set_route(route(None))
    memory.table.set_up(11, up=False)
    memory.table.set_up(11, up=True)
    memory.table.set_route(route({11}))
    assert memory.drain() == []


GROUPS = st.sampled_from([GROUP, OTHER])
ANY_OR_ONE = st.sampled_from([None, SOURCE])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("route"), GROUPS, ANY_OR_ONE, st.sets(st.integers(11, 13))),
        st.tuples(st.just("gone"), GROUPS, ANY_OR_ONE),
        st.tuples(st.just("up"), st.integers(11, 13), st.booleans()),
        st.tuples(st.just("local"), st.sampled_from([GROUP, OTHER]), st.booleans()),
        st.tuples(st.just("hosts"), st.dictionaries(st.sampled_from([SOURCE, parse("fd77::1")]), st.integers(10, 13))),
        st.tuples(st.just("drain")),
    ),
    max_size=40,
)  # fmt: skip


def apply(table: ForwardingTable, step: tuple[object, ...]) -> None:
    match step:
        case ("route", group, source, set() as hops):
            table.set_route(route(hops, group=group, source=source))
        case ("gone", group, source):
            table.set_route(route(None, group=group, source=source))
        case ("up", int(peer), bool(up)):
            table.set_up(peer, up=up)
        case ("local", bytes(group), bool(is_member)):
            table.set_local(group, is_member)
        case ("hosts", dict() as hosts):
            table.set_address_owners(hosts, own=10)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_any_history_ends_as_if_it_were_drained_once(steps: list[tuple[object, ...]]) -> None:
    links = {11: 0, 12: 1, 13: 2}
    step_by_step, at_once = Memory(links), Memory(links)
    for step in steps:
        apply(step_by_step.table, step)
        apply(at_once.table, step)
        if step == ("drain",):
            step_by_step.drain()
    step_by_step.drain()
    at_once.drain()

    def plain(memory: Memory) -> dict[FibKey, tuple[frozenset[int], bool]]:
        return {key: (entry.links, entry.local) for key, entry in memory.entries.items()}

    assert plain(step_by_step) == plain(at_once)
    assert {entry.key: entry for entry in step_by_step.table.entries()} == step_by_step.entries


def test_adopted_entries_stand_until_they_are_replaced_or_expire() -> None:
    memory = Memory()
    stale, kept = FibKey(Side.HOST, Kind.GROUP, OTHER), HOST_GROUP
    for key, stream in ((stale, 4), (kept, 9)):
        memory.entries[key] = FibEntry(key, frozenset({0}), local=False, stream=stream, why="")
    memory.table.adopt((key, entry.stream) for key, entry in list(memory.entries.items()))
    memory.drain()
    assert {stale, kept} <= memory.entries.keys()
    memory.table.set_link(11, 0)
    memory.table.set_up(11, up=True)
    memory.table.set_route(route({11}))
    memory.drain()
    assert memory.entries[kept].why == "test", "an adopted entry is always written anew"
    assert memory.entries[kept].stream == 9, "and goes on counting where it was"
    memory.table.expire_adopted()
    assert memory.drain() == [FibDelete(stale)]
    memory.table.set_route(route({11}, group=OTHER))
    memory.drain()
    assert memory.entries[stale].stream not in (0, 9)


def test_streams_are_given_to_groups_and_rest_before_reuse() -> None:
    memory = Memory({11: 0})
    memory.table.set_route(route({11}))
    memory.table.set_route(route([], source=SOURCE))
    memory.table.set_route(route({11}, group=OTHER))
    memory.drain()
    specific, other = FibKey(Side.HOST, Kind.GROUP, GROUP, SOURCE), FibKey(Side.HOST, Kind.GROUP, OTHER)
    first, second = memory.entries[HOST_GROUP].stream, memory.entries[other].stream
    assert memory.entries[specific].stream == first
    assert {first, second} == {1, 2}
    memory.table.set_route(route(None))
    memory.table.set_route(route(None, source=SOURCE))
    memory.drain()
    memory.table.set_route(route({11}))
    memory.drain()
    assert memory.entries[HOST_GROUP].stream == 3


def test_streams_that_run_out_are_shared() -> None:
    streams = Streams()
    keys = [FibKey(Side.HOST, Kind.GROUP, number.to_bytes(4)) for number in range(limits.STREAMS_MAX + 1)]
    assert [streams.take(key) for key in keys] == [*range(1, limits.STREAMS_MAX + 1), 0]
    streams.drop(keys[0])
    assert streams.take(keys[-1]) == 1


def test_turns_stand_before_the_entry_that_names_them() -> None:
    memory = Memory({11: 0, 12: 1, 13: 2})
    sets = frozenset({11}), frozenset({12}), frozenset({13})
    memory.table.set_route(RouteChanged(RouteKey(Side.OVERLAY, GROUP, via=11), sets[0], "test", sets[1:]))
    entries = [change for change in memory.drain() if isinstance(change, FibEntry) and change.key.kind is Kind.GROUP]
    put_out = [(entry.key.stripe, set(entry.links), entry.stripes) for entry in entries]
    assert put_out == [(2, {2}, 1), (1, {1}, 1), (0, {0}, 3)]
    memory.table.set_route(RouteChanged(RouteKey(Side.OVERLAY, GROUP, via=11), sets[0], "test"))
    changes = memory.drain()
    assert isinstance(changes[0], FibEntry)
    assert changes[0].stripes == 1
    assert {change.key.stripe for change in changes[1:]} == {1, 2}


def test_a_stream_that_is_repaired_has_one_number_on_both_sides() -> None:
    memory = Memory({11: 0})
    for side in Side:
        memory.table.set_route(RouteChanged(RouteKey(side, GROUP), frozenset({11}), "test", repairs=True))
    memory.drain()
    number = memory.table.stream_of(GROUP)
    assert number
    assert memory.table.group_of(number) == GROUP
    assert all(memory.entries[key].stream == number for key in (HOST_GROUP, OVERLAY_GROUP))
    assert all(memory.entries[key].repairs for key in (HOST_GROUP, OVERLAY_GROUP))
    memory.table.set_route(RouteChanged(RouteKey(Side.OVERLAY, GROUP), frozenset({11}), "test"))
    memory.drain()
    assert (memory.entries[OVERLAY_GROUP].stream, memory.entries[OVERLAY_GROUP].repairs) == (0, False)
    memory.table.set_route(RouteChanged(RouteKey(Side.HOST, GROUP), None, "test"))
    memory.drain()
    assert memory.table.stream_of(GROUP) is None
    assert memory.table.group_of(number) is None
