"""Goal: those who ask are sent to one leader of the top cluster, whoever dies, comes back or has been apart.

Method: a rendezvous is told and asked by hand.
"""

from __future__ import annotations

import pytest

from pipeline.address import parse
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.options import Options
from pipeline.engines.nemo.rendezvous import HEIRS_S, Rendezvous

GROUP = parse("239.1.2.3")
ROOT, HEIR, NEWCOMER = 1, 2, 9


@pytest.fixture
def rendezvous() -> Rendezvous:
    """Of a group with a hierarchy of three layers."""
    found = Rendezvous(Context(7, Options(), lambda: 0.5))
    assert found.root(GROUP, ROOT, 0.0, is_root=False) == ROOT, "the first"
    assert found.root(GROUP, ROOT, 1.0, is_root=True, layers=3) == ROOT
    return found


def test_an_heir_follows_a_dead_leader(rendezvous: Rendezvous) -> None:
    """A top cluster of two is none when one of them is dead: then the heir has one layer less."""
    assert rendezvous.root(GROUP, HEIR, 5.0, is_root=True, instead=ROOT, layers=2) == HEIR
    assert rendezvous.root(GROUP, NEWCOMER, 5.1, is_root=False) == HEIR


def test_of_two_that_were_apart_the_higher_stays(rendezvous: Rendezvous) -> None:
    """The lower one believes that the other is dead, and says so until it hears of it."""
    assert rendezvous.root(GROUP, HEIR, 5.0, is_root=True, instead=ROOT, layers=2) == HEIR
    for now in (6.0, 16.0):
        assert rendezvous.root(GROUP, ROOT, now, is_root=True, layers=3) == ROOT
        assert rendezvous.root(GROUP, HEIR, now + 1, is_root=True, instead=ROOT, layers=2) == ROOT


def test_the_lead_is_handed_over_and_back(rendezvous: Rendezvous) -> None:
    assert rendezvous.root(GROUP, HEIR, 5.0, is_root=True, instead=ROOT, layers=3) == HEIR
    assert rendezvous.root(GROUP, ROOT, 6.0, is_root=True, instead=HEIR, layers=3) == ROOT


def test_the_place_of_a_leader_that_is_gone_is_kept_for_its_heir(rendezvous: Rendezvous) -> None:
    rendezvous.forget(ROOT, 5.0)
    for asker in (NEWCOMER, ROOT):
        assert rendezvous.root(GROUP, asker, 5.1, is_root=False) == 0, "ask again: it knows nothing any more"
    assert rendezvous.root(GROUP, HEIR, 5.2, is_root=True, instead=ROOT, layers=3) == HEIR
    assert rendezvous.root(GROUP, ROOT, 5.3, is_root=False) == HEIR


def test_without_an_heir_the_group_begins_anew(rendezvous: Rendezvous) -> None:
    rendezvous.forget(ROOT, 5.0)
    assert rendezvous.root(GROUP, NEWCOMER, 5.0 + HEIRS_S, is_root=False) == NEWCOMER


def test_who_was_alone_is_not_waited_for(rendezvous: Rendezvous) -> None:
    assert rendezvous.root(GROUP, ROOT, 5.0, is_root=True, layers=0) == ROOT
    rendezvous.forget(ROOT, 6.0)
    assert rendezvous.root(GROUP, NEWCOMER, 6.0, is_root=False) == NEWCOMER
