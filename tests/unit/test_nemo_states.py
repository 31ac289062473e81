"""Goal: the table of membership states is complete, and the code obeys it.  Method: walk the table; fuzz scripts."""

from __future__ import annotations

import itertools
import random

import pytest

from pipeline.engines.nemo.cluster_membership import TRANSITIONS, Event, State, next_state
from pipeline.engines.nemo.hierarchy import Hierarchy
from tests.fuzz import nemo


def test_every_state_is_reachable_and_can_be_left() -> None:
    reached, waiting = {State.OUT}, [State.OUT]
    while waiting:
        state = waiting.pop()
        new = {after for (before, _), after in TRANSITIONS.items() if before is state} - reached
        reached |= new
        waiting += new
    assert reached == set(State)
    assert {before for (before, event), _ in TRANSITIONS.items() if event is Event.LEAVE} == set(State) - {State.OUT}


def test_every_event_has_a_row() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


@pytest.mark.parametrize(
    ("state", "event"), [each for each in itertools.product(State, Event) if each not in TRANSITIONS]
)
def test_pair_without_a_row_is_refused(state: State, event: Event) -> None:
    with pytest.raises(AssertionError, match="cannot happen"):
        next_state(state, event)


def test_state_agrees_with_the_data_under_forgeries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: LEADER means that this node leads, and layers have no gaps.

    Method: check all nodes after each change of any while fuzz scripts run; every state must occur.
    """
    seen: set[State] = set()
    take_change = Hierarchy.take_change

    def checked(self: Hierarchy) -> bool:
        assert sorted(self.memberships) == list(range(len(self.memberships)))
        for layer, membership in self.memberships.items():
            assert (membership.state is State.LEADER) == (membership.leader == self.own)
            assert layer == self.top or self.leads(layer)
            assert set(membership.members) <= set(membership.last_heard) | {self.own}
            seen.add(membership.state)
        return take_change(self)

    monkeypatch.setattr(Hierarchy, "take_change", checked)
    for script in itertools.islice(nemo.scripts(random.Random(3)), 40):
        nemo.run_script(script)
    assert seen == {State.MEMBER, State.CONTESTED, State.LEADER}
