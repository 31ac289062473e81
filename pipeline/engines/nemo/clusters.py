"""Crews, centres and splits of clusters, as functions of values.  Knows no messages and no time.

The crew of a cluster is its leader and co-leaders.  The representative of a cluster in stripe n is one member of its
crew: it acts for the cluster in the tree that packets of that stripe take (forwarding.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeAlias

from pipeline.address import NodeId

CENTRES_MAX = 16
"""Candidates that a split compares: every nth member of a crowd, as all 256 would take a second."""

Crew: TypeAlias = tuple[NodeId, ...]
"""Leader first, then co-leaders."""
Distance: TypeAlias = Callable[[NodeId, NodeId], float]
"""Round-trip time in seconds between two members, as far as it is known."""


def representative(crew: Crew, stripe: int, layer: int) -> NodeId:
    """Return the crew member that represents a cluster of the layer in a stripe.

    A crew smaller than the number of stripes occurs in layer 0 and at the top; in other layers such a cluster merges
    (operations.py).  The stripes left over go to the last crew member in layer 0 and to the leader at the top.  The
    leader in layer 0 may be the last of the crew above: with this rule it is not the parent in every stripe.
    """
    return crew[stripe % len(crew) if layer else min(stripe, len(crew) - 1)]


def choose_crew(
    own: NodeId, present: Crew, members: Collection[NodeId], size: int, rtt: Callable[[NodeId], float]
) -> Crew:
    """Return the leader (this node) and its co-leaders: the present ones that are still members, then the nearest."""
    others = [node for node in present if node in members and node != own]
    rest = sorted((rtt(node), node) for node in members if node != own and node not in others)
    return (own, *others, *(node for _, node in rest))[:size]


def radius(centre: NodeId, members: Iterable[NodeId], distance: Distance) -> float:
    """Return the greatest distance of a member from the centre."""
    return max((distance(centre, node) for node in members if node != centre), default=0.0)


def best_centre(members: Sequence[NodeId], distance: Distance) -> NodeId:
    """Return the member with the smallest radius; of equals the first one."""
    return min(members, key=lambda node: radius(node, members, distance))


def split(leader: NodeId, members: Sequence[NodeId], smallest: int, distance: Distance) -> tuple[NodeId, list[NodeId]]:
    """Return the half that leaves and its leader; the halves have the least total distance to their leaders.

    Each half has at least `smallest` members.
    """
    best: tuple[float, NodeId, list[NodeId]] | None = None
    others = [node for node in members if node != leader]
    for centre in others[:: -(-len(others) // CENTRES_MAX)]:
        rest = [node for node in others if node != centre]
        rest.sort(key=lambda node: distance(node, centre) - distance(node, leader))
        least, most = smallest - 1, len(members) - smallest - 1
        nearer = sum(distance(node, centre) < distance(node, leader) for node in rest)
        count = min(max(nearer, least), most)
        away, stay = rest[:count], rest[count:]
        cost = sum(distance(node, centre) for node in away) + sum(distance(node, leader) for node in stay)
        if best is None or cost < best[0]:
            best = cost, centre, [centre, *away]
    assert best is not None, "a cluster that is split has other members"
    return best[1], best[2]
