"""One group at one node: its seats in the clusters, and what is done when a message about them comes.

The leader of a cluster alone decides who is in it and tells all by a View; of two views of one layer the greater
version wins.  A member that knows better than what it is told says so (Leave, Redirect), so that any two nodes agree
after a few heartbeats whatever was lost.  Timers and operations on clusters are in maintenance.py, what follows for
packets in routes.py.

    no seat ── Join ──▶ member ── a View makes it leader ──▶ leader, and member one layer above (Join there)
                          │  leader silent: the first of the crew that is alive takes over
                          └─ leaves; a leader first makes a successor
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.address import Address, NodeId
from pipeline.engines.nemo import forwarding
from pipeline.engines.nemo.clusters import Crew, Seat, choose_crew
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.expiring import TtlMap
from pipeline.engines.nemo.failure_detector import SILENT_WAIT_S, FailureDetector
from pipeline.engines.nemo.join import JoinSearch, Phase
from pipeline.engines.nemo.messages import (
    CLUSTER_MAX,
    LAYERS_MAX,
    TOP_MAX,
    VERSION_SANE,
    Answer,
    Heartbeat,
    Join,
    Leave,
    Nack,
    Query,
    Redirect,
    View,
    named,
)
from pipeline.engines.nemo.recovery import Recovery
from pipeline.engines.nemo.routes import Routes

TOLD_S = 1.0
GIVEN_S = 1.0
"""Whoever leads tells all members: who is made a leader without end would make all of them talk."""
DISMISSED_S = 1.0
"""More than a heartbeat is under way."""
NOT_DRAWN = -1.0
"""The chance of no event."""
CROWD = 16
"""In a cluster with more members, twice what is split, all hear of newcomers at the next check: many join at once."""


class Group:
    """The seats of this node in one group's hierarchy."""

    def __init__(self, group: Address, desk: Context, now: float) -> None:
        self.group = group
        self.desk = desk
        self.own = desk.own
        self.seats: dict[int, Seat] = {}
        """By layer; 0 … n without gaps: this node leads all but perhaps the last."""
        self.unsaid: set[int] = set()
        """Layers whose members have not been told of all newcomers."""
        self.is_member = False
        self.is_source = False
        self.descent = JoinSearch(group, desk, self._arrive)
        self.recovery = Recovery(group, desk, self._providers, self.suspect)
        self.doubts = FailureDetector(group, desk)
        self._told: TtlMap[NodeId] = TtlMap()
        """Peers whose leader has been told that they do not answer: it is not told again so soon."""
        self.beat_at = now
        self.check_at = now
        self.announce_at = now
        """When this node says again that it is a source, where nodes know each other only by mention."""
        self.refine_at = now
        """When this node looks whether another leader is closer, if its chance to do so is still `refine_chance`."""
        self.refine_chance = NOT_DRAWN
        """In each check, as it was when `refine_at` was drawn."""
        self.operation_at: dict[int, float] = {}
        """When each layer's cluster may be operated on again."""
        self.exchange_at = now
        self.followed: NodeId = 0
        """Whose lead this node has taken over last."""
        self.buried: TtlMap[NodeId] = TtlMap()
        """Leaders that have been followed: no word of theirs or of them is believed."""
        self.claims: dict[int, tuple[NodeId, View]] = {}
        """By layer: who claims our leader's place, and its view; the leader has been asked whether it lives."""
        self.petitions: dict[int, dict[NodeId, tuple[Join, float]]] = {}
        """By layer: who says that our leader is dead and wants the place of one of its, and until when that is worth an
        answer: as soon as somebody else leads."""
        self._dismissed: TtlMap[tuple[int, NodeId]] = TtlMap()
        """By layer: members that have been given another leader.  A heartbeat of theirs may be one of before, and is no
        wish to come back."""
        self._given: TtlMap[int] = TtlMap()
        """Layers in which this node does not take the lead again because somebody says so."""
        self.replaces: dict[int, NodeId] = {}
        """By layer: whose place there this node's next Join takes."""
        self.routes = Routes(group, desk)
        self.is_changed = False

    # ---- where this node stands

    def leads(self, layer: int) -> bool:
        """Whether this node leads its cluster of that layer."""
        seat = self.seats.get(layer)
        return seat is not None and seat.leader == self.own

    @property
    def missing_layer(self) -> int | None:
        """The layer in which this node needs a seat and has none: above the last it leads, if that is not the top."""
        layer = len(self.seats)
        if layer == 0:
            return 0
        return layer if self.leads(layer - 1) and self.seats[layer - 1].super_crew else None

    @property
    def is_root(self) -> bool:
        """Whether this node leads the top cluster."""
        top = len(self.seats) - 1
        return top >= 0 and self.leads(top) and not self.seats[top].super_crew

    @property
    def height(self) -> int:
        """Of the hierarchy that this node leads: its layers; 0 if nobody else is in them."""
        return len(self.seats) if len(self.seats) > 1 or len(self.seats[0].members) > 1 else 0

    def crew_below(self, layer: int) -> Crew:
        """The crew of the cluster by which this node sits in that layer."""
        return self.seats[layer - 1].crew if layer and layer - 1 in self.seats else ()

    # ---- who lives

    def _providers(self, origin: NodeId, number: int, vias: Sequence[NodeId]) -> list[NodeId]:
        stripe = number % self.desk.parameters.crew_size
        return forwarding.providers(self.own, self.seats, stripe, origin, vias)

    def suspect(self, node: NodeId, now: float) -> None:
        """Somebody has not answered: who can replace it finds out whether it lives, others tell the leader."""
        for seat in self.seats.values():
            if node not in seat.members or node == self.own:
                continue
            if seat.leader in (self.own, node):
                self.doubts.begin(node, now)
            elif not self._told.has(node, now):
                self._told.add(node, now + TOLD_S, now)
                self.desk.send(seat.leader, Nack(self.group, 0, (), node), (node,))

    def ask_leader(self, now: float) -> None:
        """Find out whether who leads the highest of our clusters lives."""
        if self.seats and self.seats[max(self.seats)].leader != self.own:
            self.doubts.begin(self.seats[max(self.seats)].leader, now, wait_s=SILENT_WAIT_S)

    def hear(self, peer: NodeId, now: float) -> None:
        """A peer lives."""
        self.doubts.end(peer, now)
        for seat in self.seats.values():
            if peer in seat.members:
                seat.heard[peer] = now
            if peer == seat.leader and seat.layer in self.claims:
                self._decline(*self.claims.pop(seat.layer), seat)

    def bury(self, seat: Seat, node: NodeId, now: float) -> None:
        """A member of another's cluster is dead; if it led, who has claimed its place has it."""
        seat.heard[node] = now - self.desk.parameters.grace_s
        self.check_at = now
        if node == seat.leader and seat.layer in self.claims:
            self.handle_view(*self.claims.pop(seat.layer), now)

    # ---- leading

    def found(self, now: float) -> None:
        """Be the first of the group."""
        self.descent.stop()
        self.lead(Seat(0, self.own, 1, {self.own: ()}, (self.own,)), now)

    def lead(self, seat: Seat, now: float) -> None:
        """Take the lead of a cluster and tell all its members."""
        seat.leader = self.own
        seat.members[self.own] = self.crew_below(seat.layer)
        seat.heard = dict.fromkeys(seat.members, now)
        self.seats[seat.layer] = seat
        self.publish(seat.layer)
        self._answer_petitions(seat.layer, now)

    def publish(self, layer: int) -> None:
        """A cluster that this node leads has changed: choose its crew, tell its members and those above and below."""
        seat = self.seats[layer]
        self.unsaid.discard(layer)
        crew = choose_crew(seat, self.own, self.desk.parameters.crew_size, self.desk.rtt)
        is_new_crew = crew != seat.crew
        seat.crew = crew
        seat.version += 1
        self.tell(layer)
        above = self.seats.get(layer + 1)
        if above is not None and is_new_crew:
            if above.leader == self.own:
                above.members[self.own] = crew
                self.publish(layer + 1)
            else:
                self.send_beat(layer + 1, above.leader)
        if layer:
            self._inherit(layer)
        self.is_changed = True

    def _inherit(self, layer: int) -> None:
        """The crew of a layer is the super crew of the one below that this node leads."""
        seat, below = self.seats[layer], self.seats.get(layer - 1)
        if below is not None and below.leader == self.own and below.super_crew != seat.crew:
            below.super_crew = seat.crew
            below.version += 1
            self.tell(layer - 1)
            self.is_changed = True

    def tell(self, layer: int) -> None:
        """The present view to all members."""
        self.send_view(layer, *(node for node in self.seats[layer].members if node != self.own))

    def send_view(self, layer: int, *peers: NodeId) -> None:
        """The present view to some."""
        seat = self.seats[layer]
        view = View(self.group, layer, seat.version, seat.leader, seat.members, seat.crew, seat.super_crew)
        self.desk.send_all(peers, view, named(view))

    # ---- being told

    def handle_view(self, peer: NodeId, view: View, now: float) -> None:
        """A leader's view of a cluster, perhaps this node's own."""
        if view.version > VERSION_SANE:
            return
        seat = self.seats.get(view.layer)
        is_above = view.layer == len(self.seats) <= TOP_MAX and (view.layer == 0 or self.leads(view.layer - 1))
        if self.own not in view.members:
            if seat is not None and peer == seat.leader and view.leader == peer and view.version > seat.version:
                self.unseat(view.layer)
            return
        if not view.crew or view.leader not in view.members or (seat is None and not is_above):
            self._refuse(peer, view, now)
            return
        if seat is not None and not self._is_newer(view, seat):
            if seat.leader != view.leader:
                self._decline(peer, view, seat)
            return
        if seat is not None and self._is_claim(peer, view, seat, now):
            self._examine(peer, view, seat, now)
            return
        if view.leader == self.own:
            if self._given.has(view.layer, now):
                return
            self._given.add(view.layer, now + GIVEN_S, now)
        self._take_seat(peer, view, seat, now)

    def _refuse(self, peer: NodeId, view: View, now: float) -> None:
        """There is no seat to take; if this node was to lead, the members have been told so and go back."""
        self.desk.send(peer, Leave(self.group, view.layer, 0, ()))
        if view.leader == self.own and not self._given.has(view.layer, now):
            self._given.add(view.layer, now + GIVEN_S, now)
            others = [node for node in view.members if node not in (self.own, peer)]
            self.desk.send_all(others, Redirect(self.group, view.layer, peer), (peer,))

    def _is_claim(self, peer: NodeId, view: View, seat: Seat, now: float) -> bool:
        """Whether somebody follows our leader, which has said nothing of it and lives as far as this node knows."""
        is_told = seat.leader in (self.own, peer, view.leader, *view.members)
        is_asked_for = self.descent.phase is Phase.JOINING and self.descent.target == view.layer
        return not (is_told or is_asked_for) and now - seat.heard[seat.leader] < self.desk.parameters.grace_s

    def _examine(self, peer: NodeId, view: View, seat: Seat, now: float) -> None:
        """Follow an heir only if the leader is dead: one who alone does not reach it would draw the others away."""
        if self.doubts.is_good(seat.leader, now):
            self._decline(peer, view, seat)
        else:
            self.claims[view.layer] = peer, view
            self.doubts.begin(seat.leader, now)

    def _is_newer(self, view: View, seat: Seat) -> bool:
        is_asked_for = self.descent.phase is Phase.JOINING and self.descent.target == view.layer
        if is_asked_for and seat.leader not in (self.own, view.leader):
            return True
        return (view.version, -view.leader) > (seat.version, -seat.leader)

    def _decline(self, peer: NodeId, view: View, seat: Seat) -> None:
        """Another leader counts this node in: it has been overtaken, and is told so if it is in the newer view."""
        if seat.leader == self.own and view.leader in seat.members:
            self.send_view(view.layer, peer)
        else:
            self.desk.send(peer, Leave(self.group, view.layer, 0, ()))

    def _take_seat(self, peer: NodeId, view: View, seat: Seat | None, now: float) -> None:
        """Sit where the view says."""
        layer = view.layer
        if self.descent.phase is Phase.JOINING and self.descent.target == layer:
            self.descent.stop()
            self.descent.failures = 0
        if seat is not None and seat.leader not in (self.own, view.leader) and seat.leader not in view.members:
            self.desk.send(seat.leader, Leave(self.group, layer, 0, ()))
        led = list(seat.members) if seat is not None and seat.leader == self.own else []
        new = Seat(layer, view.leader, view.version, dict(view.members), view.crew, view.super_crew)
        new.inherit(seat, now)
        new.heard[view.leader] = now
        self.seats[layer] = new
        self.replaces.pop(layer, None)
        self.is_changed = True
        if view.leader == self.own:
            self.followed = peer
            self.beat_at = now
            self.lead(new, now)
        elif led:
            left = [node for node in led if node not in view.members]
            self.desk.send_all(left, Redirect(self.group, layer, view.leader), (view.leader,))
            self.leave_from(layer + 1, successor=view.leader, crew=view.crew)
        if view.leader != self.own:
            self._answer_petitions(layer, now)
        if layer:
            self._inherit(layer)
            if view.leader != self.own and view.members[self.own] != self.crew_below(layer):
                self.send_beat(layer, view.leader)
        if layer in self.claims:
            self.handle_view(*self.claims.pop(layer), now)

    # ---- members come and go (at the leader)

    def handle_join(self, peer: NodeId, join: Join, now: float) -> None:
        """Somebody wants to be in our cluster."""
        layer, top = join.layer, len(self.seats) - 1
        if layer == top + 1 <= TOP_MAX and self.is_root:
            # The hierarchy of the newcomer is as high as ours: a layer above both is needed.
            self.lead(Seat(layer, self.own, 1, {self.own: self.crew_below(layer)}, (self.own,)), now)
        if not self.leads(layer):
            seat = self.seats.get(layer)
            leader = seat.leader if seat is not None and seat.leader != peer else 0
            if leader and leader == join.replaces:
                self._examine_death(peer, join, now)
            else:
                self.desk.send(peer, Redirect(self.group, layer, leader), (leader,))
            return
        seat = self.seats[layer]
        if join.replaces not in (0, self.own, peer):
            if join.replaces in self.desk.up:
                self.suspect(join.replaces, now)  # it may have been apart from the heir, and live
            else:
                seat.forget(join.replaces)
        self._admit(seat, peer, join.crew, now)

    def _examine_death(self, peer: NodeId, join: Join, now: float) -> None:
        """Our leader has died one layer below, says its heir there: if so, who follows it here answers."""
        waiting = self.petitions.setdefault(join.layer, {})
        if peer in waiting or len(waiting) < CLUSTER_MAX:
            waiting[peer] = join, now + self.desk.parameters.retry_s
        self.suspect(join.replaces, now)

    def _answer_petitions(self, layer: int, now: float) -> None:
        for peer, (join, until) in self.petitions.pop(layer, {}).items():
            if now < until:
                self.handle_join(peer, join, now)

    def _admit(self, seat: Seat, peer: NodeId, crew: Crew, now: float) -> None:
        is_new, is_same = peer not in seat.members, seat.members.get(peer) == crew
        if is_new and len(seat.members) >= CLUSTER_MAX:
            return
        seat.heard[peer] = now
        seat.members[peer] = crew
        if is_same or (is_new and len(seat.members) > CROWD):
            self.send_view(seat.layer, peer)
        if is_new and len(seat.members) > CROWD:
            self.unsaid.add(seat.layer)
            self.is_changed = True
        elif not is_same:
            self.publish(seat.layer)

    def dismiss(self, seat: Seat, nodes: Iterable[NodeId], now: float) -> None:
        """Members are to have another leader."""
        for node in nodes:
            seat.forget(node)
            self._dismissed.add((seat.layer, node), now + DISMISSED_S, now)

    def handle_leave(self, peer: NodeId, leave: Leave, now: float) -> None:
        """Somebody is no longer in our cluster; or its lead is handed over."""
        seat = self.seats.get(leave.layer)
        if seat is None or peer not in seat.members or not self.leads(leave.layer):
            return
        seat.forget(peer)
        if leave.successor not in (0, self.own):
            seat.members[leave.successor] = leave.crew
            seat.heard[leave.successor] = now
        self.publish(leave.layer)

    def handle_redirect(self, peer: NodeId, redirect: Redirect, now: float) -> None:
        """Who we took for a leader is none."""
        layer = redirect.layer
        seat = self.seats.get(layer)
        if self.descent.phase is Phase.JOINING and self.descent.target == layer and not self.descent.is_refinement:
            is_dead = self.buried.has(redirect.leader, now)
            if redirect.leader in (0, self.own) or is_dead or self.descent.redirects >= LAYERS_MAX:
                self.descent.retry(now)  # or they send us round in circles
            else:
                self.descent.redirects += 1
                self.send_join(redirect.leader, layer, now)
            return
        if seat is None or seat.leader != peer:
            return
        self.unseat(layer)
        if redirect.leader not in (0, self.own):
            self.send_join(redirect.leader, layer, now)

    def send_join(self, leader: NodeId, layer: int, now: float) -> None:
        """Ask to be taken into a cluster."""
        self.descent.target = layer
        self.descent.joining(now)
        crew = self.crew_below(layer)
        self.desk.send(leader, Join(self.group, layer, crew, self.replaces.get(layer, 0)), crew)

    def _arrive(self, leader: NodeId, layer: int, top: int, now: float) -> None:
        """The search has found the nearest leader of the layer."""
        if self.descent.is_refinement:
            seat = self.seats.get(layer)
            self.descent.stop()
            if seat is None or seat.leader in (self.own, leader) or layer != len(self.seats) - 1:
                return
            if self.desk.is_better(self.desk.rtt(leader), self.desk.rtt(seat.leader)):
                self.send_join(leader, layer, now)
            return
        target = self.descent.target
        if target <= top + 1:
            self.send_join(leader, target, now)
        else:
            self.descent.stop()
            if self.leads(target - 1):
                self.disband(target - 1)

    # ---- giving up seats

    def unseat(self, layer: int) -> None:
        """We have no seat in that layer any more, and so none above."""
        self.leave_from(layer + 1)
        self.seats.pop(layer, None)
        self.is_changed = True

    def disband(self, layer: int) -> None:
        """Our cluster ends, and those above it that we lead: its members look for places by themselves."""
        self.leave_from(layer + 1)
        seat = self.seats[layer]
        others = (node for node in seat.members if node != self.own)
        self.desk.send_all(others, Redirect(self.group, layer, 0))
        self.seats.pop(layer)
        if layer - 1 in self.seats:
            self.seats[layer - 1].super_crew = (self.own,)
        self.is_changed = True

    def leave_from(self, lowest: int, *, successor: NodeId = 0, crew: Crew = ()) -> None:
        """Give up all seats from that layer on, from below: who is led gets another leader, who leads is told.

        `successor` with its `crew` takes our place in the lowest.
        """
        for layer in sorted(layer for layer in self.seats if layer >= lowest):
            seat = self.seats.pop(layer)
            if seat.leader != self.own:
                self.desk.send(seat.leader, Leave(self.group, layer, successor, crew), (successor, *crew))
                break
            seat.forget(self.own)
            if successor:
                seat.members[successor] = crew
            if not seat.members:
                successor, crew = 0, ()
                continue
            heirs = [node for node in seat.crew if node in seat.members]
            heir = heirs[0] if heirs else min(seat.members, key=lambda node: (self.desk.rtt(node), node))
            heirs = [heir, *(node for node in heirs if node != heir)]
            new_crew = tuple(heirs)
            view = View(self.group, layer, seat.version + 2, heir, seat.members, new_crew, seat.super_crew)
            self.desk.send_all(seat.members, view, named(view))
            successor, crew = heir, new_crew
        self.is_changed = True

    # ---- heartbeats

    def send_beat(self, layer: int, peer: NodeId, now: float | None = None) -> None:
        """The heartbeat to one peer of the cluster; without `now` it does not measure."""
        seat = self.seats[layer]
        stamp, echo, held, distances = 0.0, 0.0, 0.0, {}
        if now is not None:
            stamp = now * 1e3
            if peer in seat.stamps:
                echo, came = seat.stamps[peer]
                held = (now - came) * 1e3
            if peer == seat.leader:
                rtt = self.desk.rtt
                others = [node for node in seat.members if node != self.own and self.desk.knows_rtt(node)]
                distances = {node: float(round(rtt(node) * 1e3)) for node in others}
        crew = self.crew_below(layer)
        beat = Heartbeat(self.group, layer, seat.leader, seat.version, crew, stamp, echo, held, distances)
        self.desk.send(peer, beat, crew if peer == seat.leader else ())

    def handle_beat(self, peer: NodeId, beat: Heartbeat, now: float) -> None:
        """A peer of a cluster is alive."""
        seat = self.seats.get(beat.layer)
        if beat.echo and beat.stamp:
            self.desk.measured(peer, max(0.0, now - (beat.echo + beat.held) / 1e3))
        if seat is None or (beat.leader == self.own and seat.leader != self.own):
            if beat.leader == self.own:
                leader = seat.leader if seat is not None and seat.leader != peer else 0
                self.desk.send(peer, Redirect(self.group, beat.layer, leader), (leader,))
            return
        if seat.leader == self.own and beat.leader == self.own:
            if seat.members.get(peer) != beat.crew:
                if not self._dismissed.has((beat.layer, peer), now):
                    self._admit(seat, peer, beat.crew, now)
            elif seat.version < beat.version <= VERSION_SANE:
                seat.version = beat.version  # it has been told what we have never said, and would not believe less
                self.publish(beat.layer)
            elif beat.version != seat.version:
                self.send_view(beat.layer, peer)
            if beat.distances and peer in seat.members:
                seat.distances[peer] = {node: each / 1e3 for node, each in beat.distances.items()}
        if peer in seat.members:
            seat.heard[peer] = now
            if beat.stamp:
                seat.stamps[peer] = beat.stamp, now

    def handle_query(self, peer: NodeId, query: Query) -> None:
        """Who is in our cluster of that layer?"""
        led = [layer for layer in self.seats if self.leads(layer) and layer <= query.layer]
        if led:
            seat = self.seats[max(led)]
            members = list(seat.members) if seat.layer > query.target else []
            self.desk.send(peer, Answer(self.group, seat.layer, query.ticket, members, len(self.seats) - 1), members)
