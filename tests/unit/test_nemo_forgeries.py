"""Goal: whatever a member sends, nemo continues, sends only well-formed messages, and recovers from forgeries in time.

Method: one engine receives forged messages.  Forgeries sent to many nodes are in tests/sim/test_nemo_forgers.py, random
ones in tests/fuzz/nemo.py.
"""

from __future__ import annotations

import itertools
import random

import pytest

from pipeline.address import ANY_SOURCE, NodeId, parse
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import EngineContext, LinkState, NodeView, Transmit
from pipeline.engines.nemo import messages
from pipeline.engines.nemo.cluster_membership import ClusterMembership
from pipeline.engines.nemo.engine import Nemo
from pipeline.engines.nemo.join import Phase
from pipeline.engines.nemo.messages import Answer, Heartbeat, Join, Members, Message, Redirect, RootReply, Source, View
from pipeline.engines.nemo.options import Options
from pipeline.engines.nemo.sources import LIFETIME_GRACES
from tests.fuzz import nemo

GROUP = parse("239.1.2.3")
OWN, FORGER, OTHER = 1, 7, 8
OPTIONS = Options()


class AnnouncingView(NodeView):
    """View in which an engine has to announce sources itself."""

    announces_sources = True


class Victim:
    """Engine that is the first of its group and its own rendezvous."""

    def __init__(self, *, view: NodeView | None = None) -> None:
        context = EngineContext(node_id=OWN, random=lambda: 0.5, view=view or NodeView(), options={"rendezvous": ["x"]})
        self.now = 0.0
        self.engine = Nemo(context, 0.0)
        self.engine._rendezvous.named = lambda: [OWN]  # type: ignore[method-assign]
        for node in (FORGER, OTHER):
            self.engine.handle_link(node, LinkState.UP, 0.0)
        self.engine.join(GROUP, ANY_SOURCE, 0.0)
        self.run(1.0)
        group = self.engine.group(GROUP)
        assert group is not None
        self.group = group

    def membership(self, layer: int) -> ClusterMembership:
        return self.group.hierarchy.memberships[layer]

    def receive(self, *forged: Message) -> list[tuple[NodeId, Message]]:
        """Take messages of the forger.  Return what the engine sends then, with receivers; all of it can be decoded."""
        for message in forged:
            assert self.engine.handle_message(FORGER, messages.encode(message), self.now) is None
        return self._sent()

    def run(self, seconds: float) -> list[tuple[NodeId, Message]]:
        """Let time pass.  Return what the engine sends meanwhile."""
        end, sent = self.now + seconds, []
        while (due := self.engine.poll_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.engine.handle_timeout(self.now)
            sent += self._sent()
        self.now = end
        return sent

    def _sent(self) -> list[tuple[NodeId, Message]]:
        found = []
        while (output := self.engine.poll_output()) is not None:
            if isinstance(output, Transmit):
                found.append((output.peer, messages.decoder.decode(output.message)))
        return found

    def lead(self, layer: int, *others: NodeId, super_crew: messages.Crew = ()) -> None:
        """Let the forger make the engine leader of these nodes."""
        present = self.group.hierarchy.memberships.get(layer)
        version = present.version + 1 if present is not None else 1
        members: Members = dict.fromkeys((OWN, *others), ())
        self.receive(View(GROUP, layer, version, OWN, members, (OWN,), super_crew))
        assert self.group.hierarchy.leads(layer)

    def follow(self, layer: int) -> None:
        """Let the forger make the engine a member of its own cluster."""
        version = self.membership(layer).version + 1
        self.receive(View(GROUP, layer, version, FORGER, {OWN: (), FORGER: ()}, (FORGER,), ()))
        assert self.membership(layer).leader == FORGER


@pytest.fixture
def victim() -> Victim:
    return Victim()


def test_answer_after_all_memberships_have_ended_does_no_harm(victim: Victim) -> None:
    """Without a check, the control process would end with a KeyError."""
    victim.lead(0, FORGER)
    victim.lead(1, FORGER, super_crew=(FORGER,))
    search = victim.group.join_search
    search.descend(FORGER, 2, victim.now)
    victim.follow(0)
    victim.receive(Redirect(GROUP, 0, 0))
    assert not victim.group.hierarchy.memberships
    assert search.phase is Phase.DESCENDING
    victim.receive(Answer(GROUP, 0, search._ticket, [FORGER], 0))
    victim.run(1.0)
    assert victim.group.hierarchy.leads(0)


def test_root_reply_does_not_make_a_member_publish_views(victim: Victim) -> None:
    victim.lead(0, FORGER, super_crew=(FORGER,))
    victim.group.join_search.find(1, victim.now)
    victim.follow(0)
    sent = victim.receive(RootReply(GROUP, OWN))
    assert not any(isinstance(message, View) for _, message in sent)
    assert victim.membership(0).crew == (FORGER,)


def test_cluster_does_not_outgrow_a_view(victim: Victim) -> None:
    """With one member more, the view would be malformed, and all others would cut its leader off."""
    victim.lead(0, *range(1000, 1000 + messages.CLUSTER_MAX - 1))
    distances = dict.fromkeys(range(messages.CLUSTER_MAX), 1.0)
    victim.receive(Heartbeat(GROUP, 0, OWN, 1, (), 1.0, 0.0, 0.0, distances))
    victim.receive(Join(GROUP, 0, (), 0))
    membership = victim.membership(0)
    assert len(membership.members) == messages.CLUSTER_MAX
    assert not membership.distances, "data of nodes that are no members is not kept"
    victim.run(5.0)


def test_hierarchy_does_not_outgrow_the_layers_of_messages(victim: Victim) -> None:
    for layer in range(messages.LAYERS_MAX):
        members: Members = dict.fromkeys((OWN, *range(1000, 1020)), ())
        victim.receive(View(GROUP, layer, 5, OWN, members, (OWN,), (FORGER,)))
    assert len(victim.group.hierarchy.memberships) == messages.LAYERS_MAX - 1
    victim.run(OPTIONS.heartbeat_s * 2)


def test_view_that_lists_node_0_is_malformed(victim: Victim) -> None:
    view = View(GROUP, 0, 5, 0, {0: (), OWN: ()}, (0,), ())
    assert victim.engine.handle_message(FORGER, messages.encode(view), victim.now) == MessageRefusal.NEMO_MALFORMED


def test_leader_raises_its_version_above_a_forged_one(victim: Victim) -> None:
    """Members that accepted the forged view would ignore the leader's own views until their versions exceed it."""
    victim.lead(0, FORGER, OTHER)
    version = 1 << 40
    heartbeat = messages.encode(Heartbeat(GROUP, 0, OWN, version, (), 0.0, 0.0, 0.0, {}))
    assert victim.engine.handle_message(OTHER, heartbeat, victim.now) is None
    sent = victim.receive()
    assert (OTHER, version + 1) in [(peer, view.version) for peer, view in sent if isinstance(view, View)]
    victim.receive(Heartbeat(GROUP, 0, OWN, messages.VERSION_SANE + 1, (), 0.0, 0.0, 0.0, {}))
    assert victim.membership(0).version == version + 1


def test_cluster_with_the_last_sane_version_begins_anew(victim: Victim) -> None:
    members: Members = {OWN: (), FORGER: ()}
    victim.receive(View(GROUP, 0, messages.VERSION_SANE, OWN, members, (OWN,), ()))
    sent = victim.run(2 * OPTIONS.check_s)
    assert (FORGER, Redirect(GROUP, 0, 0)) in sent
    assert victim.membership(0).version < messages.LAYERS_MAX
    victim.receive(View(GROUP, 0, messages.VERSION_SANE, FORGER, members, (FORGER,), ()))
    victim.engine.handle_link(FORGER, LinkState.DOWN, victim.now)
    victim.run(OPTIONS.grace_s + OPTIONS.retry_s)
    assert victim.group.hierarchy.leads(0)
    assert victim.membership(0).version < messages.LAYERS_MAX


def test_circular_redirects_end(victim: Victim) -> None:
    victim.follow(0)
    joins = victim.receive(Redirect(GROUP, 0, OTHER))
    for leader in itertools.islice(itertools.cycle((FORGER, OTHER)), 1000):
        joins += victim.receive(Redirect(GROUP, 0, leader))
    assert len(joins) <= messages.LAYERS_MAX + 1
    victim.run(OPTIONS.check_s)
    assert victim.group.join_search._redirects == 0


@pytest.mark.parametrize("count", [1, (1 << 62) - 1])
def test_forged_sources_do_not_block_a_real_one_for_ever(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Neither a count above the source's own nor a table full of other sources does."""
    monkeypatch.setattr("pipeline.limits.NODES_MAX", 4)
    victim = Victim(view=AnnouncingView())
    origins = (OTHER,) if count > 1 else (11, 12, 13, 14)
    victim.receive(*(Source(GROUP, origin, count) for origin in origins))
    victim.run(LIFETIME_GRACES * OPTIONS.grace_s + 1)
    victim.receive(Source(GROUP, OTHER, 1))
    assert {origin: count for origin, (count, _) in victim.group.sources._sources.items()} == {OTHER: 1}


def test_fuzzed_scripts_harm_no_engine() -> None:
    """Goal: the fuzzer's scripts are sound, and so is the engine.  Method: run some of them."""
    scripts = nemo.scripts(random.Random(7))
    for script in itertools.islice(scripts, 10):
        nemo.run_script(script)
