"""Clusters as values: who leads, who is crew, where the centre is, how to split.  No messages, no time.

The crew of a cluster is its leader and co-leaders.  The representative of a cluster in turn t is member t of its crew:
it stands for the cluster in the tree that packets of that turn take (forwarding.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pipeline.address import NodeId

CENTRES_MAX = 16
"""Looked at in a split: of a crowd every nth member, as all of 256 would take a second."""

Crew: TypeAlias = tuple[NodeId, ...]
Distance: TypeAlias = Callable[[NodeId, NodeId], float]
"""Round-trip time between two members, as far as it is known."""


@dataclass(slots=True)
class Seat:
    """A node's place in the cluster of one layer; the leader's is what all others copy."""

    layer: int
    leader: NodeId
    version: int
    members: dict[NodeId, Crew]
    """Each with the crew of its cluster in the layer below."""
    crew: Crew
    super_crew: Crew = ()
    heard: dict[NodeId, float] = field(default_factory=dict)
    """When each peer was heard last."""
    stamps: dict[NodeId, tuple[float, float]] = field(default_factory=dict)
    """Of each peer's last heartbeat: its stamp and when it came."""
    distances: dict[NodeId, dict[NodeId, float]] = field(default_factory=dict)
    """At the leader: what the members say of their distances."""

    def inherit(self, old: Seat | None, now: float) -> None:
        """Take over what the seat that this one replaces knows of those who are still members."""
        self.heard = dict.fromkeys(self.members, now)
        if old is None:
            return
        self.heard |= {node: each for node, each in old.heard.items() if node in self.members}
        self.stamps |= {node: each for node, each in old.stamps.items() if node in self.members}
        self.distances |= {node: each for node, each in old.distances.items() if node in self.members}

    def forget(self, node: NodeId) -> None:
        """A member is no more."""
        for table in (self.members, self.heard, self.stamps, self.distances):
            table.pop(node, None)


def representative(crew: Crew, stripe: int, layer: int) -> NodeId:
    """Who stands for a cluster of that layer in that turn.

    Crews are small in layer 0 and at the top, clusters between move if they are (maintenance.py).  Turns that are left
    over are the last's in layer 0 and the leader's at the top: then nobody is in the way of all turns, as would be a
    leader in layer 0 that is the last of the crew above.
    """
    return crew[stripe % len(crew) if layer else min(stripe, len(crew) - 1)]


def choose_crew(seat: Seat, own: NodeId, size: int, rtt: Callable[[NodeId], float]) -> Crew:
    """The leader and its co-leaders: those of the present crew that are still members, then the nearest."""
    others = [node for node in seat.crew if node in seat.members and node != own]
    rest = sorted((rtt(node), node) for node in seat.members if node != own and node not in others)
    return (own, *others, *(node for _, node in rest))[:size]


def radius(centre: NodeId, members: Iterable[NodeId], distance: Distance) -> float:
    """The greatest distance of a member from the centre."""
    return max((distance(centre, node) for node in members if node != centre), default=0.0)


def best_centre(members: Sequence[NodeId], distance: Distance) -> NodeId:
    """The member from which all others are nearest; of equals the one that stands first."""
    return min(members, key=lambda node: radius(node, members, distance))


def split(leader: NodeId, members: Sequence[NodeId], smallest: int, distance: Distance) -> tuple[NodeId, list[NodeId]]:
    """Who leaves, with its leader: two halves of at least `smallest`, of the least total distance to their leaders."""
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
