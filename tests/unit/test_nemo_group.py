"""Goal: brittle clusters do not last, dead nodes are replaced, and members that lose their leader learn the next one.

Method: one node whose memberships are set by hand; time passes.
"""

from __future__ import annotations

from pipeline.address import NodeId, parse
from pipeline.engines.api import Transmit
from pipeline.engines.nemo import messages
from pipeline.engines.nemo.cluster_membership import ClusterMembership, Event
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.group import Group
from pipeline.engines.nemo.join import Phase
from pipeline.engines.nemo.options import Options
from pipeline.engines.nemo.rendezvous import Rendezvous

GROUP = parse("239.1.2.3")
OWN, CHILD, ABOVE, NEAR, STRANGER = 1, 2, 3, 4, 5


class Bench:
    """One node's part in a group, whose rendezvous is another node."""

    def __init__(self, *memberships: ClusterMembership, rendezvous: NodeId = OWN) -> None:
        self.context = Context(OWN, Options(), lambda: 0.99)
        self.rendezvous = Rendezvous(self.context)
        self.rendezvous.named = lambda: [rendezvous]  # type: ignore[method-assign]
        self.group = Group(GROUP, self.context, self.rendezvous, 0.0)
        for membership in memberships:
            membership.mark_all_alive(0.0)
            self.group.hierarchy.enter(membership, Event.APPOINTED if membership.leader == OWN else Event.FOLLOW)

    def membership(self, layer: int) -> ClusterMembership:
        return self.group.hierarchy.memberships[layer]

    def sent(self) -> list[tuple[NodeId, messages.Message]]:
        """Return the messages since the last call, with their receivers."""
        outputs = [output for output in self.context.outputs if isinstance(output, Transmit)]
        self.context.outputs.clear()
        return [(output.peer, messages.decoder.decode(output.message)) for output in outputs]


def led_cluster(*members: NodeId) -> Bench:
    """Return a node that leads one cluster and is the root."""
    bench = Bench(ClusterMembership(0, OWN, 1, dict.fromkeys((OWN, *members), ()), (OWN,)))
    bench.group.leader.publish(0)
    bench.group.schedule.set_heartbeat(50.0)
    bench.sent()
    return bench


# ---- operations


def joins_sent(members: list[NodeId], dead: NodeId = 0) -> list[tuple[NodeId, int]]:
    """Return receiver and layer of the Joins that a node sends which leads these members in layer 1.

    One member of its cluster in layer 2 may have died.
    """
    low, middle = (OWN, CHILD), tuple(members)
    bench = Bench(
        ClusterMembership(0, OWN, 1, {OWN: (), CHILD: ()}, low, super_crew=middle),
        ClusterMembership(
            1, OWN, 1, {OWN: low, **{node: (node,) for node in members if node != OWN}}, middle, (ABOVE,)
        ),
        ClusterMembership(2, ABOVE, 1, {ABOVE: (ABOVE,), NEAR: (NEAR,), OWN: middle}, (ABOVE,)),
        rendezvous=ABOVE,
    )
    bench.context.record_rtt(NEAR, 0.001)
    bench.group.schedule.set_heartbeat(5.0)
    bench.group.handle_link_down(dead, 1.0)
    bench.group.handle_timeout(1.0)
    return [(peer, message.layer) for peer, message in bench.sent() if isinstance(message, messages.Join)]


def test_cluster_without_a_whole_crew_merges_into_the_nearest() -> None:
    assert joins_sent([OWN]) == joins_sent([OWN, 8]) == [(NEAR, 1)]


def test_cluster_does_not_merge_into_that_of_a_dead_leader() -> None:
    """All nodes below it would wait for an answer that never arrives."""
    assert joins_sent([OWN], dead=NEAR) == [(ABOVE, 1)]


def test_cluster_with_a_whole_crew_stays() -> None:
    assert joins_sent([OWN, 8, 9]) == []


def test_heartbeat_sent_before_a_split_does_not_undo_it() -> None:
    bench = led_cluster(*range(2, 12))
    version = bench.membership(0).version
    heartbeats = {node: messages.Heartbeat(GROUP, 0, OWN, version, (), 1.0, 0.0, 0.0, {}) for node in range(2, 12)}
    bench.group.handle_timeout(1.0)
    stayed = set(bench.membership(0).members)
    assert len(stayed) < 11
    for node, heartbeat in heartbeats.items():
        bench.group.handle_message(node, heartbeat, 1.1)
    assert set(bench.membership(0).members) == stayed
    returning = min(heartbeats.keys() - stayed)
    bench.group.handle_message(returning, heartbeats[returning], 5.0)
    assert returning in bench.membership(0).members, "a later heartbeat is a request to return"


# ---- succession


def test_successor_leaves_all_dead_nodes_behind() -> None:
    """After a partition, a newer view that lists the dead would draw those that are alive out of their tree."""
    members = [ABOVE, OWN, CHILD, NEAR, 8]
    bench = Bench(ClusterMembership(0, ABOVE, 1, dict.fromkeys(members, ()), (ABOVE, NEAR, 8)))
    for node in (ABOVE, NEAR, 8):
        bench.group.handle_link_down(node, 1.0)
    bench.group.handle_timeout(1.0)
    views = [(peer, each) for peer, each in bench.sent() if isinstance(each, messages.View)]
    assert {peer for peer, _ in views} == {CHILD}
    view = views[-1][1]
    assert (view.leader, set(view.members), view.crew) == (OWN, {OWN, CHILD}, (OWN, CHILD))


def test_waiting_successor_names_the_dead_leader_to_those_before_it() -> None:
    """They may have probed the leader themselves just before it died."""
    members = [ABOVE, NEAR, OWN, CHILD]
    bench = Bench(ClusterMembership(0, ABOVE, 1, dict.fromkeys(members, ()), (ABOVE, NEAR, OWN)))
    bench.group.handle_link_down(ABOVE, 1.0)
    bench.group.handle_timeout(1.0)
    sent = bench.sent()
    assert (NEAR, messages.Nack(GROUP, 0, (), ABOVE)) in sent
    assert not [each for _, each in sent if isinstance(each, messages.View)]


def test_join_in_a_dead_node_s_place_is_answered_by_its_successor() -> None:
    """The leader of two layers dies: its successor below sends a Join to its successor above, which cannot know yet."""
    members = [ABOVE, OWN, NEAR, CHILD]
    bench = Bench(
        ClusterMembership(0, OWN, 1, {OWN: ()}, (OWN,), (ABOVE, OWN, NEAR)),
        ClusterMembership(1, ABOVE, 1, {node: (node,) for node in members}, (ABOVE, OWN, NEAR)),
    )
    bench.group.handle_message(STRANGER, messages.Join(GROUP, 1, (STRANGER,), ABOVE), 1.0)
    assert bench.sent() == [(ABOVE, messages.Nack(GROUP, 0, (), 0))]
    bench.group.handle_link_down(ABOVE, 1.3)
    bench.group.handle_timeout(1.3)
    views = [each for peer, each in bench.sent() if peer == STRANGER and isinstance(each, messages.View)]
    assert [(each.layer, each.leader, STRANGER in each.members) for each in views] == [(1, OWN, True)]


# ---- two leaders


def contested_member() -> Bench:
    """Return a member whose leader another node claims to succeed."""
    members = [ABOVE, NEAR, OWN, CHILD]
    bench = Bench(ClusterMembership(0, ABOVE, 1, dict.fromkeys(members, ()), (ABOVE, NEAR, OWN)))
    rival = messages.View(GROUP, 0, 5, NEAR, dict.fromkeys((NEAR, OWN, CHILD), ()), (NEAR, OWN), ())
    bench.group.handle_message(NEAR, rival, 1.0)
    assert bench.sent() == [(ABOVE, messages.Nack(GROUP, 0, (), 0))], "the leader is probed first"
    assert bench.membership(0).leader == ABOVE
    return bench


def test_rival_is_refused_if_the_leader_answers() -> None:
    bench = contested_member()
    bench.group.handle_message(ABOVE, messages.NackReply(GROUP, 0, (), (), is_circular=False), 1.1)
    assert (NEAR, messages.Leave(GROUP, 0, 0, ())) in bench.sent()
    assert bench.membership(0).leader == ABOVE


def test_rival_is_followed_if_the_leader_is_dead() -> None:
    bench = contested_member()
    for _ in range(3):
        due = bench.group.failure_detector.due
        assert due is not None
        bench.group.handle_timeout(due)
    assert bench.membership(0).leader == NEAR


def test_node_without_a_membership_to_lead_redirects_the_members_once() -> None:
    """A split one layer above has crossed a merge: the other members have the same view, and wait for the leader."""
    bench = led_cluster(CHILD)
    bench.group.hierarchy.leave(0)
    bench.sent()
    view = messages.View(GROUP, 1, 9, OWN, {OWN: (OWN,), NEAR: (NEAR,), CHILD: (CHILD,)}, (OWN, NEAR), ())
    for _ in range(2):
        bench.group.handle_message(ABOVE, view, 1.0)
    redirects = [(peer, each) for peer, each in bench.sent() if isinstance(each, messages.Redirect)]
    assert redirects == [(NEAR, messages.Redirect(GROUP, 1, ABOVE)), (CHILD, messages.Redirect(GROUP, 1, ABOVE))]


def test_leader_that_follows_another_redirects_the_members_left_out() -> None:
    bench = led_cluster(CHILD, STRANGER)
    view = messages.View(GROUP, 0, 99, ABOVE, {ABOVE: (), OWN: (), CHILD: ()}, (ABOVE,), ())
    bench.group.handle_message(ABOVE, view, 1.0)
    assert bench.membership(0).leader == ABOVE
    redirects = [(peer, each.leader) for peer, each in bench.sent() if isinstance(each, messages.Redirect)]
    assert redirects == [(STRANGER, ABOVE)]


# ---- joining


def test_node_that_loses_its_membership_during_a_refinement_tries_all_nodes_above() -> None:
    """The first of them does not answer, so it must not be the only one that is tried."""
    members: messages.Members = {OWN: (), CHILD: ()}
    bench = Bench(ClusterMembership(0, OWN, 1, members, (OWN, CHILD), super_crew=(ABOVE, NEAR)), rendezvous=ABOVE)
    bench.context.up = {ABOVE, NEAR, CHILD}
    bench.group.join_search.refine(ABOVE, 1, 0.1, 0.0)
    tried = set()
    for second in range(12):
        bench.membership(0).mark_alive(CHILD, float(second))
        bench.group.handle_timeout(float(second))
        tried |= {peer for peer, each in bench.sent() if isinstance(each, messages.Join)}
    assert tried == {ABOVE, NEAR}


def test_join_without_an_answer_ends_soon() -> None:
    """The root may have died meanwhile, and all nodes below wait."""
    bench = led_cluster()
    bench.group.member.send_join(ABOVE, 1, 0.0)
    assert bench.group.join_search.due == Options().query_s


def test_refinement_queries_only_leaders_that_may_be_closer() -> None:
    bench = Bench()
    bench.context.record_rtt(NEAR, 0.01)
    bench.context.record_rtt(CHILD, 0.2)
    bench.group.join_search.refine(ABOVE, 0, 0.1, 0.0)
    members = [OWN, ABOVE, NEAR, CHILD, STRANGER]
    bench.group.handle_message(ABOVE, messages.Answer(GROUP, 1, 1, members, 1), 0.05)
    first, *others = bench.sent()
    assert first[0] == ABOVE
    assert others == [(node, messages.Query(GROUP, 0, 0, 2)) for node in (ABOVE, NEAR, STRANGER)]


def test_refinement_without_a_closer_leader_ends() -> None:
    bench = Bench()
    bench.context.record_rtt(CHILD, 0.2)
    bench.group.join_search.refine(ABOVE, 0, 0.1, 0.0)
    bench.group.handle_message(ABOVE, messages.Answer(GROUP, 1, 1, [OWN, CHILD], 1), 0.2)
    assert (bench.group.join_search.phase, len(bench.sent())) == (Phase.IDLE, 1)
