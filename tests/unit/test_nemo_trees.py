"""Goal: nemo's forwarding rule gives each stripe one tree over all members, and clusters split into usable halves.

Method: the rule for eight nodes whose clusters are written by hand; distances on a line.
"""

from __future__ import annotations

from pipeline.engines.nemo import clusters, forwarding
from pipeline.engines.nemo.cluster_membership import ClusterMembership


def memberships_of_two_clusters() -> dict[int, dict[int, ClusterMembership]]:
    """Nodes 1 … 4 led by 1 and 5 … 8 led by 5; 1 leads the layer above."""
    low, high = (1, 2, 3), (5, 6, 7)
    memberships: dict[int, dict[int, ClusterMembership]] = {}
    for leader, crew in ((1, low), (5, high)):
        for node in range(leader, leader + 4):
            members: dict[int, clusters.Crew] = dict.fromkeys(range(leader, leader + 4), ())
            memberships[node] = {0: ClusterMembership(0, leader, 1, members, crew, super_crew=(1, 5))}
    for node in (1, 5):
        memberships[node][1] = ClusterMembership(1, 1, 1, {1: low, 5: high}, (1, 5))
    return memberships


def test_each_stripe_has_a_tree_over_all_members() -> None:
    """Goal: both ends of an edge know it, there are no loops, and all nodes are reached.  Method: walk each tree."""
    memberships = memberships_of_two_clusters()
    for stripe in range(3):
        trees = {node: set(forwarding.edges(node, held, stripe)) for node, held in memberships.items()}
        assert all(node in trees[other] for node, neighbours in trees.items() for other in neighbours), (
            "both ends know an edge"
        )
        assert sum(map(len, trees.values())) == 2 * 7
        reached, waiting = {1}, [1]
        while waiting:
            new = trees[waiting.pop()] - reached
            reached |= new
            waiting += new
        assert reached == set(range(1, 9))


def test_member_of_a_cluster_of_two_has_another_parent_in_one_stripe() -> None:
    """Goal: a cluster of two does not depend on its leader in every stripe.

    Method: node 1 leads nodes 1 and 2, and is in the crew of the layer above together with 5 and 6.
    """
    crew = (1, 2)
    low = ClusterMembership(0, 1, 1, {1: (), 2: ()}, crew, super_crew=(5, 1, 6))
    trees = [set(forwarding.edges(2, {0: low}, stripe)) for stripe in range(3)]
    assert trees == [{1}, {1}, {1, 6}], "in stripe 2 node 2 acts for its cluster, and 6 for the one above"
    assert forwarding.providers(2, {0: low}, 2, 9, ())[0] == 6


def test_datagram_from_a_crew_member_in_the_wrong_stripe_does_not_return_to_the_crew() -> None:
    """Goal: stray datagrams make no loops.  Method: the routes of node 2, which is in the crew of its cluster."""
    found = forwarding.next_hops(2, memberships_of_two_clusters()[2], 3)
    assert found.default[1] == {1, 3, 4, 5}, "2 acts for its cluster in stripe 1; 5 acts for the layer above"
    assert found.by_via[1][1] == {1, 3, 4, 5}, "the stages themselves leave out the link it came by"
    assert found.by_via[3][0] == frozenset(), "stripe 0 is not crew member 3's: not to the crew"
    assert set(found.by_via) == {1, 3}, "no datagram comes by way of the node itself"


def test_split_keeps_both_halves_large_enough() -> None:
    """Goal: a split gives two clusters of legal size along the distances.  Method: nine nodes in two places."""
    places = {node: float(node if node < 5 else node + 100) for node in range(9)}

    def distance(one: int, other: int) -> float:
        return abs(places[one] - places[other])

    leader, away = clusters.split(0, list(range(9)), 4, distance)
    assert leader in away
    assert sorted(away) == [5, 6, 7, 8]
    assert clusters.best_centre([0, 1, 2, 3, 4], distance) == 2
