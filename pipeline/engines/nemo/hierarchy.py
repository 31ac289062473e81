"""This node's memberships in one group's hierarchy of clusters, and how it gives them up.

A node has memberships in layers 0 … n without gaps, and leads all but perhaps the last.  This object owns their table;
leader.py and member.py decide.
"""

from __future__ import annotations

from pipeline.address import Address, NodeId
from pipeline.engines.nemo.cluster_membership import ClusterMembership, Event, State, next_state
from pipeline.engines.nemo.clusters import Crew
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.messages import Heartbeat, Leave, Redirect, View, named


class Hierarchy:
    """Memberships of this node in one group, by layer."""

    def __init__(self, group: Address, context: Context) -> None:
        self.group = group
        self.context = context
        self.own = context.own
        self.memberships: dict[int, ClusterMembership] = {}
        self._is_changed = False

    # ---- questions

    def leads(self, layer: int) -> bool:
        """Return whether this node leads its cluster of the layer."""
        membership = self.memberships.get(layer)
        return membership is not None and membership.leader == self.own

    @property
    def top(self) -> int:
        """Highest layer with a membership; -1 if there is none."""
        return len(self.memberships) - 1

    @property
    def missing_layer(self) -> int | None:
        """Layer in which this node needs a membership and has none: above the last one it leads, if that is not the top
        of the hierarchy.
        """
        layer = len(self.memberships)
        if layer == 0:
            return 0
        return layer if self.leads(layer - 1) and self.memberships[layer - 1].super_crew else None

    @property
    def is_root(self) -> bool:
        """Whether this node leads the top cluster of the group."""
        top = self.top
        return top >= 0 and self.leads(top) and not self.memberships[top].super_crew

    @property
    def height(self) -> int:
        """Number of layers below and including this node's highest; 0 if it is alone."""
        count = len(self.memberships)
        return count if count > 1 or len(self.memberships[0].members) > 1 else 0

    def crew_below(self, layer: int) -> Crew:
        """Return the crew of the cluster for which this node is a member of the layer; empty in layer 0."""
        return self.memberships[layer - 1].crew if layer and layer - 1 in self.memberships else ()

    # ---- changes

    def mark_changed(self) -> None:
        """The next hops of this node may have changed."""
        self._is_changed = True

    def take_change(self) -> bool:
        """Return whether memberships have changed since the last call."""
        is_changed, self._is_changed = self._is_changed, False
        return is_changed

    def enter(self, membership: ClusterMembership, event: Event) -> None:
        """Put a membership in the place of the layer's present one."""
        present = self.memberships.get(membership.layer)
        membership.state = next_state(present.state if present is not None else State.OUT, event)
        self.memberships[membership.layer] = membership
        self._is_changed = True

    def _remove(self, layer: int) -> ClusterMembership:
        membership = self.memberships.pop(layer)
        membership.apply(Event.LEAVE)
        self._is_changed = True
        return membership

    # ---- leaving

    def leave(self, layer: int) -> None:
        """Give up the membership of a layer that others have ended, and all above it."""
        self.leave_from(layer + 1)
        if layer in self.memberships:
            self._remove(layer)
        self._is_changed = True

    def disband(self, layer: int) -> None:
        """Dissolve a cluster that this node leads, and leave all above it: its members have to join anew."""
        self.leave_from(layer + 1)
        others = [node for node in self.memberships[layer].members if node != self.own]
        self.context.send_all(others, Redirect(self.group, layer, 0))
        self._remove(layer)
        if layer - 1 in self.memberships:
            self.memberships[layer - 1].set_super_crew((self.own,))

    def drop_top(self, layer: int) -> None:
        """Remove the top layer, in which this node is alone."""
        self._remove(layer)
        self.memberships[layer - 1].set_super_crew(())

    def leave_from(self, lowest: int, *, successor: NodeId = 0, crew: Crew = ()) -> None:
        """Give up all memberships from the lowest layer up: clusters that this node leads get another leader.

        `successor` with its `crew` takes this node's place in the lowest layer; 0: no node does.
        """
        for layer in sorted(layer for layer in self.memberships if layer >= lowest):
            membership = self._remove(layer)
            if membership.leader != self.own:
                self.context.send(membership.leader, Leave(self.group, layer, successor, crew), (successor, *crew))
                break
            membership.remove_member(self.own)
            if successor:
                membership.set_member_crew(successor, crew)
            if not membership.members:
                successor, crew = 0, ()
                continue
            successor, crew = self._appoint_successor(membership)
        self._is_changed = True

    def _appoint_successor(self, membership: ClusterMembership) -> tuple[NodeId, Crew]:
        """Send the view of a cluster's next leader to all members.  Return the leader and its crew."""
        members = membership.members
        crew = [node for node in membership.crew if node in members]
        successor = crew[0] if crew else min(members, key=lambda node: (self.context.rtt(node), node))
        new_crew = (successor, *(node for node in crew if node != successor))
        layer, version = membership.layer, membership.version + 2
        view = View(self.group, layer, version, successor, members, new_crew, membership.super_crew)
        self.context.send_all(members, view, named(view))
        return successor, new_crew

    # ---- heartbeats

    def send_heartbeat(self, layer: int, peer: NodeId, now: float | None = None) -> None:
        """Send a heartbeat to a member of a cluster.  Without `now` it only reports this node's crew."""
        membership = self.memberships[layer]
        stamp, echo, held, distances = 0.0, 0.0, 0.0, {}
        if now is not None:
            stamp = now * 1e3
            if peer in membership.stamps:
                echo, arrived_at = membership.stamps[peer]
                held = (now - arrived_at) * 1e3
            if peer == membership.leader:
                rtt, has_rtt = self.context.rtt, self.context.has_rtt
                others = [node for node in membership.members if node != self.own and has_rtt(node)]
                distances = {node: float(round(rtt(node) * 1e3)) for node in others}
        crew, leader, version = self.crew_below(layer), membership.leader, membership.version
        heartbeat = Heartbeat(self.group, layer, leader, version, crew, stamp, echo, held, distances)
        self.context.send(peer, heartbeat, crew if peer == leader else ())
