"""One group at one node: hands each input to the part that handles it, and runs the periodic work.

Hierarchy   memberships by layer           Leader, Operations   in clusters that this node leads
JoinSearch  way to a missing membership    Member, Refinement   in clusters that another node leads
Recovery    missing packets                FailureDetector      suspects
Routes      next hops                      SourceTable          announced sources
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from pipeline.address import Address, NodeId
from pipeline.engines.nemo import forwarding
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.failure_detector import FailureDetector
from pipeline.engines.nemo.hierarchy import Hierarchy
from pipeline.engines.nemo.join import Phase
from pipeline.engines.nemo.leader import Leader
from pipeline.engines.nemo.member import CLAIM_S, Member
from pipeline.engines.nemo.messages import (
    Answer,
    Heartbeat,
    Join,
    Leave,
    Message,
    Nack,
    NackReply,
    Query,
    Redirect,
    RootQuery,
    RootReply,
    Source,
    View,
)
from pipeline.engines.nemo.operations import Operations
from pipeline.engines.nemo.recovery import Recovery
from pipeline.engines.nemo.refinement import Refinement
from pipeline.engines.nemo.rendezvous import Rendezvous
from pipeline.engines.nemo.routes import Routes
from pipeline.engines.nemo.schedule import Schedule
from pipeline.engines.nemo.sources import SourceTable


class Group:
    """This node's part in one group."""

    def __init__(self, address: Address, context: Context, rendezvous: Rendezvous, now: float) -> None:
        self.address = address
        self.is_member = False
        self.is_source = False
        self._context = context
        self._rendezvous = rendezvous
        self.hierarchy = Hierarchy(address, context)
        self.schedule = Schedule(now)
        self.failure_detector = FailureDetector(self.hierarchy)
        self.leader = Leader(self.hierarchy, self.failure_detector)
        self.member = Member(self.hierarchy, self.leader, self.failure_detector, self.schedule, rendezvous)
        self.join_search = self.member.join_search
        self.operations = Operations(self.hierarchy, self.leader, self.member, self.schedule)
        self.refinement = Refinement(self.hierarchy, self.join_search, now)
        self.recovery = Recovery(address, context, self._providers, self.failure_detector.suspect)
        self.sources = SourceTable(self.hierarchy, now)
        self.routes = Routes(address, context)

    # ---- this node

    def set_member(self, *, is_member: bool) -> None:
        """This host has joined or left the group."""
        self.is_member = is_member

    def set_source(self, now: float, *, is_source: bool) -> None:
        """A program of this host has begun or ceased to send to the group."""
        self.is_source = is_source
        if is_source:
            self.sources.announce(now)

    def restore(self, *, is_member: bool, is_source: bool) -> None:
        """Take over the state of a checkpoint."""
        self.is_member, self.is_source = is_member, is_source

    def leave(self) -> None:
        """Leave all clusters, and withdraw from the rendezvous if this node was alone."""
        memberships = self.hierarchy.memberships
        is_last = self.hierarchy.is_root and len(memberships[0].members) == 1
        self.hierarchy.leave_from(0)
        self.routes.update(memberships)
        rendezvous = self._rendezvous.node_for(self.address)
        if is_last and rendezvous == self._context.own:
            self._rendezvous.withdraw(self.address, self._context.own)
        elif is_last:
            self._context.send(rendezvous, RootReply(self.address, 0))

    # ---- messages

    def handle_message(self, peer: NodeId, message: Message, now: float) -> None:
        """Hand a message to the part that it is for."""
        match message:
            case Heartbeat():
                self._handle_heartbeat(peer, message, now)
            case View():
                self._handle_view(peer, message, now)
            case Join():
                self.leader.handle_join(peer, message, now)
                self.sources.send_to(peer)
            case Leave():
                self.leader.handle_leave(peer, message, now)
            case Redirect():
                self.member.handle_redirect(peer, message, now)
            case Query():
                self.leader.handle_query(peer, message)
            case Answer():
                self.join_search.handle_answer(peer, message, now)
            case RootReply(root=root):
                self._handle_root(root, now)
            case Nack():
                self.recovery.handle_nack(peer, message, now)
            case NackReply():
                self._handle_alive(peer, now)
                self.recovery.handle_nack_reply(peer, message, now)
            case Source():
                self.sources.handle_source(peer, message, now)

    def _handle_view(self, peer: NodeId, view: View, now: float) -> None:
        self.member.handle_view(peer, view, now)
        if self.hierarchy.missing_layer is not None:
            self.schedule.set_check(now)

    def _handle_heartbeat(self, peer: NodeId, heartbeat: Heartbeat, now: float) -> None:
        own, layer = self._context.own, heartbeat.layer
        membership = self.hierarchy.memberships.get(layer)
        if heartbeat.echo and heartbeat.stamp:
            self._context.record_rtt(peer, max(0.0, now - (heartbeat.echo + heartbeat.held) / 1e3))
        if membership is None or (heartbeat.leader == own and membership.leader != own):
            if heartbeat.leader == own:
                self.leader.redirect(peer, layer)
            return
        if membership.leader == own and heartbeat.leader == own:
            self.leader.handle_heartbeat(membership, peer, heartbeat, now)
        if peer in membership.members:
            membership.record_heartbeat(peer, heartbeat.stamp, now)

    def _handle_alive(self, peer: NodeId, now: float) -> None:
        """A peer has answered a probe."""
        self.failure_detector.handle_alive(peer, now)
        for membership in self.hierarchy.memberships.values():
            if peer in membership.members:
                membership.mark_alive(peer, now)
            if peer == membership.leader:
                self.member.handle_leader_alive(membership)

    def handle_blocked(self, node: NodeId, now: float) -> None:
        """A joining node cannot reach this one, the root of the group."""
        self.operations.make_way(node, now)

    # ---- links and losses

    def handle_link_up(self, peer: NodeId, now: float) -> bool:
        """Use a link that has come up: repeat requests that had no way.  Returns whether anything was due.

        The rendezvous is sent this node's registration as well: other nodes may be registered there.
        """
        if self.member.handle_link_up(peer, now):
            return True
        if self._rendezvous.node_for(self.address) != peer:
            return False
        if self.join_search.phase is Phase.FINDING:
            self.join_search.find(self.join_search.target, now)
            return True
        if self.hierarchy.is_root:
            self.schedule.set_heartbeat(now)
            return True
        return False

    def handle_link_down(self, peer: NodeId, now: float) -> bool:
        """The link to a node is down.  Returns whether it is a member of this node's clusters."""
        if not any(peer in membership.members for membership in self.hierarchy.memberships.values()):
            return False
        self._handle_dead(peer, now)
        return True

    def _handle_dead(self, node: NodeId, now: float) -> None:
        for layer in list(self.hierarchy.memberships):
            membership = self.hierarchy.memberships.get(layer)
            if membership is None or node not in membership.members:
                continue
            if membership.leader == self._context.own:
                self.leader.remove_dead(membership, node)
            else:
                self.member.handle_dead(membership, node, now)

    def handle_gap(self, origin: NodeId, numbers: Collection[int], via: NodeId | None, now: float) -> None:
        """The missing packets of a stream have changed."""
        self.recovery.handle_gap(origin, numbers, via, now)

    def handle_stream_stall(self, now: float) -> None:
        """A steady stream has stopped: no later packet shows a gap."""
        self.failure_detector.suspect_leader(now)

    def _providers(self, origin: NodeId, number: int, vias: Sequence[NodeId]) -> list[NodeId]:
        stripe = number % self._context.options.crew_size
        return forwarding.providers(self._context.own, self.hierarchy.memberships, stripe, origin, vias)

    # ---- rendezvous

    def _handle_root(self, root: NodeId, now: float) -> None:
        """The rendezvous has named the root of the group; 0: it will be known soon."""
        if not root:
            return
        own, hierarchy, search = self._context.own, self.hierarchy, self.join_search
        if search.phase is Phase.FINDING:
            if root != own and self._context.can_reach(root):
                search.descend(root, search.target, now)
            elif root != own:
                search.report_unreachable(root, now)
            else:
                search.stop()
                self._become_root(now)
        elif hierarchy.is_root and root != own:
            # Another node is root: a membership above this node's top layer is missing.
            hierarchy.memberships[hierarchy.top].set_super_crew((own,))
            self.schedule.set_check(now)

    def _become_root(self, now: float) -> None:
        hierarchy, top = self.hierarchy, self.hierarchy.top
        if not hierarchy.memberships:
            self.leader.found(0, now)
        elif hierarchy.leads(top):
            hierarchy.memberships[top].set_super_crew(())
            self.leader.publish(top)

    def register_root(self, now: float) -> None:
        """Another node has registered as root: if this one is root, register at once."""
        if self.hierarchy.is_root:
            self.schedule.set_heartbeat(now)
            self.schedule.set_check(now)

    def _use_own_rendezvous(self, now: float) -> None:
        """Query or register at the rendezvous, if it is this node."""
        own = self._context.own
        is_root = self.hierarchy.is_root
        if not (self.join_search.phase is Phase.FINDING or is_root) or self._rendezvous.node_for(self.address) != own:
            return
        if self.join_search.phase is Phase.FINDING:
            root = self._rendezvous.find_root(self.address, own, now, is_root=False)
        else:
            superseded, layers = self.member.previous_leader, self.hierarchy.height
            root = self._rendezvous.find_root(
                self.address, own, now, is_root=True, superseded=superseded, layers=layers
            )
        self._handle_root(root, now)

    # ---- time

    def poll_timeout(self) -> float:
        """Return the time at which `handle_timeout` is due."""
        due = min(self.schedule.heartbeat_at, self._next_check())
        for other in (self.join_search.due, self.recovery.due, self.failure_detector.due):
            if other is not None and other < due:
                due = other
        return due

    def _next_check(self) -> float:
        """Return the time of the next check that may find anything.

        A member of one cluster that does not lead and does not search skips the checks until its leader has been silent
        for the grace period or a refinement is due.
        """
        memberships, options, check_at = self.hierarchy.memberships, self._context.options, self.schedule.check_at
        is_busy = len(memberships) != 1 or self.is_source or self.join_search.phase is not Phase.IDLE
        if is_busy or self.hierarchy.leads(0) or not self.refinement.is_drawn(memberships[0]):
            return check_at
        silent_at = memberships[0].last_heard.get(memberships[0].leader, 0.0) + options.grace_s
        idle_s = min(silent_at, self.refinement.due) - check_at
        return check_at + options.check_s * math.ceil(max(0.0, idle_s) / options.check_s)

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        options = self._context.options
        if self._context.view.announces_sources and self.is_source and self.sources.announce_at <= now:
            self.sources.announce(now)
        self.recovery.handle_timeout(now)
        for node in self.failure_detector.handle_timeout(now):
            self._handle_dead(node, now)
        if self.join_search.due is not None and self.join_search.due <= now:
            self.join_search.handle_timeout(now)
        if self._next_check() <= now:
            self.schedule.set_check(now + options.check_s)
            self._check(now)
        if self.schedule.heartbeat_at <= now:
            self.schedule.set_heartbeat(now + options.heartbeat_s * (0.9 + 0.2 * self._context.random()))
            self._send_heartbeats(now)
        self._use_own_rendezvous(now)

    def _send_heartbeats(self, now: float) -> None:
        """Send heartbeats to all members, crew lists if they are due, and the registration of a root."""
        hierarchy, own = self.hierarchy, self._context.own
        for layer, membership in hierarchy.memberships.items():
            for node in membership.members:
                if node != own:
                    hierarchy.send_heartbeat(layer, node, now)
        if self.schedule.crew_list_at <= now:
            self.schedule.set_crew_list(now + self._context.draw_interval(self._context.options.crew_exchange_s))
            for layer in hierarchy.memberships:
                if hierarchy.leads(layer):
                    self.leader.send_view_to_all(layer)
        rendezvous = self._rendezvous.node_for(self.address)
        if hierarchy.is_root and rendezvous != own:
            registration = RootQuery(self.address, own, self.member.previous_leader, hierarchy.height)
            self._context.send(rendezvous, registration)

    def _check(self, now: float) -> None:
        """Look for silent nodes, a missing membership, operations on clusters, and a closer leader."""
        hierarchy = self.hierarchy
        for layer in list(hierarchy.memberships):
            membership = hierarchy.memberships.get(layer)
            if membership is None:
                break
            if membership.leader == self._context.own:
                self.leader.remove_silent(membership, now)
            else:
                self.member.check_leader(membership, now)
        self.leader.publish_newcomers()
        self.member.seek_membership(now)
        if not hierarchy.memberships or self.schedule.heartbeat_at <= now + CLAIM_S:
            return  # a new leader first sends heartbeats to the members that it claims
        self.operations.check(now)
        if hierarchy.top >= 0 and self.operations.is_allowed(hierarchy.top, now):
            self.refinement.check(now)

    # ---- views

    def peers(self) -> frozenset[NodeId]:
        """Return the nodes to which this one needs a link: members of its clusters and nodes to which it sends.

        A crew member includes the crew above, to which it may have to send.  A node that only sends to this one
        requests the link by itself.
        """
        memberships = self.hierarchy.memberships.values()
        found = {node for membership in memberships for node in membership.members}
        for membership in memberships:
            if self._context.own in membership.crew:
                found.update(membership.super_crew)
        return frozenset((found | self.routes.nodes()) - {self._context.own})
