"""Where packets go: one tree for each turn, along the representatives of clusters; and Nemo's rule for strays.

In turn t a cluster is represented by member t of its crew.  The tree of turn t has an edge

    in layer 0        between the representative and every other member
    in higher layers  between the representative of the cluster and that of each member's cluster in the layer below
                      (but for the member that the representative is itself: it belongs to its own cluster already)

which by induction over the layers is a tree over all peers, whoever the representatives are.  A packet is passed on
along all edges of its turn but the one it came by.  So the crew members carry a stream in turn, as the paper has it
("`send` picks one of that receiver's crew in turn"), and a packet passes every peer once.

The paper's rule not to send to those in the sender's crew is what tells directions when a packet comes by no edge of
its tree: from a crew member that is not the representative, with another view, or as a repair.  Each edge knows the
crew that stands behind it; a packet from somebody in that crew comes from that direction, and is not sent there.

Ours: the paper's crew sends to the super leader and to its neighbours at once; here the super leader's crew alone is
sent to and serves the neighbours, one hop later.  Receivers drop a second copy before they look where it goes, so a
node must get everything it has to pass on with the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.address import NodeId
from pipeline.engines.nemo.clusters import Crew, Seat, representative


@dataclass(frozen=True, slots=True)
class Hops:
    """The next hops of a node, a set for each turn: of any packet, and of those that come from certain nodes."""

    default: tuple[frozenset[NodeId], ...]
    by_via: Mapping[NodeId, tuple[frozenset[NodeId], ...]]


def edges(own: NodeId, seats: Mapping[int, Seat], stripe: int) -> dict[NodeId, set[NodeId]]:
    """The edges of a turn's tree at this node: the neighbour, and the crew that stands behind it."""
    found: dict[NodeId, set[NodeId]] = {}

    def add(node: NodeId, crew: Crew) -> None:
        if node != own:
            found.setdefault(node, set()).update(crew)

    for layer, seat in seats.items():
        head = representative(seat.crew, stripe, layer)
        if layer == 0 and head != own:
            add(head, seat.crew)
        if head != own:
            continue
        for member, crew in seat.members.items():
            if member != own:
                below = crew if layer and crew else (member,)
                add(representative(below, stripe, layer - 1), below)
        if seat.super_crew:
            above = representative(seat.super_crew, stripe, layer + 1)
            if above != seat.leader:
                add(above, seat.super_crew)
    return found


def basis(own: NodeId, seats: Mapping[int, Seat]) -> object:
    """All that this node's next hops depend on: as long as it is equal, they are."""
    return [
        (layer, seat.leader, seat.crew, seat.super_crew, dict(seat.members) if own in seat.crew else None)
        for layer, seat in seats.items()
    ]


def why(own: NodeId, seats: Mapping[int, Seat]) -> str:
    """The part that this node has in each layer, by which its next hops are what they are."""
    parts = {
        layer: "leader" if seat.leader == own else "crew" if own in seat.crew else "member"
        for layer, seat in sorted(seats.items())
    }
    return "nemo: " + ", ".join(f"{part} in layer {layer}" for layer, part in parts.items())


def hops(own: NodeId, seats: Mapping[int, Seat], stripes: int) -> Hops:
    """All next hops of this node.

    What came by an edge is not sent back on it by the stages themselves; what did not, not in its direction.
    """
    trees = [edges(own, seats, stripe) for stripe in range(stripes)]
    default = tuple(frozenset(tree) for tree in trees)
    shunned: dict[NodeId, dict[int, set[NodeId]]] = {}
    for stripe, tree in enumerate(trees):
        for node, crew in tree.items():
            for via in crew:
                if via != own and via not in tree:
                    shunned.setdefault(via, {}).setdefault(stripe, set()).add(node)
    by_via = {
        via: tuple(nodes - out[stripe] if stripe in out else nodes for stripe, nodes in enumerate(default))
        for via, out in sorted(shunned.items())
    }
    return Hops(default, by_via)


def providers(
    own: NodeId, seats: Mapping[int, Seat], stripe: int, origin: NodeId, vias: Sequence[NodeId]
) -> list[NodeId]:
    """Who may have a packet of that turn: first who should have sent it, which is this node's parent in its tree; 0 if
    that cannot be said, as at the top, where the source is below another.

    The source is taken to be above, unless it is a member of a cluster that this node stands for.  Then come those in
    the direction of the source: one of `vias`, who have sent the last packets, may stand for its cluster in another
    turn, and whoever of its crew does so in this turn is nearer to the source than whoever should have sent the packet
    here.  Then the source, if it is a peer, and the other members of the crews, who stand for the same clusters in the
    other turns.
    """
    if 0 not in seats:
        return []
    led = [seat for layer, seat in sorted(seats.items()) if representative(seat.crew, stripe, layer) == own]
    near = next((seat for seat in led if origin in seat.members), None)
    above = _from_turn(led[-1].super_crew, stripe) if led else []
    parent: NodeId = 0
    if not led:
        parent = representative(seats[0].crew, stripe, 0)
    elif near is not None:
        parent = representative(near.members[origin] or (origin,), stripe, near.layer - 1)
    elif above and above[0] == led[-1].leader:
        # The leader, which stands for the cluster above, is in this one a member like others.
        below = led[-1].members.get(above[0], ())
        parent = representative(below or (above[0],), stripe, led[-1].layer - 1)
    elif above:
        parent = above[0]
    found: list[NodeId] = []
    for via in vias:
        found += _towards(own, seats, stripe, via)
    if any(origin in seat.members for seat in seats.values()):
        found.append(origin)
    found += vias
    found += above
    if led and not above:
        found += _from_turn(led[-1].crew, stripe)
    found += _from_turn(seats[0].super_crew, stripe)
    found += _from_turn(seats[0].crew, stripe)
    return [parent, *(node for node in dict.fromkeys(found) if node not in (own, parent))]


def _towards(own: NodeId, seats: Mapping[int, Seat], stripe: int, via: NodeId) -> list[NodeId]:
    """Who stands in that turn for the cluster that `via` stands for in another, where this node stands for its own."""
    found: list[NodeId] = []
    for layer, seat in seats.items():
        if own in seat.crew:
            crews = [(crew, layer - 1) for crew in seat.members.values()] + [(seat.super_crew, layer + 1)]
            found += [representative(crew, stripe, at) for crew, at in crews if via in crew and own not in crew]
    return found


def _from_turn(crew: Crew, stripe: int) -> list[NodeId]:
    """The crew, the representative first."""
    return [crew[(stripe + step) % len(crew)] for step in range(len(crew))]
