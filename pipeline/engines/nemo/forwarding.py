"""Next hops: one tree for each stripe, along the representatives of clusters; and Nemo's rule for strays.

In each stripe a cluster is represented by one member of its crew.  The tree of a stripe has these edges:

    in layer 0        between the representative and every other member
    in higher layers  between the representative of the cluster and that of each member's cluster in the layer below
                      (not to the member that is the representative itself: it is in its own cluster already)

By induction over the layers this is a tree over all nodes, whichever members are representatives.  A packet is passed
on along all edges of its stripe but the one it arrived by.  So the crew members carry a stream in turn, as in the paper
("`send` picks one of that receiver's crew in turn"), and a packet passes every node once.

A stray is a packet that arrives by no edge of its tree: from a crew member that is not the representative, from a node
with an older view, or as a repair.  The paper's rule, not to send to nodes in the sender's crew, finds its direction.
Each edge knows the crew behind it; a packet from a node of that crew came from that direction, and is not sent there.

Ours: in the paper a crew sends to the super leader and to its neighbours at once; here it sends to the super leader's
crew alone, which serves the neighbours one hop later.  Receivers drop a second copy before they look up its next hops,
so a node must receive everything that it has to pass on in the first copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.address import NodeId
from pipeline.engines.nemo.cluster_membership import ClusterMembership
from pipeline.engines.nemo.clusters import Crew, representative

Memberships: TypeAlias = Mapping[int, ClusterMembership]


@dataclass(frozen=True, slots=True)
class NextHops:
    """Next hops of a node, one set for each stripe: by default, and for packets from certain nodes."""

    default: tuple[frozenset[NodeId], ...]
    by_via: Mapping[NodeId, tuple[frozenset[NodeId], ...]]


def edges(own: NodeId, memberships: Memberships, stripe: int) -> dict[NodeId, set[NodeId]]:
    """Return the edges of a stripe's tree at this node: each neighbour, with the crew behind it."""
    found: dict[NodeId, set[NodeId]] = {}

    def add(node: NodeId, crew: Crew) -> None:
        if node != own:
            found.setdefault(node, set()).update(crew)

    for layer, membership in memberships.items():
        head = representative(membership.crew, stripe, layer)
        if layer == 0 and head != own:
            add(head, membership.crew)
        if head != own:
            continue
        for member, crew in membership.members.items():
            if member != own:
                below = crew if layer and crew else (member,)
                add(representative(below, stripe, layer - 1), below)
        if membership.super_crew:
            above = representative(membership.super_crew, stripe, layer + 1)
            if above != membership.leader:
                add(above, membership.super_crew)
    return found


def inputs(own: NodeId, memberships: Memberships) -> object:
    """Return everything on which this node's next hops depend: equal inputs give equal next hops."""
    return [
        (layer, each.leader, each.crew, each.super_crew, dict(each.members) if own in each.crew else None)
        for layer, each in memberships.items()
    ]


def why(own: NodeId, memberships: Memberships) -> str:
    """Return the node's role in each layer, which explains its next hops to an operator."""
    roles = {
        layer: "leader" if each.leader == own else "crew" if own in each.crew else "member"
        for layer, each in sorted(memberships.items())
    }
    return "nemo: " + ", ".join(f"{role} in layer {layer}" for layer, role in roles.items())


def next_hops(own: NodeId, memberships: Memberships, stripes: int) -> NextHops:
    """Return all next hops of this node.

    The stages do not send a packet back to the node that it came from; `by_via` lists the nodes whose packets must not
    go in further directions.
    """
    trees = [edges(own, memberships, stripe) for stripe in range(stripes)]
    default = tuple(frozenset(tree) for tree in trees)
    excluded: dict[NodeId, dict[int, set[NodeId]]] = {}
    for stripe, tree in enumerate(trees):
        for node, crew in tree.items():
            for via in crew:
                if via != own and via not in tree:
                    excluded.setdefault(via, {}).setdefault(stripe, set()).add(node)
    by_via = {
        via: tuple(nodes - out[stripe] if stripe in out else nodes for stripe, nodes in enumerate(default))
        for via, out in sorted(excluded.items())
    }
    return NextHops(default, by_via)


def providers(
    own: NodeId, memberships: Memberships, stripe: int, origin: NodeId, vias: Sequence[NodeId]
) -> list[NodeId]:
    """Return the nodes that may have a packet of the stripe: this node's parent first, or 0 if unknown.

    The parent is unknown at the top of the hierarchy when the source is below another node.  The source is assumed to
    be above this node, unless it is a member of a cluster that this node represents.  After the parent come nodes in
    the direction of the source.  One of `vias`, which have sent the last packets, may represent its cluster in another
    stripe; the member of its crew that represents it in this stripe is nearer to the source than this node's parent.
    Then come the source, if it is a member, and the other members of the crews, which represent the same clusters in
    other stripes.
    """
    if 0 not in memberships:
        return []
    led = [each for layer, each in sorted(memberships.items()) if representative(each.crew, stripe, layer) == own]
    near = next((each for each in led if origin in each.members), None)
    above = _from_stripe(led[-1].super_crew, stripe) if led else []
    parent: NodeId = 0
    if not led:
        parent = representative(memberships[0].crew, stripe, 0)
    elif near is not None:
        parent = representative(near.members[origin] or (origin,), stripe, near.layer - 1)
    elif above and above[0] == led[-1].leader:
        # The leader represents the cluster above; in this cluster it is a member like the others.
        below = led[-1].members.get(above[0], ())
        parent = representative(below or (above[0],), stripe, led[-1].layer - 1)
    elif above:
        parent = above[0]
    found: list[NodeId] = []
    for via in vias:
        found += _towards(own, memberships, stripe, via)
    if any(origin in each.members for each in memberships.values()):
        found.append(origin)
    found += vias
    found += above
    if led and not above:
        found += _from_stripe(led[-1].crew, stripe)
    found += _from_stripe(memberships[0].super_crew, stripe)
    found += _from_stripe(memberships[0].crew, stripe)
    return [parent, *(node for node in dict.fromkeys(found) if node not in (own, parent))]


def _towards(own: NodeId, memberships: Memberships, stripe: int, via: NodeId) -> list[NodeId]:
    """Return the representatives, in a stripe, of neighbouring clusters that `via` represents in another stripe."""
    found: list[NodeId] = []
    for layer, each in memberships.items():
        if own in each.crew:
            crews = [(crew, layer - 1) for crew in each.members.values()] + [(each.super_crew, layer + 1)]
            found += [representative(crew, stripe, at) for crew, at in crews if via in crew and own not in crew]
    return found


def _from_stripe(crew: Crew, stripe: int) -> list[NodeId]:
    """Return the crew, starting with the representative in the stripe."""
    return [crew[(stripe + step) % len(crew)] for step in range(len(crew))]
