"""What a node does for its clusters when time passes: heartbeats, failures, searches for a place, and operations.

Operations of a leader, at most one on a cluster in `operation_gap_s`, looked for every `check_s`:

    more than 3k - 1 members     split in two (always; a crowd of newcomers again at the next look)
    fewer than k                 move all to the nearest neighbour (1 %), if there is one
    fewer than a crew, above 0   the same, always (ours): those below would hang on one node in all turns
    another centre is better     hand the lead over (as often as a refinement)
    alone at the top             the layer goes

and of every peer: look whether another leader of the layer is closer (1 %; 0.1 % from an undersized cluster).  When
that is to be is drawn in advance, so that most peers, who lead nobody, need not look each second.

The paper is silent on who follows a dead leader; here the first of its crew that is alive does, the others waiting
RANK_S longer each, then all members by number.  Who waits asks the crew before it whether it lives: it may be dead too,
or not know yet that its leader is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.address import NodeId
from pipeline.engines.nemo.clusters import Crew, Seat, best_centre, radius, split
from pipeline.engines.nemo.group import CROWD, NOT_DRAWN, Group
from pipeline.engines.nemo.join import Phase
from pipeline.engines.nemo.messages import CLUSTER_MAX, TOP_MAX, VERSION_SANE, Redirect, RootQuery, View, named
from pipeline.engines.nemo.options import Options

RANK_S = 2.0
CLAIM_S = 0.3
"""Within this time those who still reach the leader have left its heir, which then claims no more than it has."""
YIELD_GAP_S = 30.0
"""Between two times that a leader makes way for nodes that do not reach it: there may be no leader that all reach."""
BURIED_S = 30.0
"""How long nobody is believed who says that a dead leader leads."""


def poll_timeout(group: Group) -> float:
    """When `handle_timeout` is due."""
    due = min(group.beat_at, _next_check(group))
    for other in (group.descent.due, group.recovery.due, group.doubts.due):
        if other is not None and other < due:
            due = other
    return due


def _next_check(group: Group) -> float:
    """When to look at the clusters.  Who leads nobody and has its place skips the looks that would find nothing: before
    its leader has been silent for too long, or a refinement is due.
    """
    parameters = group.desk.parameters
    is_busy = len(group.seats) != 1 or group.is_source or group.descent.phase is not Phase.IDLE
    if is_busy or group.leads(0) or group.refine_chance != _refine_chance(group.seats[0], parameters):
        return group.check_at
    seat = group.seats[0]
    idle_s = min(seat.heard.get(seat.leader, 0.0) + parameters.grace_s, group.refine_at) - group.check_at
    return group.check_at + parameters.check_s * math.ceil(max(0.0, idle_s) / parameters.check_s)


def handle_timeout(group: Group, rendezvous: Callable[[], NodeId], now: float) -> None:
    """Whatever is due."""
    parameters = group.desk.parameters
    group.recovery.handle_timeout(now)
    for node in group.doubts.handle_timeout(now):
        handle_death(group, node, now)
    if group.descent.due is not None and group.descent.due <= now:
        group.descent.handle_timeout(now)
    if _next_check(group) <= now:
        group.check_at = now + parameters.check_s
        _check(group, rendezvous, now)
    if group.beat_at <= now:
        group.beat_at = now + parameters.heartbeat_s * (0.9 + 0.2 * group.desk.random())
        _beat(group, rendezvous, now)


def handle_death(group: Group, node: NodeId, now: float) -> None:
    """The link to a node is down, or the node is silent: whoever it was, it is no more."""
    for layer in list(group.seats):
        seat = group.seats.get(layer)
        if seat is None or node not in seat.members:
            continue
        if seat.leader == group.own:
            seat.forget(node)
            group.publish(layer)
        else:
            group.bury(seat, node, now)


# ---- time


def _beat(group: Group, rendezvous: Callable[[], NodeId], now: float) -> None:
    for layer, seat in group.seats.items():
        for node in seat.members:
            if node != group.own:
                group.send_beat(layer, node, now)
    if group.exchange_at <= now:
        group.exchange_at = now + group.desk.exponential(group.desk.parameters.crew_exchange_s)
        for layer in group.seats:
            if group.leads(layer):
                group.tell(layer)
    entrance = rendezvous()
    if group.is_root and entrance != group.own:
        group.desk.send(entrance, RootQuery(group.group, group.own, group.followed, group.height))


def _check(group: Group, rendezvous: Callable[[], NodeId], now: float) -> None:
    _bury(group, now)
    for layer in sorted(group.unsaid):
        if group.leads(layer):
            group.publish(layer)
    group.unsaid.clear()
    _seek(group, rendezvous, now)
    if not group.seats or group.beat_at <= now + CLAIM_S:
        return  # an heir first lets it be known what it leads
    for layer in list(group.seats):
        if group.leads(layer) and group.seats[layer].version > VERSION_SANE:
            group.disband(layer)
    gap_s = group.desk.parameters.operation_gap_s
    for layer in reversed(list(group.seats)):
        is_crowd = layer in group.seats and len(group.seats[layer].members) > CROWD
        if (is_crowd or now >= group.operation_at.get(layer, 0.0)) and _operate(group, layer, now):
            group.operation_at[layer] = now + gap_s
    top = len(group.seats) - 1
    if top >= 0 and now >= group.operation_at.get(top, 0.0):
        _refine(group, now)


def _bury(group: Group, now: float) -> None:
    """Peers that have been silent for the grace period."""
    grace_s = group.desk.parameters.grace_s
    for layer in list(group.seats):
        seat = group.seats.get(layer)
        if seat is None:
            break
        if seat.leader == group.own:
            silent = [node for node in seat.members if node != group.own and now - seat.heard[node] >= grace_s]
            for node in silent:
                seat.forget(node)
            if silent:
                group.publish(layer)
        elif now - seat.heard.get(seat.leader, now) >= grace_s:
            _succeed(group, seat, now)


def _succeed(group: Group, seat: Seat, now: float) -> None:
    """The leader is dead: take its place if all before us in the succession are dead too, or have had their time."""
    grace_s = group.desk.parameters.grace_s
    dead = seat.leader
    if seat.version >= VERSION_SANE:
        group.unseat(seat.layer)  # nobody would believe an heir
        return
    heirs = [node for node in (*seat.crew, *sorted(seat.members)) if node in seat.members and node != dead]
    silent = {node for node in heirs if node != group.own and now - seat.heard.get(node, now) >= grace_s}
    heirs = [node for node in dict.fromkeys(heirs) if node not in silent]
    silent_s = now - seat.heard[dead] - grace_s
    before = heirs[: heirs.index(group.own)]
    if silent_s < RANK_S * len(before):
        for node in before:
            if node in seat.crew:
                group.doubts.begin(node, now, instead=dead)
        return
    super_crew = tuple(node for node in seat.super_crew if node != dead)
    for node in (dead, *silent):
        seat.forget(node)
    group.buried.add(dead, now + BURIED_S, now)
    seat.super_crew = super_crew
    seat.version += 1
    if super_crew:
        group.replaces[seat.layer + 1] = dead
    group.followed, group.beat_at = dead, now + CLAIM_S
    group.lead(seat, now)


def _seek(group: Group, rendezvous: Callable[[], NodeId], now: float) -> None:
    """Begin to look for a place if one is lacking and nobody has been asked."""
    layer = group.missing_layer
    if layer is None or (group.descent.phase is not Phase.IDLE and not group.descent.is_refinement):
        return
    crew = group.seats[layer - 1].super_crew if layer else ()
    above = [node for node in crew if node != group.own and group.desk.is_reachable(node)]
    if group.descent.failures < 2 * len(above):
        # Who of them leads now, or will as soon as it has noticed, is not known: they are asked in turn.
        group.send_join(above[group.descent.failures % len(above)], layer, now)
        return
    group.descent.find(rendezvous(), layer, now)


# ---- operations


def _operate(group: Group, layer: int, now: float) -> bool:
    parameters = group.desk.parameters
    seat = group.seats.get(layer)
    if seat is None or not group.leads(layer):
        return False
    size, draw = len(seat.members), group.desk.random()
    if size > 3 * parameters.k - 1:
        if draw < parameters.split_probability:
            _split(group, seat, now)
            return True
        return False
    if size == 1 and layer == len(group.seats) - 1 and layer and group.is_root:
        group.seats.pop(layer)
        group.seats[layer - 1].super_crew = ()
        group.publish(layer - 1)
        group.beat_at = now
        return True
    if size < parameters.k and layer + 1 in group.seats:
        is_brittle = layer > 0 and size < parameters.crew_size
        return (is_brittle or draw < parameters.merge_probability) and _merge(group, seat, now)
    return draw < parameters.refine_probability and _recentre(group, seat)


def _distance(group: Group, seat: Seat) -> Callable[[NodeId, NodeId], float]:
    def distance(one: NodeId, other: NodeId) -> float:
        for a, b in ((one, other), (other, one)):
            if a == group.own:
                return group.desk.rtt(b)
            found = seat.distances.get(a, {}).get(b)
            if found is not None:
                return found
        return group.desk.rtt(one) + group.desk.rtt(other)  # by way of us, at the most

    return distance


def _split(group: Group, seat: Seat, now: float) -> None:
    """One half gets a leader of its own, which is a new member of the cluster above."""
    layer = seat.layer
    if layer == TOP_MAX:
        return
    smallest = 3 * group.desk.parameters.k // 2
    leader, away = split(group.own, list(seat.members), smallest, _distance(group, seat))
    if layer + 1 not in group.seats:
        if seat.super_crew:
            return  # a place above is being looked for
        group.lead(Seat(layer + 1, group.own, 1, {group.own: seat.crew}, (group.own,)), now)
    members = {node: seat.members[node] for node in away}
    size = group.desk.parameters.crew_size
    crew = (leader, *(node for node in away if node != leader))[:size]
    version = seat.version
    above = group.seats[layer + 1]
    if len(above.members) >= CLUSTER_MAX:
        return
    group.dismiss(seat, away, now)
    if above.leader == group.own:
        above.members[leader] = crew
        above.heard[leader] = now
    seat.version += 1
    group.publish(layer)
    view = View(group.group, layer, version + 3, leader, members, crew, above.crew)
    group.desk.send_all(away, view, named(view))
    if above.leader == group.own:
        group.publish(layer + 1)


def _merge(group: Group, seat: Seat, now: float) -> bool:
    """All go to the neighbour that is nearest."""
    layer, heard = seat.layer, group.seats[seat.layer + 1].heard
    alive_since = now - group.desk.parameters.grace_s
    neighbours = [node for node, at in heard.items() if node != group.own and at > alive_since]
    if not neighbours:
        return False
    other = min(neighbours, key=lambda node: (group.desk.rtt(node), node))
    members = [node for node in seat.members if node != group.own]
    for node in members:
        group.desk.send(node, Redirect(group.group, layer, other), (other,))
    group.leave_from(layer + 1)
    group.seats.pop(layer, None)
    group.is_changed = True
    group.send_join(other, layer, now)
    return True


def _recentre(group: Group, seat: Seat) -> bool:
    """Hand the lead to a member that is clearly nearer to all."""
    distance = _distance(group, seat)
    members = [group.own, *(node for node in seat.members if node != group.own)]
    centre = best_centre(members, distance)
    present_s = radius(group.own, members, distance)
    if centre == group.own or not group.desk.is_better(radius(centre, members, distance), present_s):
        return False
    _hand_over(group, seat, (centre, *(node for node in seat.crew if node != centre)))
    return True


def _hand_over(group: Group, seat: Seat, crew: Crew) -> None:
    """The first of a crew is to lead; once it does it tells all."""
    crew = crew[: group.desk.parameters.crew_size]
    view = View(group.group, seat.layer, seat.version + 1, crew[0], dict(seat.members), crew, seat.super_crew)
    group.desk.send(crew[0], view, named(view))


def yield_lead(group: Group, blocked: NodeId, now: float) -> None:
    """A node that does not reach us wants a place in the group that we lead: another leads, which it may reach."""
    top = len(group.seats) - 1
    if not group.is_root or now < group.operation_at.get(top, 0.0) or blocked in group.desk.up:
        return
    seat = group.seats[top]
    heirs = [node for node in dict.fromkeys((*seat.crew, *seat.members)) if node in seat.members and node != group.own]
    heirs.sort(key=lambda node: node == group.followed or not group.desk.is_reachable(node))
    if heirs and heirs[0] != group.followed:
        group.operation_at[top] = now + YIELD_GAP_S
        _hand_over(group, seat, tuple(heirs))  # we are crew no more: whoever is would have to send to that node


def _refine(group: Group, now: float) -> None:
    """Look whether another leader of the layer is closer."""
    parameters = group.desk.parameters
    layer = len(group.seats) - 1
    seat = group.seats[layer]
    if seat.leader == group.own or not seat.super_crew:
        group.refine_chance = NOT_DRAWN  # the time of another seat would long be over
        return
    if group.descent.phase is not Phase.IDLE:
        return
    chance = _refine_chance(seat, parameters)
    if group.refine_chance == chance:
        if now < group.refine_at:
            return
        group.descent.refine(seat.super_crew[0], layer, group.desk.rtt(seat.leader), now)
    group.refine_at = now + parameters.check_s * group.desk.rounds(chance)
    group.refine_chance = chance


def _refine_chance(seat: Seat, parameters: Options) -> float:
    is_undersized = len(seat.members) < parameters.k
    return parameters.refine_undersized_probability if is_undersized else parameters.refine_probability
