"""Goal: whatever a member says, nemo goes on, says only what others can decode, and forgets the lie in time.

Method: one engine is told lies by hand.  What lies do to many is in tests/sim/test_nemo_liars.py, random ones are in
tests/fuzz/nemo.py.
"""

from __future__ import annotations

import itertools
import random

import pytest

from pipeline.address import ANY_SOURCE, NodeId, parse
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import EngineContext, LinkState, NodeView, Transmit
from pipeline.engines.nemo import messages
from pipeline.engines.nemo.engine import SOURCE_GRACES, Nemo
from pipeline.engines.nemo.join import Phase
from pipeline.engines.nemo.messages import Answer, Heartbeat, Join, Members, Message, Redirect, RootReply, Source, View
from pipeline.engines.nemo.options import Options
from tests.fuzz import nemo

GROUP = parse("239.1.2.3")
OWN, LIAR, OTHER = 1, 7, 8
PARAMETERS = Options()


class AnnouncingView(NodeView):
    """View in which an engine has to announce sources itself."""

    announces_sources = True


class Victim:
    """An engine that is the first of its group and its own rendezvous, and what it says."""

    def __init__(self, *, view: NodeView | None = None) -> None:
        context = EngineContext(node_id=OWN, random=lambda: 0.5, view=view or NodeView(), options={"rendezvous": ["x"]})
        self.now = 0.0
        self.engine = Nemo(context, 0.0)
        self.engine._rendezvous.named = [OWN]
        for node in (LIAR, OTHER):
            self.engine.handle_link(node, LinkState.UP, 0.0)
        self.engine.join(GROUP, ANY_SOURCE, 0.0)
        self.passes(1.0)
        group = self.engine.group(GROUP)
        assert group is not None
        self.group = group

    def hears(self, *said: Message) -> list[tuple[NodeId, Message]]:
        """What the liar says; returns what is said then, of which all can be decoded."""
        for message in said:
            assert self.engine.handle_message(LIAR, messages.encode(message), self.now) is None
        return self._said()

    def passes(self, seconds: float) -> list[tuple[NodeId, Message]]:
        """Time."""
        end, said = self.now + seconds, []
        while (due := self.engine.poll_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.engine.handle_timeout(self.now)
            said += self._said()
        self.now = end
        return said

    def _said(self) -> list[tuple[NodeId, Message]]:
        found = []
        while (output := self.engine.poll_output()) is not None:
            if isinstance(output, Transmit):
                found.append((output.peer, messages.decoder.decode(output.message)))
        return found

    def lead(self, layer: int, *others: NodeId, super_crew: messages.Crew = ()) -> None:
        """Made the leader of these by the liar."""
        seat = self.group.seats.get(layer)
        version = seat.version + 1 if seat is not None else 1
        members: Members = dict.fromkeys((OWN, *others), ())
        self.hears(View(GROUP, layer, version, OWN, members, (OWN,), super_crew))
        assert self.group.leads(layer)

    def follow(self, layer: int) -> None:
        """Made a member of the liar's cluster."""
        version = self.group.seats[layer].version + 1
        self.hears(View(GROUP, layer, version, LIAR, {OWN: (), LIAR: ()}, (LIAR,), ()))
        assert self.group.seats[layer].leader == LIAR


@pytest.fixture
def victim() -> Victim:
    return Victim()


def test_an_answer_about_seats_that_are_gone_is_of_no_use(victim: Victim) -> None:
    """Control would end with a KeyError."""
    victim.lead(0, LIAR)
    victim.lead(1, LIAR, super_crew=(LIAR,))
    victim.group.descent.descend(LIAR, 2, victim.now)
    victim.follow(0)
    victim.hears(Redirect(GROUP, 0, 0))
    assert not victim.group.seats
    assert victim.group.descent.phase is Phase.DESCENDING
    victim.hears(Answer(GROUP, 0, victim.group.descent._ticket, [LIAR], 0))
    victim.passes(1.0)
    assert victim.group.leads(0)


def test_who_has_lost_the_lead_does_not_lead_because_the_rendezvous_says_so(victim: Victim) -> None:
    victim.lead(0, LIAR, super_crew=(LIAR,))
    victim.group.descent.find(LIAR, 1, victim.now)
    victim.follow(0)
    said = victim.hears(RootReply(GROUP, OWN))
    assert not any(isinstance(message, View) for _, message in said)
    assert victim.group.seats[0].crew == (LIAR,)


def test_no_cluster_outgrows_what_a_view_can_hold(victim: Victim) -> None:
    """A view of one more would be malformed: all others would cut its leader off."""
    victim.lead(0, *range(1000, 1000 + messages.CLUSTER_MAX - 1))
    distances = dict.fromkeys(range(messages.CLUSTER_MAX), 1.0)
    victim.hears(Heartbeat(GROUP, 0, OWN, 1, (), 1.0, 0.0, 0.0, distances))
    victim.hears(Join(GROUP, 0, (), 0))
    seat = victim.group.seats[0]
    assert len(seat.members) == messages.CLUSTER_MAX
    assert not seat.distances, "nor is anything kept of who is no member"
    victim.passes(5.0)


def test_no_hierarchy_outgrows_what_can_be_said(victim: Victim) -> None:
    for layer in range(messages.LAYERS_MAX):
        crowd = range(1000, 1020)
        members: Members = dict.fromkeys((OWN, *crowd), ())
        victim.hears(View(GROUP, layer, 5, OWN, members, (OWN,), (LIAR,)))
    assert len(victim.group.seats) == messages.LAYERS_MAX - 1
    victim.passes(PARAMETERS.heartbeat_s * 2)


def test_views_of_nobody_are_malformed(victim: Victim) -> None:
    view = View(GROUP, 0, 5, 0, {0: (), OWN: ()}, (0,), ())
    assert victim.engine.handle_message(LIAR, messages.encode(view), victim.now) == MessageRefusal.NEMO_MALFORMED


def test_a_leader_outdoes_what_has_been_said_in_its_name(victim: Victim) -> None:
    """Its own views would not be believed before their versions have grown so far."""
    victim.lead(0, LIAR, OTHER)
    version = 1 << 40
    beat = messages.encode(Heartbeat(GROUP, 0, OWN, version, (), 0.0, 0.0, 0.0, {}))
    assert victim.engine.handle_message(OTHER, beat, victim.now) is None
    said = victim.hears()
    assert (OTHER, version + 1) in [(peer, view.version) for peer, view in said if isinstance(view, View)]
    beyond = Heartbeat(GROUP, 0, OWN, messages.VERSION_SANE + 1, (), 0.0, 0.0, 0.0, {})
    victim.hears(beyond)
    assert victim.group.seats[0].version == version + 1


def test_a_cluster_near_the_end_of_versions_begins_anew(victim: Victim) -> None:
    members: Members = {OWN: (), LIAR: ()}
    victim.hears(View(GROUP, 0, messages.VERSION_SANE, OWN, members, (OWN,), ()))
    said = victim.passes(2 * PARAMETERS.check_s)
    assert (LIAR, Redirect(GROUP, 0, 0)) in said
    assert victim.group.seats[0].version < messages.LAYERS_MAX
    victim.hears(View(GROUP, 0, messages.VERSION_SANE, LIAR, members, (LIAR,), ()))
    victim.engine.handle_link(LIAR, LinkState.DOWN, victim.now)
    victim.passes(PARAMETERS.grace_s + PARAMETERS.retry_s)
    assert victim.group.leads(0)
    assert victim.group.seats[0].version < messages.LAYERS_MAX


def test_who_is_sent_round_in_circles_stops(victim: Victim) -> None:
    victim.follow(0)
    joins = victim.hears(Redirect(GROUP, 0, OTHER))
    for leader in itertools.islice(itertools.cycle((LIAR, OTHER)), 1000):
        joins += victim.hears(Redirect(GROUP, 0, leader))
    assert len(joins) <= messages.LAYERS_MAX + 1
    victim.passes(PARAMETERS.check_s)
    assert victim.group.descent.redirects == 0


@pytest.mark.parametrize("count", [1, (1 << 62) - 1])
def test_a_source_is_not_silenced_for_good(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Neither by a count beyond its own nor by a list that is full of others."""
    monkeypatch.setattr("pipeline.limits.NODES_MAX", 4)
    victim = Victim(view=AnnouncingView())
    origins = (OTHER,) if count > 1 else (11, 12, 13, 14)
    victim.hears(*(Source(GROUP, origin, count) for origin in origins))
    victim.passes(SOURCE_GRACES * PARAMETERS.grace_s + 1)
    victim.hears(Source(GROUP, OTHER, 1))
    assert {origin: said for origin, (said, _) in victim.engine._sources[GROUP].items()} == {OTHER: 1}


def test_scripts_of_lies() -> None:
    """Goal: those of the fuzzer are sound, and so is the engine.  Method: some of them."""
    lies = nemo.scripts(random.Random(7))
    for script in itertools.islice(lies, 10):
        nemo.run_script(script)
