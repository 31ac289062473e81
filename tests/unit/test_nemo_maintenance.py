"""Goal: clusters that are a danger to those below do not last, and the dead have no place in one.

Method: one node with seats given by hand; time passes.
"""

from __future__ import annotations

from pipeline.address import NodeId, parse
from pipeline.engines.api import Transmit
from pipeline.engines.nemo import maintenance, messages
from pipeline.engines.nemo.clusters import Seat
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.group import Group
from pipeline.engines.nemo.join import Phase
from pipeline.engines.nemo.options import Options

GROUP = parse("239.1.2.3")
OWN, CHILD, ABOVE, NEAR, STRANGER = 1, 2, 3, 4, 5


def drain(desk: Context) -> list[tuple[NodeId, messages.Message]]:
    """What has been said, and to whom."""
    said = [(each.peer, messages.decoder.decode(each.message)) for each in desk.outputs if isinstance(each, Transmit)]
    desk.outputs.clear()
    return said


def joins_said(members: list[NodeId], dead: NodeId = 0) -> list[tuple[NodeId, int]]:
    """Whom a node asks to be taken in, and in which layer, that leads a cluster of these in layer 1, if one has died
    in layer 2."""
    desk = Context(OWN, Options(), lambda: 0.99)
    desk.measured(NEAR, 0.001)
    group = Group(GROUP, desk, 0.0)
    group.beat_at = 5.0
    low, middle = (OWN, CHILD), tuple(members)
    group.seats = {
        0: Seat(0, OWN, 1, {OWN: (), CHILD: ()}, low, super_crew=middle),
        1: Seat(1, OWN, 1, {OWN: low, **{node: (node,) for node in members if node != OWN}}, middle, (ABOVE,)),
        2: Seat(2, ABOVE, 1, {ABOVE: (ABOVE,), NEAR: (NEAR,), OWN: middle}, (ABOVE,)),
    }
    for seat in group.seats.values():
        seat.heard = dict.fromkeys(seat.members, 0.0)
    maintenance.handle_death(group, dead, 1.0)
    maintenance.handle_timeout(group, lambda: ABOVE, 1.0)
    said = drain(desk)
    return [(peer, message.layer) for peer, message in said if isinstance(message, messages.Join)]


def test_a_cluster_without_a_whole_crew_moves_to_the_nearest() -> None:
    assert joins_said([OWN]) == joins_said([OWN, 8]) == [(NEAR, 1)]


def test_a_cluster_does_not_move_to_the_dead() -> None:
    """All below it would wait for an answer that never comes."""
    assert joins_said([OWN], dead=NEAR) == [(ABOVE, 1)]


def test_a_cluster_with_one_stays() -> None:
    assert joins_said([OWN, 8, 9]) == []


def test_who_loses_its_place_while_it_looks_for_a_closer_one_asks_all_above() -> None:
    """The first of them does not answer, so it must not be asked for ever."""
    desk = Context(OWN, Options(), lambda: 0.99)
    desk.up = {ABOVE, NEAR, CHILD}
    group = Group(GROUP, desk, 0.0)
    group.seats = {0: Seat(0, OWN, 1, {OWN: (), CHILD: ()}, (OWN, CHILD), super_crew=(ABOVE, NEAR))}
    group.seats[0].heard = {OWN: 0.0, CHILD: 0.0}
    group.descent.refine(ABOVE, 1, 0.1, 0.0)
    asked = set()
    for second in range(12):
        group.seats[0].heard[CHILD] = float(second)
        maintenance.handle_timeout(group, lambda: ABOVE, float(second))
        while desk.outputs:
            output = desk.outputs.popleft()
            if isinstance(output, Transmit) and isinstance(messages.decoder.decode(output.message), messages.Join):
                asked.add(output.peer)
    assert asked == {ABOVE, NEAR}


def test_an_heir_leaves_all_dead_behind() -> None:
    """As after a partition: a view with the dead, newer than their own, would draw them out of the tree they are in."""
    desk = Context(OWN, Options(), lambda: 0.99)
    group = Group(GROUP, desk, 0.0)
    members = [ABOVE, OWN, CHILD, NEAR, 8]
    group.seats = {0: Seat(0, ABOVE, 1, dict.fromkeys(members, ()), (ABOVE, NEAR, 8))}
    group.seats[0].heard = dict.fromkeys(members, 0.0)
    for node in (ABOVE, NEAR, 8):
        maintenance.handle_death(group, node, 1.0)
    maintenance.handle_timeout(group, lambda: OWN, 1.0)
    said = drain(desk)
    views = [
        (peer, each.leader, set(each.members), each.crew) for peer, each in said if isinstance(each, messages.View)
    ]
    assert views[-1] == (CHILD, OWN, {OWN, CHILD}, (OWN, CHILD))
    assert {peer for peer, *_ in views} == {CHILD}


def test_who_waits_to_follow_a_leader_tells_those_before_it_that_it_is_dead() -> None:
    """They may have asked it themselves just before it died."""
    desk = Context(OWN, Options(), lambda: 0.99)
    group = Group(GROUP, desk, 0.0)
    members = [ABOVE, NEAR, OWN, CHILD]
    group.seats = {0: Seat(0, ABOVE, 1, dict.fromkeys(members, ()), (ABOVE, NEAR, OWN))}
    group.seats[0].heard = dict.fromkeys(members, 0.0)
    maintenance.handle_death(group, ABOVE, 1.0)
    maintenance.handle_timeout(group, lambda: OWN, 1.0)
    said = drain(desk)
    assert (NEAR, messages.Nack(GROUP, 0, (), ABOVE)) in said
    assert not [each for _, each in said if isinstance(each, messages.View)]


def test_who_knows_first_of_a_death_is_answered_by_the_heir() -> None:
    """A leader of two layers dies: its heir below asks its heir above for its place, who does not know of it yet."""
    desk = Context(OWN, Options(), lambda: 0.99)
    group = Group(GROUP, desk, 0.0)
    members = [ABOVE, OWN, NEAR, CHILD]
    group.seats = {
        0: Seat(0, OWN, 1, {OWN: ()}, (OWN,), (ABOVE, OWN, NEAR)),
        1: Seat(1, ABOVE, 1, {node: (node,) for node in members}, (ABOVE, OWN, NEAR)),
    }
    for seat in group.seats.values():
        seat.heard = dict.fromkeys(seat.members, 0.0)
    group.handle_join(STRANGER, messages.Join(GROUP, 1, (STRANGER,), ABOVE), 1.0)
    assert drain(desk) == [(ABOVE, messages.Nack(GROUP, 0, (), 0))]
    maintenance.handle_death(group, ABOVE, 1.3)
    maintenance.handle_timeout(group, lambda: OWN, 1.3)
    views = [each for peer, each in drain(desk) if peer == STRANGER and isinstance(each, messages.View)]
    assert [(each.layer, each.leader, STRANGER in each.members) for each in views] == [(1, OWN, True)]


def led_cluster(*members: NodeId) -> tuple[Context, Group]:
    """A node that leads one cluster, alone in the world."""
    desk = Context(OWN, Options(), lambda: 0.99)
    group = Group(GROUP, desk, 0.0)
    group.lead(Seat(0, OWN, 1, dict.fromkeys((OWN, *members), ()), (OWN,)), 0.0)
    group.beat_at = 50.0
    drain(desk)
    return desk, group


def test_a_heartbeat_on_the_way_does_not_undo_a_split() -> None:
    _, group = led_cluster(*range(2, 12))
    beats = {
        node: messages.Heartbeat(GROUP, 0, OWN, group.seats[0].version, (), 1.0, 0.0, 0.0, {}) for node in range(2, 12)
    }
    maintenance.handle_timeout(group, lambda: OWN, 1.0)
    stayed = set(group.seats[0].members)
    assert len(stayed) < 11
    for node, beat in beats.items():
        group.handle_beat(node, beat, 1.1)
    assert set(group.seats[0].members) == stayed
    back = min(beats.keys() - stayed)
    group.handle_beat(back, beats[back], 5.0)
    assert back in group.seats[0].members, "who still says so a while later means it"


def test_who_is_to_lead_and_has_no_place_there_any_more_sends_the_members_back() -> None:
    """A split one layer above has crossed a merge: the others have been told who leads them, and wait for it."""
    desk, group = led_cluster(CHILD)
    group.unseat(0)
    drain(desk)
    view = messages.View(GROUP, 1, 9, OWN, {OWN: (OWN,), NEAR: (NEAR,), CHILD: (CHILD,)}, (OWN, NEAR), ())
    for _ in range(2):
        group.handle_view(ABOVE, view, 1.0)
    told = [(peer, each) for peer, each in drain(desk) if isinstance(each, messages.Redirect)]
    assert told == [(NEAR, messages.Redirect(GROUP, 1, ABOVE)), (CHILD, messages.Redirect(GROUP, 1, ABOVE))]


def test_who_gives_up_a_lead_for_a_place_elsewhere_says_where() -> None:
    desk, group = led_cluster(CHILD, STRANGER)
    group.handle_view(ABOVE, messages.View(GROUP, 0, 99, ABOVE, {ABOVE: (), OWN: (), CHILD: ()}, (ABOVE,), ()), 1.0)
    assert group.seats[0].leader == ABOVE
    told = [(peer, each.leader) for peer, each in drain(desk) if isinstance(each, messages.Redirect)]
    assert told == [(STRANGER, ABOVE)]


def test_a_join_that_is_not_answered_is_given_up_soon() -> None:
    """The root may have died meanwhile, and all below wait."""
    _, group = led_cluster()
    group.send_join(ABOVE, 1, 0.0)
    assert group.descent.due == Options().query_s


def test_a_refinement_asks_only_those_who_may_be_closer() -> None:
    desk = Context(OWN, Options(), lambda: 0.99)
    group = Group(GROUP, desk, 0.0)
    desk.measured(NEAR, 0.01)
    desk.measured(CHILD, 0.2)
    group.descent.refine(ABOVE, 0, 0.1, 0.0)
    group.descent.handle_answer(ABOVE, messages.Answer(GROUP, 1, 1, [OWN, ABOVE, NEAR, CHILD, STRANGER], 1), 0.05)
    asked = [output for output in desk.outputs if isinstance(output, Transmit)]
    assert [output.peer for output in asked] == [ABOVE, ABOVE, NEAR, STRANGER]
    assert [messages.decoder.decode(output.message) for output in asked[1:]] == [messages.Query(GROUP, 0, 0, 2)] * 3


def test_no_closer_leader_no_question() -> None:
    desk = Context(OWN, Options(), lambda: 0.99)
    group = Group(GROUP, desk, 0.0)
    desk.measured(CHILD, 0.2)
    group.descent.refine(ABOVE, 0, 0.1, 0.0)
    group.descent.handle_answer(ABOVE, messages.Answer(GROUP, 1, 1, [OWN, CHILD], 1), 0.2)
    assert (group.descent.phase, len(desk.outputs)) == (Phase.IDLE, 1)
