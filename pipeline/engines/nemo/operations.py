"""Operations of a leader on the shape of its clusters: at most one on a cluster in `operation_gap_s`.

cluster with                    operation
more than 3k - 1 members        split in two, always; a crowd of newcomers is split again at the next check
fewer than k members            merge: move all members to the nearest neighbour, with 1 % in each check
fewer members than a crew       the same, always, above layer 0 (ours): all nodes below would depend on one node
a better centre                 hand the lead over, as often as a refinement
one member, at the top          remove the layer
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.address import NodeId
from pipeline.engines.nemo.cluster_membership import ClusterMembership
from pipeline.engines.nemo.clusters import Crew, best_centre, radius, split
from pipeline.engines.nemo.hierarchy import Hierarchy
from pipeline.engines.nemo.leader import CROWD, Leader
from pipeline.engines.nemo.member import Member
from pipeline.engines.nemo.messages import CLUSTER_MAX, TOP_MAX, VERSION_SANE, Redirect, View, named
from pipeline.engines.nemo.schedule import Schedule

YIELD_GAP_S = 30.0
"""Shortest time between two changes of the root for nodes that cannot reach it: there may be none that all reach."""


class Operations:
    """Operations of this node on the clusters that it leads in one group."""

    def __init__(self, hierarchy: Hierarchy, leader: Leader, member: Member, schedule: Schedule) -> None:
        self._hierarchy = hierarchy
        self._context = hierarchy.context
        self._leader = leader
        self._member = member
        self._schedule = schedule
        self._allowed_at: dict[int, float] = {}
        """By layer: time from which the next operation is allowed."""

    def is_allowed(self, layer: int, now: float) -> bool:
        """Return whether the last operation on the layer's cluster is long enough ago."""
        return now >= self._allowed_at.get(layer, 0.0)

    def check(self, now: float) -> None:
        """Perform the operations that are due, from the top layer down."""
        hierarchy, gap_s = self._hierarchy, self._context.options.operation_gap_s
        for layer in list(hierarchy.memberships):
            if hierarchy.leads(layer) and hierarchy.memberships[layer].version > VERSION_SANE:
                hierarchy.disband(layer)
        for layer in reversed(list(hierarchy.memberships)):
            is_crowd = layer in hierarchy.memberships and len(hierarchy.memberships[layer].members) > CROWD
            if (is_crowd or self.is_allowed(layer, now)) and self._operate(layer, now):
                self._allowed_at[layer] = now + gap_s

    def _operate(self, layer: int, now: float) -> bool:
        """Perform at most one operation on a cluster.  Return whether there was one."""
        hierarchy, options = self._hierarchy, self._context.options
        membership = hierarchy.memberships.get(layer)
        if membership is None or not hierarchy.leads(layer):
            return False
        size, draw = len(membership.members), self._context.random()
        if size > 3 * options.k - 1:
            if draw < options.split_probability:
                self._split(membership, now)
                return True
            return False
        if size == 1 and layer == hierarchy.top and layer and hierarchy.is_root:
            hierarchy.drop_top(layer)
            self._leader.publish(layer - 1)
            self._schedule.set_heartbeat(now)
            return True
        if size < options.k and layer + 1 in hierarchy.memberships:
            is_brittle = layer > 0 and size < options.crew_size
            return (is_brittle or draw < options.merge_probability) and self._merge(membership, now)
        return draw < options.refine_probability and self._recentre(membership)

    # ---- split

    def _split(self, membership: ClusterMembership, now: float) -> None:
        """Give one half to a leader of its own, which becomes a member of the cluster above."""
        hierarchy, own, layer = self._hierarchy, self._hierarchy.own, membership.layer
        if layer == TOP_MAX:
            return
        smallest = 3 * self._context.options.k // 2
        leader, away = split(own, list(membership.members), smallest, self._distance(membership))
        if layer + 1 not in hierarchy.memberships:
            if membership.super_crew:
                return  # this node is still joining the cluster above
            self._leader.found(layer + 1, now)
        members = {node: membership.members[node] for node in away}
        crew = (leader, *(node for node in away if node != leader))[: self._context.options.crew_size]
        version = membership.version
        above = hierarchy.memberships[layer + 1]
        if len(above.members) >= CLUSTER_MAX:
            return
        self._leader.reassign(membership, away, now)
        if above.leader == own:
            above.add_member(leader, crew, now)
        membership.raise_version()
        self._leader.publish(layer)
        view = View(hierarchy.group, layer, version + 3, leader, members, crew, above.crew)
        self._context.send_all(away, view, named(view))
        if above.leader == own:
            self._leader.publish(layer + 1)

    # ---- merge

    def _merge(self, membership: ClusterMembership, now: float) -> bool:
        """Move all members to the nearest neighbour cluster that is alive.  Return whether there is one."""
        hierarchy, own, layer = self._hierarchy, self._hierarchy.own, membership.layer
        last_heard, since = hierarchy.memberships[layer + 1].last_heard, now - self._context.options.grace_s
        neighbours = [node for node, at in last_heard.items() if node != own and at > since]
        if not neighbours:
            return False
        other = min(neighbours, key=lambda node: (self._context.rtt(node), node))
        for node in membership.members:
            if node != own:
                self._context.send(node, Redirect(hierarchy.group, layer, other), (other,))
        hierarchy.leave(layer)
        self._member.send_join(other, layer, now)
        return True

    # ---- another leader

    def _recentre(self, membership: ClusterMembership) -> bool:
        """Hand the lead to a member whose radius is clearly smaller.  Return whether there is one."""
        own, distance = self._hierarchy.own, self._distance(membership)
        members = [own, *(node for node in membership.members if node != own)]
        centre = best_centre(members, distance)
        present_s = radius(own, members, distance)
        if centre == own or not self._context.is_clearly_better(radius(centre, members, distance), present_s):
            return False
        self._hand_over(membership, (centre, *(node for node in membership.crew if node != centre)))
        return True

    def make_way(self, blocked: NodeId, now: float) -> None:
        """Hand the top cluster over, because a joining node cannot reach this one, the root of the group.

        This node leaves the crew too: its crew would have to send to the blocked node.
        """
        hierarchy = self._hierarchy
        top = hierarchy.top
        if not hierarchy.is_root or not self.is_allowed(top, now) or blocked in self._context.up:
            return
        membership, previous = hierarchy.memberships[top], self._member.previous_leader
        candidates = dict.fromkeys((*membership.crew, *membership.members))
        successors = [node for node in candidates if node in membership.members and node != hierarchy.own]
        successors.sort(key=lambda node: node == previous or not self._context.can_reach(node))
        if successors and successors[0] != previous:
            self._allowed_at[top] = now + YIELD_GAP_S
            self._hand_over(membership, tuple(successors))

    def _hand_over(self, membership: ClusterMembership, crew: Crew) -> None:
        """Appoint the first of a crew.  It sends the members its view when it has taken the lead."""
        crew = crew[: self._context.options.crew_size]
        group, layer, version = self._hierarchy.group, membership.layer, membership.version + 1
        view = View(group, layer, version, crew[0], dict(membership.members), crew, membership.super_crew)
        self._context.send(crew[0], view, named(view))

    def _distance(self, membership: ClusterMembership) -> Callable[[NodeId, NodeId], float]:
        """Return a function of two members: the measured distance, or else that by way of this node."""
        own, rtt = self._hierarchy.own, self._context.rtt

        def distance(one: NodeId, other: NodeId) -> float:
            for a, b in ((one, other), (other, one)):
                if a == own:
                    return rtt(b)
                reported = membership.distances.get(a, {}).get(b)
                if reported is not None:
                    return reported
            return rtt(one) + rtt(other)

        return distance
