"""Goal: nodes of this version and of the previous one form one overlay, whichever is upgraded first.

Method: the cores of both versions on virtual time; the previous version runs from an archive of its sources.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from pipeline.address import parse
from tests.sim.mixed_net import MixedNet, NewNode, OldNode

GROUP = parse("239.1.2.3")
LINKED_S = 8.0
"""Longest time until all links are up: two calls of a peer that was away for 12 s."""
MakeNet = Callable[..., MixedNet]
both_engines = pytest.mark.parametrize("engine", ["mesh", "nemo"])


@pytest.fixture
def make_net() -> Iterator[MakeNet]:
    nets: list[MixedNet] = []

    def make(**options: bool | str) -> MixedNet:
        nets.append(MixedNet(**options))  # type: ignore[arg-type]
        return nets[-1]

    yield make
    for net in nets:
        net.close()


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(1, count + 1)]


def assert_linked(net: MixedNet) -> None:
    assert net.run_until_linked(LINKED_S) <= LINKED_S, net.missing_links()


def assert_links_stay(net: MixedNet) -> None:
    """Check that no link goes down for 5 s."""
    for node in net.nodes.values():
        node.downs.clear()
    net.run(5.0)
    assert not any(node.downs for node in net.nodes.values())


def assert_no_former_nodes(net: MixedNet) -> None:
    """Check that nodes of this version have dropped the id that a node had before its last restart, and that nodes of
    the previous version have it at no node's endpoint."""
    for name, node in net.nodes.items():
        stale = {endpoint for _, endpoint, is_up in node.call("links") if not is_up}
        assert not stale & {net.endpoint(each) for each in net.nodes if each != name}
        if isinstance(node, NewNode):
            assert {peer for peer, *_ in node.call("links")} == net.nodes.keys() - {name}
            assert len(node.call("links")) == len(net.nodes) - 1
            assert not node.notices


def assert_members(net: MixedNet) -> None:
    """Check that each node knows all others as members of the group."""
    net.join(GROUP)
    net.run(3.0)
    for name, node in net.nodes.items():
        assert set(node.call("members", GROUP)) == net.nodes.keys() - {name}


@pytest.mark.parametrize(
    ("engine", "is_sealing"), [("mesh", True), ("mesh", False), ("nemo", True)], ids=["mesh", "insecure", "nemo"]
)
@pytest.mark.parametrize("versions", ["on", "no", "oon", "ono", "noo", "non"])
def test_nodes_of_both_versions_link_in_every_order_of_start(
    make_net: MakeNet, versions: str, engine: str, is_sealing: bool
) -> None:
    """Goal: links come up and memberships travel, whichever version starts first.
    Method: two or three nodes that all know one another's endpoints, started in this order."""
    net = make_net(is_sealing=is_sealing, engine=engine)
    for name, version in zip(names(3), versions, strict=False):
        net.start(name, NewNode if version == "n" else OldNode, names(len(versions)))
        net.run(0.5)
    assert_linked(net)
    if engine == "mesh":
        assert_members(net)


@pytest.mark.parametrize("only_seed", [False, True], ids=["all-seeds", "one-seed"])
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3)])
def test_upgrade_of_each_node_in_turn_keeps_a_full_mesh(
    make_net: MakeNet, order: tuple[int, ...], only_seed: bool
) -> None:
    """Goal: all links are up again after each restart, also if the nodes know one seed only, in whichever order.
    Method: three nodes are upgraded in turn; then one is rolled back and upgraded again."""
    net = make_net()
    peers = ["n1"] if only_seed else names(3)
    for name in names(3):
        net.start(name, OldNode, peers)
    assert_linked(net)
    steps = itertools.chain(((number, NewNode) for number in order), [(order[1], OldNode), (order[1], NewNode)])
    for number, version in steps:
        net.stop(f"n{number}")
        net.run(12.0)
        net.start(f"n{number}", version, peers)
        assert_linked(net)
        assert_links_stay(net)
        assert_no_former_nodes(net)
    assert_members(net)


def test_node_that_is_rolled_back_keeps_its_links_to_others_of_its_version(make_net: MakeNet) -> None:
    """Goal: the id that a node had while it was upgraded is in nobody's way, as messages of the previous version name
    no receiver.  Method: of three nodes the first is upgraded and rolled back."""
    net = make_net()
    for name, version in zip(names(3), (OldNode, OldNode, NewNode), strict=True):
        net.start(name, version, names(3))
    assert_linked(net)
    for version in (NewNode, OldNode):
        net.stop("n1")
        net.run(1.0)
        net.start("n1", version, names(3))
        assert_linked(net)
        assert_links_stay(net)


@both_engines
def test_node_that_is_killed_and_upgraded_is_linked_within_seconds(make_net: MakeNet, engine: str) -> None:
    """Goal: the id that a node had before its upgrade is in nobody's way, also if it ended without a Goodbye.
    Method: of three nodes the first is upgraded, and started again, at once after it was killed."""
    net = make_net(engine=engine)
    for name, version in zip(names(3), (OldNode, OldNode, NewNode), strict=True):
        net.start(name, version, names(3))
    assert_linked(net)
    for _ in range(2):
        net.kill("n1")
        net.start("n1", NewNode, names(3))
        assert_linked(net)
        net.run(3.0)
        assert_links_stay(net)


def test_node_that_has_lost_another_one_is_linked_again(make_net: MakeNet) -> None:
    """Goal: a node of the previous version that has timed this one out gets its link back.
    Method: messages of one direction are lost for 4 s."""
    net = make_net()
    net.start("n1", NewNode, ["n2"])
    net.start("n2", OldNode, ["n1"])
    assert_linked(net)
    for lost in (("n1", "n2"), ("n2", "n1")):
        net.lost.add(lost)
        net.run(6.0)
        assert net.missing_links() == [("n1", "n2"), ("n2", "n1")], "a path that is broken in one direction is down"
        net.lost.clear()
        assert_linked(net)
        assert_links_stay(net)
