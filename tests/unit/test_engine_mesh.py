"""Goal: the mesh routes each packet to exactly the nodes whose filter accepts it; messages and cost follow the changes.

Method: meshes linked by hand; their routes are looked up as C does, and compared with the filters themselves.
"""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import limits
from pipeline.address import ANY_SOURCE, Address, FilterMode, NodeId, SourceFilter, include, parse
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import EngineContext, LinkState, RouteChanged, RouteKey, Side, Transmit
from pipeline.engines.mesh import Mesh

GROUP = parse("239.1.2.3")
SOURCES = [parse(f"10.77.0.{last}") for last in range(1, 5)]


def mesh(node: NodeId) -> Mesh:
    return Mesh(EngineContext(node_id=node, random=random.Random(node).random), 0.0)


class Net:
    """Meshes 1 … n, all linked; messages are carried at once, or lost while `is_lossy`."""

    def __init__(self, size: int) -> None:
        self.now = 0.0
        self.meshes: dict[NodeId, Mesh] = {node: mesh(node) for node in range(1, size + 1)}
        self.routes: dict[NodeId, dict[RouteKey, frozenset[NodeId]]] = {node: {} for node in self.meshes}
        self.changes = 0
        self.messages: list[int] = []
        self.is_lossy = False
        for node, each in self.meshes.items():
            for peer in self.meshes.keys() - {node}:
                each.handle_link(peer, LinkState.UP, self.now)
        self.pump()

    def pump(self) -> None:
        is_busy = True
        while is_busy:
            is_busy = False
            for node, each in self.meshes.items():
                while (output := each.poll_output()) is not None:
                    is_busy = True
                    match output:
                        case RouteChanged(key=key, next_hops=None):
                            del self.routes[node][key]
                            self.changes += 1
                        case RouteChanged(key=key, next_hops=next_hops):
                            assert next_hops is not None
                            assert self.routes[node].get(key) != next_hops, "a route is put out only when it changes"
                            self.routes[node][key] = next_hops
                            self.changes += 1
                        case Transmit(peer=peer, message=message):
                            self.messages.append(len(message))
                            if not self.is_lossy:
                                assert self.meshes[peer].handle_message(node, message, self.now) is None

    def tick(self) -> None:
        self.now += limits.ENGINE_SYNC_INTERVAL_S
        for each in self.meshes.values():
            each.handle_timeout(self.now)
        self.pump()

    def next_hops(self, node: NodeId, group: Address, source: Address) -> frozenset[NodeId]:
        table = self.routes[node]
        default = table.get(RouteKey(Side.HOST, group), frozenset())
        return table.get(RouteKey(Side.HOST, group, source), default)


def test_new_mesh_has_no_outputs() -> None:
    """Goal: an engine without inputs costs nothing.  Method: poll a new one."""
    engine = mesh(1)
    assert engine.poll_timeout() is None
    assert engine.poll_output() is None


FILTERS = st.builds(SourceFilter, st.sampled_from(FilterMode), st.frozensets(st.sampled_from(SOURCES)))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("join"), st.integers(1, 4), FILTERS.filter(lambda each: not each.is_empty)),
            st.tuples(st.sampled_from(["leave", "down", "up", "loss", "tick"]), st.integers(1, 4)),
        ),
        max_size=30,
    )
)
def test_packets_go_to_exactly_the_nodes_whose_filter_accepts_the_source(steps: list[tuple[object, ...]]) -> None:
    """Goal: the routes of every node are those that the filters of the reachable members require.
    Method: random joins, leaves, link changes and losses on four nodes."""
    net = Net(4)
    filters: dict[NodeId, SourceFilter] = {}
    down: set[NodeId] = set()
    for step in steps:
        match step:
            case ("join", int(node), SourceFilter() as sources):
                filters[node] = sources
                net.meshes[node].join(GROUP, sources, net.now)
            case ("leave", int(node)):
                filters.pop(node, None)
                net.meshes[node].leave(GROUP, net.now)
            case ("down" | "up" as direction, int(node)):
                (down.add if direction == "down" else down.discard)(node)
                for peer in net.meshes.keys() - {node}:
                    state = LinkState.DOWN if {node, peer} & down else LinkState.UP
                    net.meshes[node].handle_link(peer, state, net.now)
                    net.meshes[peer].handle_link(node, state, net.now)
            case ("loss", _):
                net.is_lossy = not net.is_lossy
            case _:
                net.tick()
        net.pump()
    net.is_lossy = False
    net.tick()
    net.tick()
    for node in net.meshes:
        for source in [*SOURCES, parse("10.77.0.99")]:
            reachable = set() if node in down else net.meshes.keys() - down - {node}
            expected = {peer for peer in reachable if peer in filters and filters[peer].accepts(source)}
            assert net.next_hops(node, GROUP, source) == expected
        assert net.meshes[node].members(GROUP) == (set() if node in down else filters.keys() - down - {node})


def test_source_specific_routes_exist_only_where_they_differ() -> None:
    """Goal: one route serves all sources that have the same members.
    Method: members with any source, with EXCLUDE and with INCLUDE."""
    net = Net(3)
    net.meshes[2].join(GROUP, ANY_SOURCE, 0)
    net.meshes[3].join(GROUP, SourceFilter(FilterMode.EXCLUDE, frozenset(SOURCES[:1])), 0)
    net.pump()
    assert net.routes[1] == {
        RouteKey(Side.HOST, GROUP): frozenset({2, 3}),
        RouteKey(Side.HOST, GROUP, SOURCES[0]): frozenset({2}),
    }
    net.meshes[3].join(GROUP, include(SOURCES[:1]), 0)
    net.meshes[2].leave(GROUP, 0)
    net.pump()
    assert net.routes[1] == {RouteKey(Side.HOST, GROUP, SOURCES[0]): frozenset({3})}
    assert net.routes[2] == net.routes[1], "each source may be a program of any node"


def test_source_that_all_members_exclude_has_an_empty_route() -> None:
    """Goal: such a source is dropped on its own node.  Method: the only member excludes it."""
    net = Net(2)
    net.meshes[2].join(GROUP, SourceFilter(FilterMode.EXCLUDE, frozenset(SOURCES[:1])), 0)
    net.pump()
    assert net.routes[1][RouteKey(Side.HOST, GROUP, SOURCES[0])] == frozenset()


def test_source_on_another_node_has_no_route() -> None:
    """Goal: a node has no routes for sources that other nodes own.
    Method: owners of two sources are set, and removed again."""
    net = Net(3)
    net.meshes[2].join(GROUP, include(SOURCES[:2]), 0)
    net.pump()
    owners = {SOURCES[0]: 1, SOURCES[1]: 3}
    net.meshes[1].handle_addresses(owners, 0)
    net.pump()
    assert net.routes[1] == {RouteKey(Side.HOST, GROUP, SOURCES[0]): frozenset({2})}
    net.meshes[1].handle_addresses({}, 0)
    net.pump()
    assert len(net.routes[1]) == 2


def test_link_scope_groups_have_members_but_no_routes() -> None:
    """Goal: flooded groups are listed, but need no route.  Method: a member of the mDNS group."""
    net, mdns = Net(2), parse("224.0.0.251")
    net.meshes[2].join(mdns, ANY_SOURCE, 0)
    net.pump()
    assert net.routes[1] == {}
    assert net.meshes[1].members(mdns) == {2}
    assert set(net.meshes[1].groups()) == {mdns}


def test_two_thousand_joins_travel_in_one_message() -> None:
    """Goal: joins at the same time share a message.  Method: 2,000 joins before the outputs are drained."""
    net = Net(2)
    net.messages.clear()
    for number in range(2000):
        net.meshes[2].join(bytes([239, 1]) + number.to_bytes(2), ANY_SOURCE, 0)
    net.pump()
    assert len(net.messages) == 1
    assert net.messages[0] < limits.MESSAGE_BYTES_MAX
    assert len(net.routes[1]) == 2000


def test_change_among_65536_groups_costs_one_short_message() -> None:
    """Goal: the cost of a change does not depend on the number of groups.
    Method: one leave among 65,536 groups: messages, routes and time."""
    net = Net(2)
    for number in range(65536):
        net.meshes[2].join(bytes([239, 1]) + number.to_bytes(2), ANY_SOURCE, 0)
    net.pump()
    assert len(net.routes[1]) == 65536
    assert max(net.messages) < limits.MESSAGE_BYTES_MAX
    net.messages.clear()
    net.changes = 0
    started_at = time.perf_counter()
    net.meshes[2].leave(bytes([239, 1, 0, 7]), 0)
    net.pump()
    elapsed_s = time.perf_counter() - started_at
    assert (len(net.messages), net.changes) == (1, 1)
    assert net.messages[0] < 100
    assert elapsed_s < 0.01, "the cost does not depend on the number of groups"


def test_sources_are_replicated_without_routes() -> None:
    """Goal: a source is no member and makes no route on other nodes.  Method: register and deregister it."""
    net = Net(2)
    net.meshes[2].register_source(GROUP, 0)
    net.pump()
    assert net.routes[1] == {}
    assert net.meshes[1].members(GROUP) == frozenset()
    net.meshes[2].deregister_source(GROUP, 0)
    net.pump()


def test_state_of_a_gone_node_is_dropped() -> None:
    """Goal: no state of a forgotten node remains.  Method: a look into the engine after its link is gone."""
    net = Net(2)
    net.meshes[2].join(GROUP, include(SOURCES), 0)
    net.pump()
    net.meshes[1].handle_link(2, LinkState.GONE, 0)
    net.pump()
    assert net.routes[1] == {}
    assert not net.meshes[1]._filters
    assert not net.meshes[1]._replicas
    assert not net.meshes[1]._routes
    assert not net.meshes[1]._listed_groups


def test_restored_mesh_routes_as_before() -> None:
    """Goal: a restart of control changes no route, even before the first message.
    Method: restore a snapshot while all messages are lost, then without loss."""
    net = Net(3)
    net.meshes[2].join(GROUP, ANY_SOURCE, 0)
    net.meshes[1].join(GROUP, include(SOURCES[:1]), 0)
    net.pump()
    before = net.routes[1]
    again = mesh(1)
    again.restore(net.meshes[1].snapshot(0), 0)
    net.meshes[1], net.routes[1] = again, {}
    for peer in (2, 3):
        again.handle_link(peer, LinkState.UP, 0)
    net.is_lossy = True
    net.pump()
    assert net.routes[1] == before, "at once, from the replicas"
    net.is_lossy = False
    net.tick()
    net.tick()
    assert net.routes[1] == before
    assert net.meshes[2].members(GROUP) == {1}
    with pytest.raises(ValueError, match="checkpoint"):
        mesh(1).restore(b"nonsense", 0)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff" * 50,
        bytes.fromhex("96a17500010000" + "91" + "92" + "c4024d01" + "c401" + "01"),  # a group of one byte
        bytes.fromhex("96a17500010000" + "91" + "92" + "c4054d0a000001" + "c40101"),  # a unicast group
        bytes.fromhex("96a17500010000" + "91" + "92" + "c4054def010203" + "c40107"),  # an unknown filter mode
        bytes.fromhex("96a17500010000" + "91" + "92" + "c4054def010203" + "c403010a00"),  # half a source
    ],
)
def test_malformed_update_is_refused_as_a_whole(message: bytes) -> None:
    """Goal: no part of a malformed update has an effect.  Method: updates with one fault each."""
    each = mesh(1)
    sound = bytes.fromhex("96a17500010000" + "91" + "92" + "c4054def010203" + "c40101")
    assert mesh(1).handle_message(2, sound, 0) is None
    assert each.handle_message(2, message, 0) == MessageRefusal.MESH_MALFORMED
    assert set(each.groups()) == set()
