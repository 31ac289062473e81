"""Role of a member: it follows the views of its leader, replaces a dead leader, and joins what it misses.

Leader change.  The paper leaves open which node succeeds a dead leader; here it is the first of its crew that is
alive.  The others wait RANK_S longer for each node before them, then all members follow by number.  While a node waits,
it probes the crew members before it, which may be dead too, or may not know yet that the leader is.

Not every node reaches every other.  A node that alone cannot reach a leader must not draw the members of the cluster
away: they accept a rival's view only after the present leader has not answered their own probes.
"""

from __future__ import annotations

from pipeline.address import NodeId
from pipeline.engines.nemo.cluster_membership import ClusterMembership, Event, State
from pipeline.engines.nemo.failure_detector import FailureDetector
from pipeline.engines.nemo.hierarchy import Hierarchy
from pipeline.engines.nemo.join import JoinSearch, Phase
from pipeline.engines.nemo.leader import Leader
from pipeline.engines.nemo.messages import TOP_MAX, VERSION_SANE, Leave, Redirect, View
from pipeline.engines.nemo.rendezvous import Rendezvous
from pipeline.engines.nemo.schedule import Schedule
from pipeline.timers import TtlMap

RANK_S = 2.0
"""Time that each node in the order of succession waits longer than the one before it."""
CLAIM_S = 0.3
"""Time between taking the lead and the first heartbeats.  Members that still reach the old leader leave within it, so
that the new leader claims only what it has.
"""
SUPERSEDED_S = 30.0
"""Time for which redirects to a dead leader are ignored."""
LEADERSHIP_COOLDOWN_S = 1.0
"""Shortest time between two appointments: each one makes this node send a view to all members."""


class Member:
    """Actions of this node in the clusters of one group that other nodes lead, or are to lead."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        leader: Leader,
        failure_detector: FailureDetector,
        schedule: Schedule,
        rendezvous: Rendezvous,
    ) -> None:
        self._hierarchy = hierarchy
        self._context = hierarchy.context
        self._leader = leader
        self._failure_detector = failure_detector
        self._schedule = schedule
        self.join_search = JoinSearch(hierarchy.group, hierarchy.context, rendezvous, self._handle_search_result)
        self.previous_leader: NodeId = 0
        """Leader that this node has replaced last."""
        self._superseded_leaders: TtlMap[NodeId] = TtlMap()
        """Dead leaders that this node has replaced.  No redirect to them is followed."""
        self._leader_conflicts: dict[int, tuple[NodeId, View]] = {}
        """By layer: the last rival of this node's leader, and its view."""
        self._leadership_cooldown: TtlMap[int] = TtlMap()
        """Layers in which this node has just been appointed leader, and is not again."""

    # ---- views

    def handle_view(self, peer: NodeId, view: View, now: float) -> None:
        """Handle a leader's view of a cluster, which may be this node's own."""
        if view.version > VERSION_SANE:
            return
        hierarchy = self._hierarchy
        own, present = hierarchy.own, hierarchy.memberships.get(view.layer)
        is_next = view.layer == hierarchy.top + 1 <= TOP_MAX and (view.layer == 0 or hierarchy.leads(view.layer - 1))
        if own not in view.members:
            if present is not None and peer == present.leader == view.leader and view.version > present.version:
                hierarchy.leave(view.layer)
            return
        if not view.crew or view.leader not in view.members or (present is None and not is_next):
            self._refuse(peer, view, now)
            return
        if present is not None and not self._is_newer(view, present):
            if present.leader != view.leader:
                self._refuse_rival(peer, view, present)
            return
        if present is not None and self._is_rival(peer, view, present, now):
            self._examine_rival(peer, view, present, now)
            return
        if view.leader == own:
            if self._leadership_cooldown.has(view.layer, now):
                return
            self._leadership_cooldown.add(view.layer, now + LEADERSHIP_COOLDOWN_S, now)
        self._accept(peer, view, present, now)

    def _is_newer(self, view: View, present: ClusterMembership) -> bool:
        own = self._hierarchy.own
        if self.join_search.is_joining(view.layer) and present.leader not in (own, view.leader):
            return True
        return (view.version, -view.leader) > (present.version, -present.leader)

    def _refuse(self, peer: NodeId, view: View, now: float) -> None:
        """Refuse a membership that this node cannot have.

        If this node was appointed leader, the members have been sent the same view: they are redirected to the sender.
        """
        group, own = self._hierarchy.group, self._hierarchy.own
        self._context.send(peer, Leave(group, view.layer, 0, ()))
        if view.leader == own and not self._leadership_cooldown.has(view.layer, now):
            self._leadership_cooldown.add(view.layer, now + LEADERSHIP_COOLDOWN_S, now)
            others = [node for node in view.members if node not in (own, peer)]
            self._context.send_all(others, Redirect(group, view.layer, peer), (peer,))

    def _accept(self, peer: NodeId, view: View, present: ClusterMembership | None, now: float) -> None:
        """Replace the membership of a layer by the state in the view."""
        hierarchy, own, layer = self._hierarchy, self._hierarchy.own, view.layer
        self.join_search.handle_membership(layer)
        if present is not None and present.leader not in (own, view.leader, *view.members):
            self._context.send(present.leader, Leave(hierarchy.group, layer, 0, ()))
        led = list(present.members) if present is not None and present.leader == own else []
        new = ClusterMembership(layer, view.leader, view.version, dict(view.members), view.crew, view.super_crew)
        new.inherit(present, now)
        if view.leader == own:
            self.previous_leader = peer
            self._schedule.set_heartbeat(now)
            self._leader.lead(new, Event.APPOINTED, now)
        else:
            hierarchy.enter(new, Event.FOLLOW)
            if led:
                left_out = [node for node in led if node not in view.members]
                self._context.send_all(left_out, Redirect(hierarchy.group, layer, view.leader), (view.leader,))
                hierarchy.leave_from(layer + 1, successor=view.leader, crew=view.crew)
            self._leader.answer_pending_joins(layer, now)
        if layer:
            self._leader.pass_crew_down(layer)
            if view.leader != own and view.members[own] != hierarchy.crew_below(layer):
                hierarchy.send_heartbeat(layer, view.leader)
        if layer in self._leader_conflicts:
            self.handle_view(*self._leader_conflicts.pop(layer), now)

    # ---- two leaders

    def _is_rival(self, peer: NodeId, view: View, present: ClusterMembership, now: float) -> bool:
        """Return whether a node claims to succeed a leader that did not announce it and is alive as far as known."""
        is_announced = present.leader in (self._hierarchy.own, peer, view.leader, *view.members)
        if is_announced or self.join_search.is_joining(view.layer):
            return False
        return now - present.last_heard[present.leader] < self._context.options.grace_s

    def _examine_rival(self, peer: NodeId, view: View, present: ClusterMembership, now: float) -> None:
        if self._failure_detector.is_alive(present.leader, now):
            self._refuse_rival(peer, view, present)
        else:
            present.apply(Event.RIVAL)
            self._leader_conflicts[view.layer] = peer, view
            self._failure_detector.probe(present.leader, now)

    def _refuse_rival(self, peer: NodeId, view: View, present: ClusterMembership) -> None:
        """Refuse another leader's view.  A rival that is a member of this node's newer cluster is sent its view."""
        if present.leader == self._hierarchy.own and view.leader in present.members:
            self._leader.send_view(view.layer, peer)
        else:
            self._context.send(peer, Leave(self._hierarchy.group, view.layer, 0, ()))

    def handle_leader_alive(self, membership: ClusterMembership) -> None:
        """A message of the leader has arrived: refuse its rival, if there is one."""
        if membership.state is State.CONTESTED:
            membership.apply(Event.LEADER_ALIVE)
            self._refuse_rival(*self._leader_conflicts.pop(membership.layer), membership)

    # ---- a member or the leader is dead

    def handle_dead(self, membership: ClusterMembership, node: NodeId, now: float) -> None:
        """A member is dead.  If it was the leader, its rival is accepted, or the next check elects a successor."""
        membership.mark_silent(node, now - self._context.options.grace_s)
        self._schedule.set_check(now)
        if node == membership.leader and membership.state is State.CONTESTED:
            membership.apply(Event.LEADER_DEAD)
            self.handle_view(*self._leader_conflicts.pop(membership.layer), now)

    def check_leader(self, membership: ClusterMembership, now: float) -> None:
        """Replace the leader if it has been silent for the grace period."""
        silent_s = now - membership.last_heard.get(membership.leader, now)
        if silent_s >= self._context.options.grace_s:
            self._replace_leader(membership, now)

    def _replace_leader(self, membership: ClusterMembership, now: float) -> None:
        """Take the lead if all nodes before this one in the succession are dead too, or have had their time."""
        hierarchy, own, dead = self._hierarchy, self._hierarchy.own, membership.leader
        if membership.version >= VERSION_SANE:
            hierarchy.leave(membership.layer)  # no node would accept a successor's higher version
            return
        grace_s = self._context.options.grace_s
        silent = set(membership.silent_members(own, now, grace_s))
        order = dict.fromkeys((*membership.crew, *sorted(membership.members)))
        successors = [node for node in order if node in membership.members and node not in (dead, *silent)]
        before = successors[: successors.index(own)]
        if now - membership.last_heard[dead] - grace_s < RANK_S * len(before):
            for node in before:
                if node in membership.crew:
                    self._failure_detector.probe(node, now, dead=dead)
            return
        for node in (dead, *silent):
            membership.remove_member(node)
        self._superseded_leaders.add(dead, now + SUPERSEDED_S, now)
        membership.set_super_crew(tuple(node for node in membership.super_crew if node != dead), is_new_version=True)
        if membership.super_crew:
            self.join_search.take_place_of(dead, membership.layer + 1)
        self.previous_leader = dead
        self._schedule.set_heartbeat(now + CLAIM_S)
        self._leader.lead(membership, Event.SUCCEED, now)

    # ---- joining

    def send_join(self, leader: NodeId, layer: int, now: float) -> None:
        """Request membership in a cluster."""
        self.join_search.request_membership(leader, layer, self._hierarchy.crew_below(layer), now)

    def seek_membership(self, now: float) -> None:
        """Start to search for a missing membership, unless a search is under way."""
        search, hierarchy, layer = self.join_search, self._hierarchy, self._hierarchy.missing_layer
        if layer is None or (search.phase is not Phase.IDLE and not search.is_refinement):
            return
        crew = hierarchy.memberships[layer - 1].super_crew if layer else ()
        above = [node for node in crew if node != hierarchy.own and self._context.can_reach(node)]
        if search.failures < 2 * len(above):
            # One of them leads, or will as soon as it has noticed that it has to: try each in turn.
            self.send_join(above[search.failures % len(above)], layer, now)
        else:
            search.find(layer, now)

    def handle_redirect(self, peer: NodeId, redirect: Redirect, now: float) -> None:
        """A node that this one takes for a leader is none, or none any more."""
        layer, search, own = redirect.layer, self.join_search, self._hierarchy.own
        present = self._hierarchy.memberships.get(layer)
        leader = 0 if redirect.leader == own else redirect.leader
        if search.is_joining(layer) and not search.is_refinement:
            is_superseded = self._superseded_leaders.has(leader, now)
            search.handle_redirect(0 if is_superseded else leader, self._hierarchy.crew_below(layer), now)
        elif present is not None and present.leader == peer:
            self._hierarchy.leave(layer)
            if leader:
                self.send_join(leader, layer, now)

    def _handle_search_result(self, leader: NodeId, layer: int, top: int, now: float) -> None:
        """The search has found the nearest leader of a layer; `top` is the highest layer of its hierarchy."""
        search, hierarchy = self.join_search, self._hierarchy
        if search.is_refinement:
            membership = hierarchy.memberships.get(layer)
            search.stop()
            if membership is None or membership.leader in (hierarchy.own, leader) or layer != hierarchy.top:
                return
            if self._context.is_clearly_better(self._context.rtt(leader), self._context.rtt(membership.leader)):
                self.send_join(leader, layer, now)
            return
        target = search.target
        if target <= top + 1:
            self.send_join(leader, target, now)
            return
        search.stop()
        if hierarchy.leads(target - 1):
            hierarchy.disband(target - 1)

    def handle_link_up(self, peer: NodeId, now: float) -> bool:
        """Repeat a request that had no way to a node, now that its link is up.  Returns whether one was sent."""
        search, layer = self.join_search, self._hierarchy.missing_layer
        is_back = self._superseded_leaders.has(peer, now)
        self._superseded_leaders.discard(peer)  # it is alive, and may still lead in the layer above
        if layer and search.phase is Phase.JOINING:
            if is_back or peer in self._hierarchy.memberships[layer - 1].super_crew:
                self.send_join(peer, layer, now)
                return True
        elif search.phase is Phase.FINDING and peer == search.unreached:
            search.descend(peer, search.target, now)
            return True
        return False
