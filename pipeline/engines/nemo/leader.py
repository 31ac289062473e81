"""Role of a leader: it decides alone which nodes are in its cluster, and sends its members each new view.

Requests to a leader arrive at nodes that do not lead as well: they are redirected here.  When to split, merge or hand
over a cluster is decided in operations.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.address import NodeId
from pipeline.engines.nemo.cluster_membership import ClusterMembership, Event
from pipeline.engines.nemo.clusters import Crew, choose_crew
from pipeline.engines.nemo.failure_detector import FailureDetector
from pipeline.engines.nemo.hierarchy import Hierarchy
from pipeline.engines.nemo.messages import (
    CLUSTER_MAX,
    TOP_MAX,
    VERSION_SANE,
    Answer,
    Heartbeat,
    Join,
    Leave,
    Query,
    Redirect,
    View,
    named,
)
from pipeline.timers import TtlMap

REASSIGNED_S = 1.0
"""Longer than a heartbeat travels."""
CROWD = 16
"""Members of a cluster, twice the size that is split, from which on members learn of newcomers only at the next check:
many nodes join at once.
"""


class Leader:
    """Actions of this node on the clusters that it leads in one group."""

    def __init__(self, hierarchy: Hierarchy, failure_detector: FailureDetector) -> None:
        self._hierarchy = hierarchy
        self._context = hierarchy.context
        self._failure_detector = failure_detector
        self._unpublished: set[int] = set()
        """Layers whose members have not been sent all newcomers."""
        self._pending_joins: dict[int, dict[NodeId, tuple[Join, float]]] = {}
        """By layer and node: Join of a node that succeeds this node's leader in a lower layer, and claims that it is
        dead; with the time until which an answer is of use.  It is answered when this node's leader changes.
        """
        self._reassigned: TtlMap[tuple[int, NodeId]] = TtlMap()
        """Members, with their layer, that have been given another leader.  A heartbeat that they sent before does not
        bring them back.
        """

    # ---- views

    def lead(self, membership: ClusterMembership, event: Event, now: float) -> None:
        """Become the leader of a cluster, and send its members a view."""
        hierarchy = self._hierarchy
        membership.become_leader(hierarchy.own, hierarchy.crew_below(membership.layer), now)
        hierarchy.enter(membership, event)
        self.publish(membership.layer)
        self.answer_pending_joins(membership.layer, now)

    def found(self, layer: int, now: float) -> None:
        """Start a cluster whose only member is this node."""
        own = self._hierarchy.own
        members = {own: self._hierarchy.crew_below(layer)}
        self.lead(ClusterMembership(layer, own, 1, members, (own,)), Event.FOUND, now)

    def publish(self, layer: int) -> None:
        """A cluster that this node leads has changed: choose its crew, and send the new view to its members.

        A new crew is reported to the cluster above, and becomes the super crew of the cluster below.
        """
        hierarchy = self._hierarchy
        own, membership = hierarchy.own, hierarchy.memberships[layer]
        self._unpublished.discard(layer)
        size, rtt = self._context.options.crew_size, self._context.rtt
        crew = choose_crew(own, membership.crew, membership.members, size, rtt)
        is_new_crew = crew != membership.crew
        membership.set_crew(crew)
        self.send_view_to_all(layer)
        above = hierarchy.memberships.get(layer + 1)
        if above is not None and is_new_crew:
            if above.leader == own:
                above.set_member_crew(own, crew)
                self.publish(layer + 1)
            else:
                hierarchy.send_heartbeat(layer + 1, above.leader)
        if layer:
            self.pass_crew_down(layer)
        hierarchy.mark_changed()

    def pass_crew_down(self, layer: int) -> None:
        """Publish the crew of a layer as the super crew of the cluster below, which this node leads."""
        hierarchy = self._hierarchy
        crew, below = hierarchy.memberships[layer].crew, hierarchy.memberships.get(layer - 1)
        if below is not None and below.leader == hierarchy.own and below.super_crew != crew:
            below.set_super_crew(crew, is_new_version=True)
            self.send_view_to_all(layer - 1)
            hierarchy.mark_changed()

    def send_view_to_all(self, layer: int) -> None:
        """Send the present view to all members."""
        members = self._hierarchy.memberships[layer].members
        self.send_view(layer, *(node for node in members if node != self._hierarchy.own))

    def send_view(self, layer: int, *peers: NodeId) -> None:
        """Send the present view to some nodes."""
        each = self._hierarchy.memberships[layer]
        group = self._hierarchy.group
        view = View(group, layer, each.version, each.leader, each.members, each.crew, each.super_crew)
        self._context.send_all(peers, view, named(view))

    def publish_newcomers(self) -> None:
        """Publish the clusters whose members have not been sent all newcomers."""
        for layer in sorted(self._unpublished):
            if self._hierarchy.leads(layer):
                self.publish(layer)
        self._unpublished.clear()

    # ---- joins

    def handle_join(self, peer: NodeId, join: Join, now: float) -> None:
        """A node requests to be a member of this node's cluster."""
        hierarchy, layer = self._hierarchy, join.layer
        if layer == hierarchy.top + 1 <= TOP_MAX and hierarchy.is_root:
            # The newcomer's hierarchy is as high as this one: a layer above both is needed.
            self.found(layer, now)
        if not hierarchy.leads(layer):
            membership = hierarchy.memberships.get(layer)
            if membership is not None and membership.leader not in (0, peer) and membership.leader == join.replaces:
                self._hold_join(peer, join, now)
            else:
                self.redirect(peer, layer)
            return
        membership = hierarchy.memberships[layer]
        if join.replaces not in (0, hierarchy.own, peer):
            if join.replaces in self._context.up:
                self._failure_detector.suspect(join.replaces, now)  # it may be alive, and only its successor cut off
            else:
                membership.remove_member(join.replaces)
        self._admit(membership, peer, join.crew, now)

    def redirect(self, peer: NodeId, layer: int) -> None:
        """Send a node that takes this one for a leader to the leader, or, with 0, back to the beginning."""
        membership = self._hierarchy.memberships.get(layer)
        leader = membership.leader if membership is not None and membership.leader != peer else 0
        self._context.send(peer, Redirect(self._hierarchy.group, layer, leader), (leader,))

    def _hold_join(self, peer: NodeId, join: Join, now: float) -> None:
        """Keep a Join that reports the death of this node's leader until that is known: the successor answers it."""
        pending = self._pending_joins.setdefault(join.layer, {})
        if peer in pending or len(pending) < CLUSTER_MAX:
            pending[peer] = join, now + self._context.options.retry_s
        self._failure_detector.suspect(join.replaces, now)

    def answer_pending_joins(self, layer: int, now: float) -> None:
        """The leader of a layer has changed: handle the Joins that waited for it."""
        for peer, (join, until) in self._pending_joins.pop(layer, {}).items():
            if now < until:
                self.handle_join(peer, join, now)

    def _admit(self, membership: ClusterMembership, peer: NodeId, crew: Crew, now: float) -> None:
        is_new, is_same = peer not in membership.members, membership.members.get(peer) == crew
        if is_new and len(membership.members) >= CLUSTER_MAX:
            return
        membership.add_member(peer, crew, now)
        is_crowd = is_new and len(membership.members) > CROWD
        if is_same or is_crowd:
            self.send_view(membership.layer, peer)
        if is_crowd:
            self._unpublished.add(membership.layer)
            self._hierarchy.mark_changed()
        elif not is_same:
            self.publish(membership.layer)

    # ---- members that leave

    def reassign(self, membership: ClusterMembership, nodes: Iterable[NodeId], now: float) -> None:
        """Remove members that get another leader."""
        for node in nodes:
            membership.remove_member(node)
            self._reassigned.add((membership.layer, node), now + REASSIGNED_S, now)

    def handle_leave(self, peer: NodeId, leave: Leave, now: float) -> None:
        """A member leaves this node's cluster, or hands its own cluster over to a successor."""
        membership = self._hierarchy.memberships.get(leave.layer)
        if membership is None or peer not in membership.members or not self._hierarchy.leads(leave.layer):
            return
        membership.remove_member(peer)
        if leave.successor not in (0, self._hierarchy.own):
            membership.add_member(leave.successor, leave.crew, now)
        self.publish(leave.layer)

    def remove_dead(self, membership: ClusterMembership, node: NodeId) -> None:
        """A member is dead."""
        membership.remove_member(node)
        self.publish(membership.layer)

    def remove_silent(self, membership: ClusterMembership, now: float) -> None:
        """Remove the members that have been silent for the grace period."""
        silent = membership.silent_members(self._hierarchy.own, now, self._context.options.grace_s)
        for node in silent:
            membership.remove_member(node)
        if silent:
            self.publish(membership.layer)

    # ---- heartbeats and queries

    def handle_heartbeat(self, membership: ClusterMembership, peer: NodeId, heartbeat: Heartbeat, now: float) -> None:
        """A node that follows this one is alive: admit it if it is no member, and correct an old version."""
        if membership.members.get(peer) != heartbeat.crew:
            if not self._reassigned.has((heartbeat.layer, peer), now):
                self._admit(membership, peer, heartbeat.crew, now)
        elif membership.version < heartbeat.version <= VERSION_SANE:
            # Another node has forged a view of this leader: the member would ignore the leader's lower versions.
            membership.raise_version(heartbeat.version)
            self.publish(heartbeat.layer)
        elif heartbeat.version != membership.version:
            self.send_view(heartbeat.layer, peer)
        if heartbeat.distances and peer in membership.members:
            membership.record_distances(peer, {node: each / 1e3 for node, each in heartbeat.distances.items()})

    def handle_query(self, peer: NodeId, query: Query) -> None:
        """A joining node requests the members of this node's cluster in a layer."""
        hierarchy = self._hierarchy
        led = [layer for layer in hierarchy.memberships if hierarchy.leads(layer) and layer <= query.layer]
        if led:
            membership = hierarchy.memberships[max(led)]
            members = list(membership.members) if membership.layer > query.target else []
            answer = Answer(hierarchy.group, membership.layer, query.ticket, members, hierarchy.top)
            self._context.send(peer, answer, members)
